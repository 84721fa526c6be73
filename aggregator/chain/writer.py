"""Appends to the commit chain: parts, record, read back; only then is a version official."""

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from broker_topics.bus import Bus
from broker_topics.commits_log import ChainLostError, CommitsReader, LogCutError, Official, lies
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError, InputsLostError, InvariantError, LostRaceError
from broker_topics.models_log import ModelsWriter
from broker_topics.parts import DELTA, Part, cut
from broker_topics.record import GENESIS_PARENT, Body, PartRef, Record, build
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger

Parts = Callable[[], Iterable[Part]]
"""Gives the parts of something, cut as they are taken, as often as it is called."""

_READ_BACK_S = 5.0
_POLL_S = 1.0

_KEPT = 200
"""Official records that are remembered, to be put back if a power cut takes them from the log."""

_BACK_OFF_S = (0.1, 0.3, 1.0, 3.0)

log = get_logger("aggregator")


class ChainWriter:
    """One process's hand on the chain, under a random name of its own.

    One task may publish parts while another appends; nothing else is to be called by two at a time.
    """

    def __init__(self, bus: Bus, task: str, commits: CommitsReader, *, identity: bytes | None = None) -> None:
        self._bus, self._task, self._commits = bus, task, commits
        last = commits.last_official
        self._kept: deque[Official] = deque([last] if last else [], maxlen=_KEPT)
        self._topic = topic_name(task, Topic.COMMITS)
        self.identity = identity or secrets.token_bytes(16)
        self.wrote = asyncio.Event()
        self.models = ModelsWriter(bus, task, self.identity)

    @property
    def last(self) -> Record:
        """The newest official record; there is one wherever a fold runs."""
        if self._commits.chain.last is None:
            raise InvariantError("nothing can be appended before the chain was read")
        return self._commits.chain.last

    @property
    def next_height(self) -> int:
        """The height that the next record will have if it wins."""
        last = self._commits.chain.last
        return last.height + 1 if last else 0

    @property
    def lost_races(self) -> int:
        """Records seen in the log, whosoever they were, whose place in the chain another one had taken."""
        return self._commits.lost_races

    async def publish(
        self, height: int, delta: bytes | None, keyframe: Parts | None, failed: Callable[[], None] | None = None
    ) -> tuple[PartRef, ...]:
        """Put a step's delta and a keyframe, where there are any, where the record can point to them.

        A broker that is away is waited for; parts that were sent twice share a key and cost only bytes. `failed` is
        told of every try that did not work.
        """
        refs: tuple[PartRef, ...] = ()
        if delta is not None:
            refs = await self._patiently(height, partial(cut, DELTA, delta), failed)
        if keyframe is not None:
            refs += await self._patiently(height, keyframe, failed)
        return refs

    async def _patiently(self, height: int, parts: Parts, failed: Callable[[], None] | None) -> tuple[PartRef, ...]:
        for attempt in itertools.count():
            try:
                return await self.models.publish(height, parts())
            except BusError as error:
                if failed is not None:
                    failed()
                log.warning("broker_unreachable", reason=str(error))
                await _back_off(attempt)
        raise AssertionError("counting never ends")

    async def append(self, body: Body) -> Official:
        """Append a record and read it back.

        Returns: the record, official.
        Raises:  LostRaceError: another record took its place; this process must start again.
        """
        await self._stand_at_the_end()
        last = self._commits.chain.last
        parent = last.hash if last else GENESIS_PARENT
        record = build(height=self.next_height, parent=parent, writer=self.identity, body=body)
        self._commits.chain.sent = record
        for attempt in itertools.count():
            try:
                if attempt and self._kept and not await self._lies(self._kept[-1]):
                    await self._put_back()  # a parent that was cut off comes before its child
                with passing(Io.APPEND):
                    place = await self._bus.send(self._topic, key=None, value=record.data)
                if place.offset <= self._commits.chain.last_offset:
                    continue  # it lies where its parent was: the log was cut
            except BusError as error:
                log.warning("append_in_doubt", height=record.height, reason=str(error))
            with passing(Io.READ_BACK):
                official = await self._read_back(record)
            if official is not None:
                self._kept.append(official)
                self.wrote.set()
                return official
            await _back_off(attempt)
        raise AssertionError("counting never ends")

    async def _read_back(self, record: Record) -> Official | None:
        """The record once it is official; None if it is not seen in time: then the same bytes are sent again."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + _READ_BACK_S
        while clock() < give_up:
            try:
                for official in await self._poll(partial(self._commits.confirmed, _POLL_S)):
                    if official.record.hash == record.hash:
                        return official
                    raise _lost_race(official)
            except LogCutError:
                return None
            except BusError:
                await asyncio.sleep(_BACK_OFF_S[0])
        return None

    async def watch(self) -> None:
        """Look for records of others while nothing is under way; raises LostRaceError when there are any."""
        if self._is_short:
            await self._put_back()
        with passing(Io.WATCH):
            found = await self._poll(partial(self._commits.poll, 0.0))
        for official in found:
            raise _lost_race(official)

    async def _poll(self, look: Callable[[], Awaitable[list[Official]]]) -> list[Official]:
        """New official records; where the log was cut short under us, our own missing ones are put back first."""
        try:
            return await look()
        except ChainLostError as error:
            if isinstance(error, LogCutError) or not all([await self._lies(place) for place in self._kept]):
                await self._put_back()
            raise

    async def _put_back(self) -> None:
        """Append official records that a power cut took from the log again, byte for byte.

        Raises:  InputsLostError: more is gone than this process has seen.  LostRaceError: another record is there.
        """
        there: list[Official] = []
        for place in self._kept:
            if not await self._lies(place):
                break
            there.append(place)
        if not there:
            raise InputsLostError("the commits topic lost more records than this aggregator has seen; restore its log")
        missing = list(self._kept)[len(there) :]
        # Not where another's record comes first: a copy may land where the lost one was, and whoever looked there
        # would take it for official.
        self._commits.rewind(there[-1])
        again = await self._found_again(missing)
        for place in missing[len(again) :]:
            with passing(Io.PUT_BACK):
                await self._bus.send(self._topic, key=None, value=place.record.data)
        log.warning("records_put_back", count=len(missing) - len(again))
        # Until they are read where they lie now, they stay remembered: the log may be cut once more.
        again += await self._found_again(missing[len(again) :])
        self._kept = deque([*there, *again, *missing[len(again) :]], maxlen=_KEPT)

    async def _found_again(self, missing: Sequence[Official]) -> list[Official]:
        """What is official now of the records that were missing; raises LostRaceError where it is another's."""
        found = await self._commits.catch_up()
        if len(found) > len(missing) or any(
            f.record.hash != m.record.hash for f, m in zip(found, missing, strict=False)
        ):
            raise _lost_race(found[-1])
        return found

    @property
    def _is_short(self) -> bool:
        """Whether putting records back was cut short: more were official than were read again."""
        last = self._commits.chain.last
        return bool(self._kept) and last is not None and self._kept[-1].record.height > last.height

    async def _stand_at_the_end(self) -> None:
        """Be sure that the next record follows the newest official one, also where putting it back was cut short."""
        attempts = itertools.count()
        while self._is_short:
            try:
                await self._put_back()
            except BusError as error:
                log.warning("broker_unreachable", reason=str(error))
                await _back_off(next(attempts))

    async def _lies(self, place: Official) -> bool:
        return await lies(self._bus, self._task, place)


def _lost_race(official: Official) -> LostRaceError:
    height = official.record.height
    return LostRaceError(
        f"another aggregator of this task wrote record {height} of the chain first; nothing is lost. "
        "Start this one again only where the other has ended"
    )


async def _back_off(attempt: int) -> None:
    await asyncio.sleep(_BACK_OFF_S[min(attempt, len(_BACK_OFF_S) - 1)])
