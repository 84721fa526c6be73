"""What Headwater asks of a log, whoever keeps it: durable sends, reads by offset, and nothing else.

`KafkaBus` and `MemoryBus` implement this protocol and pass one contract suite. There are no consumer groups and no
transactions: who reads what is decided by the caller, and exactly-once is the commit chain's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from broker_topics.errors import BusError
from broker_topics.topics import TopicSpec


class BusRecord(NamedTuple):
    """One record as it lies in the log; `value` is None for a tombstone.

    `readable` is False where what lies at this offset cannot be decoded; key and value are then None.
    `timestamp_ms` is the log's own clock (LogAppendTime), for age and retention only, never for decisions.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Position:
    """Where a sent record lies."""

    partition: int
    offset: int


class InDoubtError(BusError):
    """The record may or may not be in the log, now or later; only the caller knows how to find out."""


class OffsetGoneError(BusError):
    """The asked offset lies before the log's start (retention took it) or beyond its end (the log was cut)."""


class LogReader(Protocol):
    """Reads chosen partitions of one topic, each from its own position; used by one task at a time."""

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`; takes effect with the next fetch, whatever was prefetched is dropped."""

    def position(self, partition: int) -> int:
        """The offset after the last record that `fetch` returned, or the last seek; after an empty `fetch` also past
        markers of transactions at the log's end.
        """

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing from these partitions until `resume`; positions stay."""

    def resume(self, partitions: Sequence[int]) -> None:
        """Fetch from these partitions again."""

    async def fetch(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[BusRecord]:
        """The next records, in order within each partition; an empty list when none came within `timeout_s`.

        Offsets of one partition ascend but may skip (compaction, control records): the caller judges gaps.

        Raises:  OffsetGoneError: a position lies outside the log.
                 BusError: the broker cannot be reached; positions are unchanged and the call may be repeated.
        """

    async def close(self) -> None:
        """Give up the connection within a deadline, also with the broker down."""


class Bus(Protocol):
    """A connection to the log; one a process (or device), shared by its tasks."""

    async def start(self) -> None:
        """Connect; raises ConfigError with the true cause (password, certificate, name), BusError when unreachable."""

    async def close(self) -> None:
        """Flush nothing, give up within a deadline, also with the broker down."""

    async def __aenter__(self) -> Self:
        """Start, and close at the end of the block."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, partition: int = 0) -> Position:
        """Append one record durably (acknowledged by all in-sync replicas) and say where it lies.

        Concurrent sends to one partition are appended in the order of the calls. Back-pressure: waits while too much
        is under way.

        Raises:  ConfigError: the record is larger than the topic takes, the topic does not exist, or writing is denied.
                 BusError: certainly not written.
                 InDoubtError: may be written, now or later.
        """

    async def partition_for(self, topic: str, key: bytes) -> int:
        """The partition that records with this key belong to (murmur2, as Kafka's own clients)."""

    def reader(self, topic: str, positions: Mapping[int, int], *, evenly: bool = False) -> LogReader:
        """Read `partition → offset` of one topic; connects at the first fetch.

        Args:    evenly: ask for a little of every partition at once, not for much of a few: who wants only the next
                 records of each has them sooner.
        """

    async def start_offsets(self, topic: str) -> dict[int, int]:
        """The oldest offset that is still there, of every partition."""

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """The offset that the next record will get, of every partition."""

    async def brokers(self) -> int:
        """How many brokers the cluster has at the moment."""

    async def existing(self, topics: Sequence[str]) -> set[str]:
        """Those of the topics that exist; needs no right to see their settings."""

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        """Partitions, replication and settings of those topics that exist."""

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create topics; one that exists already is left alone. Raises ConfigError where the broker refuses."""
