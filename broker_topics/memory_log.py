"""The log that memory buses share: topics, partitions, compaction, retention, and everything that can go wrong."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from broker_topics.bus import BusRecord
from broker_topics.errors import BusError, ConfigError
from broker_topics.topics import TopicSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls one send.

    `hold`: the record waits for this event before anything else happens (and later ones of its partition behind it).
    `outcome`: `written`; `refused` (BusError, not written); `unacknowledged` (InDoubtError, written);
    `late` (InDoubtError, written only when `MemoryLog.deliver_late` is called: a broker that was frozen).
    """

    outcome: Literal["written", "refused", "unacknowledged", "late"] = "written"
    hold: asyncio.Event | None = None


class MemoryPartition:
    """One partition: records with ascending offsets, of which some may be gone."""

    def __init__(self, topic: str, partition: int, on_append: Callable[[], None], now_s: Callable[[], float]) -> None:
        self.topic = topic
        self.partition = partition
        self.start = 0
        self.end = 0
        self.records: list[BusRecord] = []
        self._on_append = on_append
        self._now_s = now_s

    def append(self, key: bytes | None, value: bytes | None) -> int:
        """Append one record and return its offset."""
        offset = self.end
        self.records.append(
            BusRecord(
                topic=self.topic,
                partition=self.partition,
                offset=offset,
                key=key,
                value=value,
                timestamp_ms=int(self._now_s() * 1000),
            )
        )
        self.end = offset + 1
        self._on_append()
        return offset

    def read(self, offset: int, count: int) -> list[BusRecord]:
        """At most `count` records from `offset` on."""
        first = self._index(offset)
        return self.records[first : first + count]

    def leave_gap(self, count: int) -> None:
        """Use up offsets without a record, as a transaction's markers do."""
        self.end += count
        self._on_append()

    def delete_before(self, offset: int) -> None:
        """Retention: the log begins at `offset` now."""
        if not self.start <= offset <= self.end:
            raise ConfigError(f"{self.topic}[{self.partition}]: {offset} is not between {self.start} and {self.end}")
        del self.records[: self._index(offset)]
        self.start = offset

    def cut(self, end: int) -> None:
        """A power cut of all replicas: everything from `end` on is lost, and its offsets will be used again."""
        if not self.start <= end <= self.end:
            raise ConfigError(f"{self.topic}[{self.partition}]: {end} is not between {self.start} and {self.end}")
        del self.records[self._index(end) :]
        self.end = end
        self._on_append()

    def spoil(self, offset: int) -> None:
        """Make the record at `offset` one that nobody can decode."""
        at = self._index(offset)
        self.records[at] = self.records[at]._replace(key=None, value=None, readable=False)

    def compact(self, *, before: int | None = None, drop_tombstones: bool = True) -> None:
        """Of each key keep the newest record, as Kafka's cleaner does; offsets stay as they are.

        Args:  before: compact only what lies below this offset; default: everything.
               drop_tombstones: also forget keys whose newest record is a tombstone.
        """
        stop = self._index(self.end if before is None else before)
        newest = {record.key: record.offset for record in self.records if record.key is not None}
        kept = [
            record
            for record in self.records[:stop]
            if newest.get(record.key or b"", record.offset) == record.offset
            and not (drop_tombstones and record.value is None and record.readable)
        ]
        self.records[:stop] = kept

    def _index(self, offset: int) -> int:
        return bisect_left(self.records, offset, key=lambda record: record.offset)


class MemoryLog:
    """What a broker would hold; buses attach to it, tests and simulations reach into it.

    Args:  now_s: the log's clock for time stamps, seconds since 1970; a simulation hands in its own.
    """

    def __init__(self, *, now_s: Callable[[], float] = time.time) -> None:
        self.topics: dict[str, list[MemoryPartition]] = {}
        self.on_send: Callable[[str, int, bytes | None, bytes | None], Fault | None] | None = None
        self.late: list[tuple[MemoryPartition, bytes | None, bytes | None]] = []
        self._specs: dict[str, TopicSpec] = {}
        self._grown: dict[str, asyncio.Event] = {}
        self._now_s = now_s
        self._down = False

    @property
    def down(self) -> bool:
        """While True every operation on the log raises BusError; what it holds stays."""
        return self._down

    @down.setter
    def down(self, value: bool) -> None:
        self._down = value
        for topic in list(self._grown):
            self._wake(topic)

    def check_up(self) -> None:
        """Raises BusError while the log is down."""
        if self._down:
            raise BusError("the memory log is down; set `down = False` to bring it back")

    def create(self, spec: TopicSpec) -> None:
        """Create a topic; one that exists already is left alone."""
        if spec.partitions < 1:
            raise ConfigError(f"{spec.name}: a topic needs at least one partition")
        if spec.name in self.topics:
            return

        def wake() -> None:
            self._wake(spec.name)

        self.topics[spec.name] = [MemoryPartition(spec.name, p, wake, self._now_s) for p in range(spec.partitions)]
        self._specs[spec.name] = spec

    def spec(self, topic: str) -> TopicSpec:
        """How the topic was created; raises ConfigError for an unknown one."""
        self.partitions(topic)
        return self._specs[topic]

    def partitions(self, topic: str) -> list[MemoryPartition]:
        """The topic's partitions in order; raises ConfigError for an unknown topic."""
        if topic not in self.topics:
            raise ConfigError(f"topic {topic} does not exist; create the task's topics with `headwater topics apply`")
        return self.topics[topic]

    def partition(self, topic: str, partition: int = 0) -> MemoryPartition:
        """One partition; raises ConfigError for an unknown one."""
        partitions = self.partitions(topic)
        if not 0 <= partition < len(partitions):
            raise ConfigError(f"topic {topic} has no partition {partition}, only 0 to {len(partitions) - 1}")
        return partitions[partition]

    def deliver_late(self) -> int:
        """Append every record that a `late` fault held back, in the order of the sends; returns how many."""
        held, self.late = self.late, []
        for where, key, value in held:
            where.append(key, value)
        return len(held)

    def grown(self, topic: str) -> asyncio.Event:
        """Set once when the topic gets a record or the log goes down or comes back."""
        return self._grown.setdefault(topic, asyncio.Event())

    def _wake(self, topic: str) -> None:
        if event := self._grown.pop(topic, None):
            event.set()
