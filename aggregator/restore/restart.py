"""From the log to a living fold, and along with the chain until this process is to lead.

A restart and a warm standby are one thing: enter at the newest keyframe, apply what the records since say, and go on
doing so; then check the log and lead. Whoever leads at once just skips the middle. Nothing here writes to the log,
except what an operator accepted to be filled up.
"""

import asyncio
import math
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from aggregator.chain.cache import KeyframeCache
from aggregator.chain.keyframe import load_keyframe
from aggregator.fold.core import Fold
from aggregator.restore.chain_check import check_commits, newest_parts, parts_end
from aggregator.restore.inputs import InputLog, check_partitions, end_vector, start_vector
from aggregator.restore.log_check import changed_inputs, check_inputs
from aggregator.restore.recovery import Accept
from aggregator.restore.replayer import Replayer
from broker_topics.bus import Bus
from broker_topics.chain import ChainPosition
from broker_topics.commits_log import ChainLostError, CommitsReader, Official
from broker_topics.entry import check_task, entry
from broker_topics.errors import ConfigError, InputsLostError, InvariantError
from broker_topics.models_log import ModelsReader, PartMissingError

T = TypeVar("T")

_NOTE_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A fold at the chain's end, and the reader that stands there.

    replayed: records that were applied; steps: server steps since the newest keyframe. oldest_ms: when the log took in
    the oldest input since, infinite if there is none. published_ms: when it took in the newest version's record.
    parts_end: the offset in models behind every part that newcomers need, infinite where a newer keyframe cannot be
    read. repair: what an operator accepted to be without, in words, for the next record, which must be a keyframe.
    """

    fold: Fold
    commits: CommitsReader
    keyframes: tuple[Official, ...]
    replayed: int
    steps: int
    oldest_ms: float
    published_ms: int
    parts_end: float
    repair: str = ""


class Replica:
    """The fold of a task as the chain has it. `enter` once, `follow` as long as another leads, `lead` to take over.

    After an error it must be closed; the next one enters anew.
    """

    def __init__(
        self, bus: Bus, task: str, *, accept: Accept | None = None, cache: KeyframeCache | None = None
    ) -> None:
        self._cache = cache
        self._bus, self._task, self._accept = bus, task, accept or Accept()
        self._models = ModelsReader(bus, task)
        self._commits: CommitsReader | None = None
        self._replayer: Replayer | None = None
        self._keyframes: list[Official] = []
        self._due: deque[Official] = deque()
        self._steps = self._published_ms = 0
        self._parts_end: float = 0
        self._cut: list[str] = []
        self._read_to = self.height = -1
        self._followed = False
        self.replayed = 0

    @property
    def fold(self) -> Fold:
        """Where it stands."""
        return self._entered[1].fold

    @property
    def _entered(self) -> tuple[CommitsReader, Replayer]:
        if self._commits is None or self._replayer is None:
            raise InvariantError("a replica enters first")
        return self._commits, self._replayer

    async def enter(self) -> None:
        """Come from the newest readable keyframe to the newest official record; its hashes are owed until what follows.

        Raises:  ConfigError: unknown task.  InputsLostError: records of the chain are gone, or inputs that it consumed
                 are or have become others.  DivergedError: replay reaches other bytes than the chain names.
        """
        await check_task(self._bus, self._task)
        records, index = await self._keyframe()
        self._keyframes = [official for official in records if official.record.body.keyframe][-2:]
        newest = records[index] is self._keyframes[-1]
        self._parts_end = parts_end(records[index : index + 1]) if newest else math.inf
        passed = records[: index + 1]
        self._published_ms = max(one.timestamp_ms for one in passed if one.record.body.steps or one is records[0])
        self.height, self._read_to = records[index].record.height, records[-1].record.height
        self._due = deque(records[index + 1 :])
        await self._apply_due()

    async def follow(self, timeout_s: float) -> int:
        """Apply what has become official, or wait for it; how many records that were.

        Raises:  BusError: the broker is away, go on later. Of its kinds ChainLostError, OffsetGoneError,
                 SpoiledCacheError, and PartMissingError, InputsLostError: close, and enter anew.
        """
        commits, _ = self._entered
        if not self._due:
            self._take(await commits.poll(timeout_s))
        count = await self._apply_due()
        await self._prove()
        return count

    async def lead(self) -> Restored:
        """Come to the log's end, and see whether the inputs are still those that were consumed; may be repeated.

        Raises:  as `follow`, and InputsLostError where inputs that wait to be consumed are gone or have become others,
                 and nobody accepted that.
        """
        commits, replayer = self._entered
        self._take(await commits.catch_up())
        await self._apply_due()
        await self._see_whether_all_read_the_same(commits.position)
        starts, ends = await start_vector(self._bus, self._task), await end_vector(self._bus, self._task)
        changed = await self._check(changed_inputs(self._bus, replayer.fold, starts=starts, ends=ends))
        missing = self._cut + [f"input {offset} of partition {partition}" for partition, offset in replayer.lost]
        missing += await check_inputs(
            self._bus, replayer.fold, starts=starts, ends=ends, changed=changed, accept=self._accept
        )
        self._commits = None  # the writer goes on with it
        return Restored(
            fold=replayer.fold,
            commits=commits,
            keyframes=tuple(self._keyframes),
            replayed=self.replayed,
            steps=self._steps,
            oldest_ms=replayer.oldest_ms,
            published_ms=self._published_ms,
            parts_end=self._parts_end,
            repair="; ".join(missing)[:_NOTE_CHARACTERS],
        )

    def _take(self, found: Sequence[Official]) -> None:
        self._due += found
        self._followed = self._followed or bool(found)

    async def _see_whether_all_read_the_same(self, ours: ChainPosition) -> None:
        """Whoever follows a log that was cut may have followed what a writer soon saw to be no part of the chain.

        Raises:  ChainLostError: who enters now does not come to where this replica stands.
        """
        if not self._followed:
            return
        anew = CommitsReader(self._bus, self._task, await entry(self._bus, self._task, self._models))
        try:
            if all(official.record.hash != ours.hash for official in await anew.to_the_end()):
                raise ChainLostError(f"the chain no longer leads to record {ours.height}, which was followed")
        finally:
            await anew.close()

    async def close(self) -> None:
        """Give up the connections, but for what `lead` handed on."""
        if self._replayer is not None:
            await self._replayer.close()
        if self._commits is not None:
            await self._commits.close()
        await self._models.close()

    async def _check(self, meanwhile: Coroutine[Any, Any, T]) -> T:
        """Compare the model's hashes, which takes a while, and read something meanwhile; raises DivergedError first."""
        reading = asyncio.ensure_future(meanwhile)
        try:
            await self._prove()
            return await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _prove(self) -> None:
        """Compare the hashes that were taken on trust, those of a cached keyframe too."""
        with self._trusting_cache():
            await self._entered[1].check()
        if self._cache is not None:
            self._cache.on_trust = None

    @contextmanager
    def _trusting_cache(self) -> Iterator[None]:
        """Where the model is not what it must be, a cached keyframe that was not compared with any hash is to blame."""
        try:
            yield
        except InvariantError as error:
            if self._cache is not None and (spoiled := self._cache.spoiled(str(error))):
                raise spoiled from error
            raise

    async def _apply_due(self) -> int:
        """Apply what was read, each record once, whatever goes wrong in between."""
        count, replayer = len(self._due), self._entered[1]
        while self._due:
            official = self._due[0]
            if official.record.height != self.height + 1:
                raise ChainLostError("records of the chain were read and lost again")
            with self._trusting_cache():
                await replayer.apply(official.record, self._due[1].record if len(self._due) > 1 else None)
            self._passed(self._due.popleft())
            if official.record.body.keyframe and self._cache is not None:
                await self._prove()
                body, vectors = official.record.body, replayer.fold.state.vectors()
                await asyncio.to_thread(self._cache.store, body, vectors)
        return count

    def _passed(self, official: Official) -> None:
        body = official.record.body
        self.height = official.record.height
        self.replayed += 1
        self._steps += len(body.steps)
        self._published_ms = max(self._published_ms, official.timestamp_ms if body.steps else 0)
        self._parts_end = max(self._parts_end, parts_end([official]))
        if body.keyframe and self.height > self._read_to:
            # Whoever comes next enters here; one that was there at our entry was passed because it cannot be read.
            self._keyframes = [*self._keyframes[-1:], official]
            self._steps = 0
            self._parts_end = parts_end([official])
            self._entered[1].keyframe_passed()

    async def _keyframe(self) -> tuple[list[Official], int]:
        """Stand at a readable keyframe: the chain's records from there on or before, and where in them it is."""
        tail = await self._models.tail()
        parts = newest_parts(tail)
        first_known = await entry(self._bus, self._task, self._models, head=tail.head)
        for first in (first_known, None):
            self._commits = CommitsReader(self._bus, self._task, first)
            records = await self._commits.to_the_end()
            self._cut = check_commits(self._task, self._commits, records, parts, self._accept)
            if not records and first is None:
                raise ConfigError(
                    f"task {self._task!r} has no first record; make it with: headwater task create --task {self._task}"
                )
            starts, ends = await start_vector(self._bus, self._task), await end_vector(self._bus, self._task)
            for index in range(len(records) - 1, -1, -1):
                if records[index].record.body.keyframe:
                    with suppress(PartMissingError):
                        self._replayer = await self._at(records[index:], starts, ends)
                        if self._accept.divergence:
                            await self._prove()
                        return records, index
            await self._commits.close()
        raise InputsLostError(
            "no keyframe can be read: the models topic lost parts that the chain names, or was made anew. Bring it "
            "back from a replica or a copy, or make a new task under another name"
        )

    async def _at(self, records: Sequence[Official], starts: Sequence[int], ends: Sequence[int]) -> Replayer:
        """A fold that stands at the first of these records, a keyframe; inputs of the second are read meanwhile."""
        record, wanted = records[0].record, records[-1].record.body.vector
        check_partitions(record.body.vector, ends)
        inputs = InputLog(self._bus, self._task, first=record.body.vector, starts=starts, ends=ends, wanted=wanted)
        if len(records) > 1 and not records[1].record.body.replaces_model:
            inputs.begin(records[1].record.body)
        try:
            state = await load_keyframe(self._models, record, self._cache)
            fold = await asyncio.to_thread(Fold, task=self._task, state=state, hashes=record.body.hashes)
        except BaseException:
            await inputs.close()
            raise
        cached = self._cache is not None and self._cache.on_trust is not None
        return Replayer(inputs, self._models, fold, forgiving=self._accept.divergence, on_trust=cached)
