"""The log of commits, read by the reader's rule, on a log that may be cut under its readers."""

from collections import deque
from dataclasses import dataclass

from broker_topics.bus import Bus, BusRecord, LogReader, OffsetGoneError
from broker_topics.chain import ChainPosition, ChainReader
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError, WireError
from broker_topics.record import Record, parse
from broker_topics.topics import Topic, topic_name

_FETCH_S = 10.0

_TRAIL = 4
"""The newest official records, all of which must still lie where they were read: on a log that was cut and has grown
again, a late copy of one may lie in its very place, behind another record in its parent's."""


class ChainLostError(BusError):
    """The chain cannot be followed from where the reader stands; enter again."""


class LogCutError(ChainLostError):
    """Official records are gone from the end of the log, as after a power cut of all replicas."""


@dataclass(frozen=True, slots=True)
class Official:
    """An official record, where it lies and when the log took it in (the log's clock, milliseconds)."""

    record: Record
    offset: int
    timestamp_ms: int


class CommitsReader:
    """The official records, in order, from wherever it was told to begin."""

    def __init__(self, bus: Bus, task: str, first: Official | None = None) -> None:
        self._bus, self._task, self._topic = bus, task, topic_name(task, Topic.COMMITS)
        self.chain = ChainReader(first.record, first.offset) if first else ChainReader()
        self._first = first
        self._trail = deque([first] if first else [], maxlen=_TRAIL)
        self.lost_races = 0
        """Records seen whose place in the chain another one had taken."""
        self._adrift_at: bytes | None = None
        self.unreadable_at = -1
        """The last offset whose record could not be read, -1 if there was none."""
        self._doubtful = False
        self._judged = 0
        """Up to here it was seen that strange records are noise."""
        self._seen = 0
        """Up to here records were looked at, though some are read again."""
        self._reader: LogReader = bus.reader(self._topic, {0: self.chain.last_offset + 1})

    @property
    def position(self) -> ChainPosition:
        """The newest official record seen; raises ChainLostError before the first."""
        last = self.chain.last
        if last is None:
            raise ChainLostError("no record of the chain was read yet")
        return ChainPosition(self.chain.last_offset, last.height, last.hash)

    @property
    def last_official(self) -> Official | None:
        """The newest official record and where it lies, if one was read."""
        return self._trail[-1] if self._trail else None

    @property
    def offset(self) -> int:
        """The log offset that will be read next; records of losers count too."""
        return self._reader.position(0)

    async def poll(self, timeout_s: float) -> list[Official]:
        """Newly official records; empty when none came within `timeout_s`.

        Before anything is read past a record that should not be there, one of a height far ahead or with another
        parent, it is seen whether the last official record still lies where it did. After a power cut another may lie
        there: what then names the vanished one as its parent is a fork that nobody else follows.

        Raises:  LogCutError: the log no longer holds the last official record where it was read.
                 ChainLostError: records are missing, also after reading again from the last official one. Said once:
                 a strange record that stays is noise, and whoever entered again goes on past it.
        """
        try:
            official = await self._read(timeout_s)
        except OffsetGoneError:
            official, self._doubtful = [], True
        return await self._without_doubt(official)

    async def confirmed(self, timeout_s: float) -> list[Official]:
        """As `poll`, but sure that what is new is official at every reader, also on a log that was cut under this one.

        The last official records are fetched once more together with what follows them: in their place may lie one
        that this reader never saw, and then nothing that names the vanished one as its parent is valid.

        Raises:  as `poll`; after a LogCutError it stands at the record that vanished.
        """
        anchor = self.last_official
        if anchor is None:
            return await self.poll(timeout_s)
        try:
            official = await self._read(timeout_s, anchored=True)
        except OffsetGoneError:
            official, self._doubtful = [], True
        official = await self._without_doubt(official)
        if not official:
            trail = [*self._trail]
            official = await self.poll(timeout_s)
            for place in trail if official else ():
                if not await lies(self._bus, self._task, place):
                    self.rewind(anchor)
                    raise _cut(place.record)
        return official

    async def _without_doubt(self, official: list[Official]) -> list[Official]:
        if self._doubtful:
            official += await self._read_again()
            self._check_adrift(official)
        return official

    def _check_adrift(self, official: list[Official]) -> None:
        if self.chain.missed and not official and self._adrift_at != self.position.hash:
            self._adrift_at = self.position.hash
            raise ChainLostError("the chain does not go on from the last record that was read")

    async def _read_again(self) -> list[Official]:
        """What follows the last official record, which is fetched along; raises LogCutError where it lies no more."""
        self._judged = max(self._judged, self._reader.position(0))
        self._doubtful = self.chain.missed = False
        try:
            await self._end()  # a fetch right at the end would only wait
            return await self._read(_FETCH_S, anchored=True)
        except OffsetGoneError as error:
            self._doubtful = True
            raise LogCutError("the chain's log was cut short") from error
        except BusError:
            self._doubtful = True
            raise

    def rewind(self, to: Official) -> None:
        """Read on after an earlier official record."""
        self.chain, self._doubtful = ChainReader(to.record, to.offset), False
        self._trail = deque([*(place for place in self._trail if place.offset < to.offset), to], maxlen=_TRAIL)
        self._judged = self._seen = 0
        self._reader.seek(0, to.offset + 1)

    async def _read(self, timeout_s: float, *, anchored: bool = False) -> list[Official]:
        """Read on; or, anchored, from the last official records, which must still lie where they were read."""
        if anchored:
            self._reader.seek(0, self._trail[0].offset if self._trail else 0)
        batch = await self._reader.fetch(max_records=200, timeout_s=timeout_s)
        if anchored:
            batch = await self._behind(batch)
        official = []
        for record in batch:
            if not record.readable:
                self.unreadable_at = record.offset
            data = record.value or b""
            link = self.chain.feed(record.offset, data)
            if self.chain.missed and record.offset >= self._judged:
                self._doubtful = True
                break
            if link is not None:
                official.append(Official(link, record.offset, record.timestamp_ms))
                self._trail.append(official[-1])
            elif record.offset >= self._seen:
                self.lost_races += self.chain.lost_race(data)
            self._seen = max(self._seen, record.offset + 1)
        return official

    async def _behind(self, batch: list[BusRecord]) -> list[BusRecord]:
        """What was fetched behind the trail, all of which must be there; reads on where the fetch ended within it."""
        there, more = dict[int, bytes | None](), batch
        while True:
            if not more:
                raise BusError("the commits topic stopped answering; check the broker")
            there.update((record.offset, record.value) for record in more)
            if self._reader.position(0) > self.chain.last_offset:
                break
            await self._end()  # a fetch right at the end would only wait
            more = await self._reader.fetch(max_records=200, timeout_s=_FETCH_S)
        for place in self._trail:
            if there.get(place.offset) != place.record.data:
                raise _cut(place.record)
        return [record for record in more if record.offset > self.chain.last_offset]

    async def to_the_end(self) -> list[Official]:
        """Every official record from the first one (included) up to the log's end as it is now.

        Where others go on at heights to which the first one does not lead, it lies on a fork that a power cut left
        behind; the chain is then read from the log's beginning.
        """
        official = ([self._first] if self._first else []) + await self.catch_up()
        if self.chain.missed and self._first is not None:
            whole = CommitsReader(self._bus, self._task)
            try:
                official = await whole.catch_up()
            finally:
                await whole.close()
            self.chain, self._first, self.unreadable_at = whole.chain, None, whole.unreadable_at
            self._trail = whole._trail
            self._reader.seek(0, whole.offset)
        self.chain.missed = False
        return official

    async def catch_up(self) -> list[Official]:
        """Every official record after the last one that was read, up to the log's end as it is now.

        Raises:  LogCutError: the log no longer holds the last official record where it was read.
        """
        stop = await self._end()
        official: list[Official] = []
        while self._reader.position(0) < stop:
            before = self._reader.position(0)
            with passing(Io.READ_COMMITS):
                official += await self._read(_FETCH_S)
            if self._doubtful:
                official += await self._read_again()
            elif self._reader.position(0) == before:
                raise BusError("the commits topic stopped answering; check the broker")
        return official

    async def _end(self) -> int:
        """The log's end as it is now; raises LogCutError where the last official record lies beyond it."""
        end = (await self._bus.end_offsets(self._topic))[0]
        if end <= self.chain.last_offset:
            raise LogCutError("the chain's log was cut short")
        return end

    async def close(self) -> None:
        """Give up the connection."""
        await self._reader.close()


async def record_at(bus: Bus, task: str, offset: int) -> Official | None:
    """Whatever chain record lies at one offset of the commits topic, official or not; None if none can be read."""
    topic = topic_name(task, Topic.COMMITS)
    if not (await bus.start_offsets(topic))[0] <= offset < (await bus.end_offsets(topic))[0]:
        return None
    reader = bus.reader(topic, {0: offset})
    try:
        for found in await reader.fetch(max_records=1, timeout_s=_FETCH_S):
            if found.offset == offset and found.value:
                return Official(parse(found.value), offset, found.timestamp_ms)
    except (WireError, OffsetGoneError):
        return None
    finally:
        await reader.close()
    return None


async def lies(bus: Bus, task: str, place: Official) -> bool:
    """Whether an official record still lies where it was read."""
    found = await record_at(bus, task, place.offset)
    return found is not None and found.record.hash == place.record.hash


def _cut(vanished: Record) -> LogCutError:
    return LogCutError(f"record {vanished.height} of the chain is no longer where it was read")
