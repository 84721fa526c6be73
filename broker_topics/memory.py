"""The bus without a broker: a log in this process, for unit tests, simulations and a first look."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from broker_topics.backpressure import MAX_BYTES_UNDER_WAY, ByteBudget
from broker_topics.bus import BusRecord, InDoubtError, OffsetGoneError, Position
from broker_topics.errors import BusError, ConfigError
from broker_topics.memory_log import Fault, MemoryLog, MemoryPartition
from broker_topics.partitions import partition_of
from broker_topics.topics import TopicSpec, check_record_size


class MemoryBus:
    """One participant's connection to a `MemoryLog`; several share one log, in one event loop.

    Never sleeps by itself: `fetch` waits for new records with `asyncio.timeout`, so that a loop with a virtual clock
    drives it as fast as the machine can.
    """

    def __init__(self, log: MemoryLog, *, max_bytes_under_way: int = MAX_BYTES_UNDER_WAY) -> None:
        self.log = log
        self._budget = ByteBudget(max_bytes_under_way)
        self._order: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._open = False

    @property
    def bytes_under_way(self) -> int:
        """Bytes of records that were let in and whose `send` has not returned."""
        return self._budget.under_way

    async def start(self) -> None:
        """Attach to the log; raises BusError while the log is down."""
        self.log.check_up()
        self._open = True

    async def close(self) -> None:
        """Detach; what the log holds stays there."""
        self._open = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, partition: int = 0) -> Position:
        """Append one record; see `Bus.send`. The log's `on_send` decides what goes wrong."""
        self._check_open()
        size = check_record_size(topic, key, value)
        async with self._order[topic, partition]:
            await self._budget.acquire(size)
            try:
                return await self._send(topic, key, value, partition)
            finally:
                self._budget.release(size)

    async def _send(self, topic: str, key: bytes | None, value: bytes | None, partition: int) -> Position:
        await asyncio.sleep(0)  # a sender in a tight loop must let readers run
        self._check_open()
        where = self.log.partition(topic, partition)
        fault = self.log.on_send(topic, partition, key, value) if self.log.on_send else None
        if fault is not None and fault.hold is not None:
            await fault.hold.wait()
        return self._append(where, key, value, fault)

    def _append(self, where: MemoryPartition, key: bytes | None, value: bytes | None, fault: Fault | None) -> Position:
        self._check_open()
        if fault is not None and fault.outcome == "refused":
            raise BusError(f"{where.topic}: the log refused the record")
        if fault is not None and fault.outcome == "late":
            self.log.late.append((where, key, value))
            raise InDoubtError(f"{where.topic}: no answer in time; the record may still arrive")
        position = Position(where.partition, where.append(key, value))
        if fault is not None and fault.outcome == "unacknowledged":
            raise InDoubtError(f"{where.topic}: the answer was lost; the record may be in the log")
        return position

    async def partition_for(self, topic: str, key: bytes) -> int:
        """The partition that records with this key belong to."""
        self._check_open()
        return partition_of(key, self.log.spec(topic).partitions)

    def reader(self, topic: str, positions: Mapping[int, int], *, evenly: bool = False) -> "MemoryReader":
        """Read `partition → offset` of one topic."""
        return MemoryReader(self.log, topic, positions)

    async def start_offsets(self, topic: str) -> dict[int, int]:
        """The oldest offset that is still there, of every partition."""
        self._check_open()
        return {p.partition: p.start for p in self.log.partitions(topic)}

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """The offset that the next record will get, of every partition."""
        self._check_open()
        return {p.partition: p.end for p in self.log.partitions(topic)}

    async def brokers(self) -> int:
        """One: the log itself."""
        self._check_open()
        return 1

    async def existing(self, topics: Sequence[str]) -> set[str]:
        """Those of the topics that exist."""
        self._check_open()
        return {name for name in topics if name in self.log.topics}

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        """Those of the topics that exist, as they were created."""
        self._check_open()
        return {name: self.log.spec(name) for name in topics if name in self.log.topics}

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create topics; one that exists already is left alone."""
        self._check_open()
        for spec in specs:
            self.log.create(spec)

    def _check_open(self) -> None:
        if not self._open:
            raise BusError("the bus is closed; start it first")
        self.log.check_up()


class MemoryReader:
    """Reads partitions of one topic of a `MemoryLog`; see `LogReader`."""

    def __init__(self, log: MemoryLog, topic: str, positions: Mapping[int, int]) -> None:
        if not positions:
            raise ConfigError(f"{topic}: name at least one partition to read")
        self._log = log
        self._topic = topic
        self._positions = dict(positions)
        self._paused: set[int] = set()
        self._turn = 0
        self._open = True

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`."""
        self._check_mine([partition])
        self._positions[partition] = offset

    def position(self, partition: int) -> int:
        """The offset after the last record that `fetch` returned, or the last seek."""
        self._check_mine([partition])
        return self._positions[partition]

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing from these partitions until `resume`."""
        self._check_mine(partitions)
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[int]) -> None:
        """Fetch from these partitions again."""
        self._check_mine(partitions)
        self._paused.difference_update(partitions)

    async def fetch(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[BusRecord]:
        """The next records, partitions in turn; an empty list when none came within `timeout_s`."""
        await asyncio.sleep(0)  # a reader in a tight loop must let senders run
        if records := self._take(max_records):
            return records
        try:
            async with asyncio.timeout(timeout_s):
                while not (records := self._take(max_records)):
                    await self._log.grown(self._topic).wait()
        except TimeoutError:
            return self._take(max_records)
        return records

    async def close(self) -> None:
        """Read no more."""
        self._open = False

    def _take(self, max_records: int) -> list[BusRecord]:
        if not self._open:
            raise BusError("the reader is closed; make a new one")
        self._log.check_up()
        wanted = [self._log.partition(self._topic, p) for p in self._positions if p not in self._paused]
        for where in wanted:
            self._check_in_log(where)
        first = self._turn % len(wanted) if wanted else 0
        self._turn += 1
        taken: list[BusRecord] = []
        for where in wanted[first:] + wanted[:first]:
            position = self._positions[where.partition]
            if position < where.end and (some := where.read(position, max_records - len(taken))):
                self._positions[where.partition] = some[-1].offset + 1
                taken += some
        if not taken:
            self._positions |= {where.partition: where.end for where in wanted}
        return taken

    def _check_in_log(self, where: MemoryPartition) -> None:
        position = self._positions[where.partition]
        if not where.start <= position <= where.end:
            raise OffsetGoneError(
                f"{self._topic}[{where.partition}]: offset {position} lies outside the log, which holds "
                f"{where.start} to {where.end}"
            )

    def _check_mine(self, partitions: Sequence[int]) -> None:
        if strange := [p for p in partitions if p not in self._positions]:
            raise ConfigError(f"{self._topic}: this reader does not read partition {strange[0]}")
