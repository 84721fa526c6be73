"""A connection that can be taken away: how the demo's devices go offline and come back."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from broker_topics.bus import Bus, BusRecord, LogReader, Position
from broker_topics.errors import BusError
from broker_topics.topics import TopicSpec


class Antenna:
    """Whether a device is reachable at the moment."""

    def __init__(self) -> None:
        self.online = True

    def check(self) -> None:
        """Raise BusError while the device is offline."""
        if not self.online:
            raise BusError("this device is offline")


class OfflineReader:
    """A log reader that answers only while the device is online."""

    def __init__(self, inner: LogReader, antenna: Antenna) -> None:
        self._inner, self._antenna = inner, antenna

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`."""
        self._inner.seek(partition, offset)

    def position(self, partition: int) -> int:
        """The offset that is read next."""
        return self._inner.position(partition)

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing from these partitions."""
        self._inner.pause(partitions)

    def resume(self, partitions: Sequence[int]) -> None:
        """Fetch from these partitions again."""
        self._inner.resume(partitions)

    async def fetch(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[BusRecord]:
        """The next records; BusError while offline."""
        self._antenna.check()
        return await self._inner.fetch(max_records=max_records, timeout_s=timeout_s)

    async def close(self) -> None:
        """Give up the connection."""
        await self._inner.close()


class OfflineBus:
    """A bus that answers only while the device is online; what was acknowledged before stays so."""

    def __init__(self, inner: Bus, antenna: Antenna) -> None:
        self._inner, self._antenna = inner, antenna

    async def start(self) -> None:
        """Connect."""
        await self._inner.start()

    async def close(self) -> None:
        """Disconnect."""
        await self._inner.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, partition: int = 0) -> Position:
        """Append one record; BusError while offline."""
        self._antenna.check()
        return await self._inner.send(topic, key=key, value=value, partition=partition)

    async def partition_for(self, topic: str, key: bytes) -> int:
        """The partition of a key."""
        self._antenna.check()
        return await self._inner.partition_for(topic, key)

    def reader(self, topic: str, positions: Mapping[int, int], *, evenly: bool = False) -> LogReader:
        """A reader that answers while online."""
        return OfflineReader(self._inner.reader(topic, positions, evenly=evenly), self._antenna)

    async def start_offsets(self, topic: str) -> dict[int, int]:
        """The oldest offsets; BusError while offline."""
        self._antenna.check()
        return await self._inner.start_offsets(topic)

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """The next offsets; BusError while offline."""
        self._antenna.check()
        return await self._inner.end_offsets(topic)

    async def brokers(self) -> int:
        """How many brokers there are; BusError while offline."""
        self._antenna.check()
        return await self._inner.brokers()

    async def existing(self, topics: Sequence[str]) -> set[str]:
        """Which topics there are; BusError while offline."""
        self._antenna.check()
        return await self._inner.existing(topics)

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        """Topics as they are; BusError while offline."""
        self._antenna.check()
        return await self._inner.describe(topics)

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create topics; BusError while offline."""
        self._antenna.check()
        await self._inner.create(specs)
