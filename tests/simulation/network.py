"""What lies between a process and the log, and all that can go wrong there: one link a process, one weather for all."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from broker_topics.bus import BusRecord, Position
from broker_topics.errors import BusError
from broker_topics.frames import frame_crc
from broker_topics.memory import MemoryBus, MemoryReader
from broker_topics.memory_log import Fault, MemoryLog
from broker_topics.topics import Topic, TopicSpec, topic_name

TASK = "sim"
UPDATES = topic_name(TASK, Topic.UPDATES)
MODELS = topic_name(TASK, Topic.MODELS)
COMMITS = topic_name(TASK, Topic.COMMITS)
CONTROL = topic_name(TASK, Topic.CONTROL)

HASTE = 10_000.0
"""Seconds of the log's clock to one of the loop's: the day that sweeping waits for passes in nine seconds."""


@dataclass(slots=True, kw_only=True)
class Weather:
    """How likely each misfortune is; all are off once it is calm.

    crash, freeze: of a process at one of its reads or writes. refused, unacknowledged, late, slow, stuck: of one send.
    spoiled: of an update that nobody will be able to decode. aside: of a partition that one fetch leaves for later.
    """

    crash: float
    freeze: float
    refused: float
    unacknowledged: float
    late: float
    slow: float
    stuck: float
    spoiled: float
    aside: float
    calm: bool = False

    @classmethod
    def drawn(cls, rng: Random) -> "Weather":
        """Some seeds are rough in one way, some in another, few in all."""

        def often(most: float) -> float:
            return rng.choice([0.0, 0.3, 1.0]) * most

        return cls(
            crash=often(0.01),
            freeze=often(0.004),
            refused=often(0.1),
            unacknowledged=often(0.2),
            late=often(0.1),
            slow=often(0.6),
            stuck=often(0.02),
            spoiled=often(0.04),
            aside=often(0.3),
        )

    def befalls(self, rng: Random) -> Fault | None:
        """What happens to one send."""
        if self.calm:
            return None
        draw, hold = rng.random(), None
        delay_s = rng.uniform(5, 40) if draw < self.stuck else rng.uniform(0, 0.8) if draw < self.slow else 0.0
        if delay_s:
            hold = asyncio.Event()
            asyncio.get_running_loop().call_later(delay_s, hold.set)
        draw = rng.random()
        if draw < self.refused:
            return Fault(outcome="refused", hold=hold)
        if draw < self.refused + self.unacknowledged:
            return Fault(outcome="unacknowledged", hold=hold)
        if draw < self.refused + self.unacknowledged + self.late:
            return Fault(outcome="late", hold=hold)
        return Fault(hold=hold) if hold else None


class Link(MemoryBus):
    """One process's connection; the process may die, freeze or be cut off at each of its reads and writes.

    Args:  on_kill: called once when the process dies; nothing that it still does reaches the log.
           made: every update that was ever handed to a producer, by CRC.
    """

    def __init__(self, log: MemoryLog, weather: Weather, rng: Random, made: dict[int, bytes]) -> None:
        super().__init__(log)
        self.weather, self.rng, self.made = weather, rng, made
        self.online = True
        self.killed = False
        self.on_kill: Callable[[], object] = lambda: None
        self._open = True

    def kill_within(self, turns: int) -> None:
        """The same after so many turns of the event loop, at whatever await the process then stands."""
        if turns and not self.killed:
            asyncio.get_running_loop().call_soon(self.kill_within, turns - 1)
        else:
            self.kill()

    def kill(self) -> None:
        """End the process as `kill -9` does: whatever it still tries comes to nothing."""
        if not self.killed:
            self.killed, self._open = True, False
            self.on_kill()

    async def gate(self) -> None:
        """A read or write begins or ends: the moments at which misfortune is told apart."""
        weather = self.weather
        if not weather.calm and not self.killed:
            draw = self.rng.random()
            if draw < weather.crash / 2:
                self.kill_within(self.rng.randrange(1, 30))
            elif draw < weather.crash:
                self.kill()
                await asyncio.Event().wait()
            elif draw < weather.crash + weather.freeze:
                await asyncio.sleep(self.rng.uniform(3, 60))
        self.check_reachable()

    def check_reachable(self) -> None:
        """Raise BusError where the log is out of this process's reach."""
        if self.killed:
            raise BusError("this process is dead")
        if not self.online:
            raise BusError("out of coverage")

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, partition: int = 0) -> Position:
        await self.gate()
        if topic == UPDATES and value is not None:
            self.made[frame_crc(value)] = value
        position = await super().send(topic, key=key, value=value, partition=partition)
        if topic == UPDATES and not self.weather.calm and self.rng.random() < self.weather.spoiled:
            self.log.partition(topic, partition).spoil(position.offset)
        await self.gate()
        return position

    async def partition_for(self, topic: str, key: bytes) -> int:
        await self.gate()
        return await super().partition_for(topic, key)

    async def start_offsets(self, topic: str) -> dict[int, int]:
        await self.gate()
        return await super().start_offsets(topic)

    async def end_offsets(self, topic: str) -> dict[int, int]:
        await self.gate()
        return await super().end_offsets(topic)

    async def existing(self, topics: Sequence[str]) -> set[str]:
        await self.gate()
        return await super().existing(topics)

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        await self.gate()
        return await super().describe(topics)

    def reader(self, topic: str, positions: Mapping[int, int], *, evenly: bool = False) -> MemoryReader:
        return LinkReader(self, topic, positions)


class LinkReader(MemoryReader):
    """A reader that is as far from the log as its process."""

    def __init__(self, link: Link, topic: str, positions: Mapping[int, int]) -> None:
        super().__init__(link.log, topic, positions)
        self._link = link

    async def fetch(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[BusRecord]:
        await self._link.gate()
        before, aside = dict(self._positions), self._left_aside()
        self._paused.update(aside)
        try:
            records = await super().fetch(max_records=max_records, timeout_s=timeout_s)
        finally:
            self._paused.difference_update(aside)
        try:
            self._link.check_reachable()
        except BusError:
            self._positions = before
            raise
        return records

    def _left_aside(self) -> list[int]:
        """Partitions whose records come later than those of others: the log orders only what lies in one."""
        weather, rng = self._link.weather, self._link.rng
        if weather.calm or not weather.aside or len(self._positions) == 1:
            return []
        self._turn = rng.randrange(len(self._positions))
        return [p for p in self._positions if p not in self._paused and rng.random() < weather.aside]
