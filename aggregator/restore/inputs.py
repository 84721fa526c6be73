"""The inputs of a task as one numbered set of partitions: updates first, control last."""

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from broker_topics.bus import Bus, BusRecord, LogReader
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError, ConfigError
from broker_topics.record import Body, RunKind
from broker_topics.topics import Topic, topic_name

Place = tuple[int, int]
"""Partition and offset of an input."""

_Found = dict[Place, BusRecord]

_FETCH_S = 10.0
_AHEAD_BYTES = 16 * 1024 * 1024
"""What is read ahead, whatever the log holds; beyond, only the partition that comes next is asked."""


async def start_vector(bus: Bus, task: str) -> list[int]:
    """The oldest offset still there in every input partition."""
    return _joined(
        await bus.start_offsets(topic_name(task, Topic.UPDATES)),
        await bus.start_offsets(topic_name(task, Topic.CONTROL)),
    )


async def end_vector(bus: Bus, task: str) -> list[int]:
    """The offset that the next record of every input partition will get."""
    with passing(Io.READ_ENDS):
        updates = await bus.end_offsets(topic_name(task, Topic.UPDATES))
        return _joined(updates, await bus.end_offsets(topic_name(task, Topic.CONTROL)))


def updates_behind(vector: Sequence[int], ends: Sequence[int]) -> int:
    """Updates that lie in the log behind `vector`, as far as `ends` goes; control counts for nothing."""
    return sum(max(0, end - next_) for end, next_ in zip(ends[:-1], vector[:-1], strict=False))


def check_partitions(vector: Sequence[int], ends: Sequence[int]) -> None:
    """Raise ConfigError unless the topics have as many partitions as when the task was made."""
    if len(vector) != len(ends):
        raise ConfigError(
            f"the task was made with {len(vector) - 1} partitions of updates, the topic has {len(ends) - 1}: "
            "partitions cannot be taken away again, and devices write where nobody reads; make a new task"
        )


def _joined(updates: Mapping[int, int], control: Mapping[int, int]) -> list[int]:
    return [updates[partition] for partition in sorted(updates)] + [control[0]]


class InputLog:
    """Reads listed inputs again, in the order of the records that list them; a little is read ahead.

    evenly: as a reader of the bus does it. wanted: the vector up to which inputs will be asked for; what lies behind
    it is not read ahead, until a record lists it. None: everything will.
    """

    def __init__(
        self,
        bus: Bus,
        task: str,
        *,
        first: Sequence[int],
        starts: Sequence[int],
        ends: Sequence[int],
        evenly: bool = False,
        wanted: Sequence[int] | None = None,
    ) -> None:
        self._bus, self._task, self._evenly = bus, task, evenly
        self._wanted = list(ends if wanted is None else wanted)
        self._starts, self._ends = list(starts), list(ends)
        self._first = [max(start, offset) for start, offset in zip(starts, first, strict=True)]
        self._control = len(self._ends) - 1
        self._readers: dict[str, LogReader] = {}
        self._ahead: defaultdict[int, deque[BusRecord]] = defaultdict(deque)
        self._begun: tuple[Body, asyncio.Task[_Found]] | None = None
        self.oldest_ms = math.inf
        """When the log took in the oldest input that `fetch` gave, on its own clock."""

    def begin(self, body: Body) -> None:
        """Read what a record lists already now, for the `fetch` that comes next, while its caller does other things."""
        if self._begun is None:
            self._begun = (body, asyncio.ensure_future(self._fetch(body)))

    async def fetch(self, body: Body) -> dict[Place, bytes]:
        """The frames of all data inputs that a record lists, as far as the log still has them."""
        begun = self._begun
        if begun is not None and begun[0] is not body:
            await self._give_up()
        try:
            found = await (begun[1] if begun is not None and begun[0] is body else self._fetch(body))
        finally:
            self._begun = None
        self.oldest_ms = min([self.oldest_ms, *(record.timestamp_ms for record in found.values())])
        return {place: record.value or b"" for place, record in found.items()}

    async def _fetch(self, body: Body) -> _Found:
        if any(end < offset for end, offset in zip(self._ends, body.vector, strict=True)):
            self._starts = await start_vector(self._bus, self._task)
            self._ends = await end_vector(self._bus, self._task)
        self._wanted = [max(known, offset) for known, offset in zip(self._wanted, body.vector, strict=True)]
        found: _Found = {}
        for run in body.runs:
            if run.kind is RunKind.DATA:
                for offset in range(run.first, run.first + run.count):
                    record = await self.at(run.partition, offset)
                    if record is not None and record.readable:
                        found[run.partition, offset] = record
        return found

    async def _give_up(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun[1].cancel()
            await asyncio.gather(begun[1], return_exceptions=True)

    async def at(self, partition: int, offset: int) -> BusRecord | None:
        """The record at one place; None if retention has eaten it, it was cut off, or nothing lies there."""
        if not self._starts[partition] <= offset < self._ends[partition]:
            return None
        ahead = self._ahead[partition]
        if ahead and ahead[0].offset > offset:
            ahead.clear()
            self._seek(partition, offset)
        while ahead and ahead[0].offset < offset:
            ahead.popleft()
        if not ahead and self._position(partition) != offset:
            self._seek(partition, offset)
        while not ahead and self._position(partition) <= offset:
            await self._fill(partition)
        return ahead.popleft() if ahead and ahead[0].offset == offset else None

    def _seek(self, partition: int, offset: int) -> None:
        self._reader(partition).seek(self._number(partition), offset)

    def _position(self, partition: int) -> int:
        return self._reader(partition).position(self._number(partition))

    async def _fill(self, partition: int) -> None:
        reader = self._reader(partition)
        if partition != self._control:
            others = [p for p in range(self._control) if p != partition]
            full = self._bytes_ahead() >= _AHEAD_BYTES
            read = [self._position(p) >= min(self._wanted[p], self._ends[p]) for p in range(self._control)]
            resting = [p for p in others if read[p] or (full and self._ahead[p])]
            reader.resume([p for p in range(self._control) if p not in resting])
            reader.pause(resting)
        before = self._position(partition)
        with passing(Io.READ_INPUTS):
            records = await reader.fetch(timeout_s=_FETCH_S)
        if not records and self._position(partition) == before:
            raise BusError("the input topics stopped answering; check the broker")
        for record in records:
            self._ahead[self._control if partition == self._control else record.partition].append(record)

    def _bytes_ahead(self) -> int:
        return sum(len(record.value or b"") for ahead in self._ahead.values() for record in ahead)

    def _number(self, partition: int) -> int:
        return 0 if partition == self._control else partition

    def _reader(self, partition: int) -> LogReader:
        topic = Topic.CONTROL if partition == self._control else Topic.UPDATES
        if topic not in self._readers:
            wanted = [self._control] if topic is Topic.CONTROL else range(self._control)
            positions = {self._number(p): self._first[p] for p in wanted}
            self._readers[topic] = self._bus.reader(topic_name(self._task, topic), positions, evenly=self._evenly)
        return self._readers[topic]

    async def close(self) -> None:
        """Give up the connections."""
        await self._give_up()
        for reader in self._readers.values():
            await reader.close()
