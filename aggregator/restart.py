"""From the log to a living fold: newest keyframe, then the inputs since by their recorded decisions, hashes checked."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aggregator.core import Fold
from aggregator.inputs import InputLog, check_partitions, end_vector, start_vector
from aggregator.keyframe import load_keyframe
from aggregator.log_check import check_inputs
from aggregator.recovery import Accept, Place, replay_forgiving
from aggregator.state import FoldState
from broker_topics.bus import Bus
from broker_topics.entry import CommitsReader, Official, check_task, entry
from broker_topics.errors import ConfigError, InputsLostError
from broker_topics.models_log import ModelsReader, PartMissingError
from broker_topics.record import Record

_NOTE_CHARACTERS = 4_000

Progress = Callable[[int, int], None]
"""Called with versions replayed so far and in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A fold at the chain's end, and the reader that stands there.

    replayed: records since the keyframe; steps: server steps in them. oldest_ms: when the log took in the oldest input
    of theirs, infinite if there is none. published_ms: when it took in the newest version's record. repair: what an
    operator accepted to be without, in words; the next record must then be a keyframe that says so.
    """

    fold: Fold
    commits: CommitsReader
    keyframes: tuple[Official, ...]
    replayed: int
    steps: int
    oldest_ms: float
    published_ms: int
    repair: str = ""


async def restore(bus: Bus, task: str, *, accept: Accept | None = None, progress: Progress | None = None) -> Restored:
    """Bring the fold to the newest official record.

    Args:    accept: what the operator is willing to be without.
    Raises:  ConfigError: unknown task.  InputsLostError: inputs that the chain consumed, or that wait to be consumed,
             are gone or have become others.  DivergedError: replay reaches other bytes than the chain names.
    """
    accept = accept or Accept()
    await check_task(bus, task)
    models = ModelsReader(bus, task)
    try:
        commits, records, index, state = await _enter(bus, task, models)
        starts, ends = await start_vector(bus, task), await end_vector(bus, task)
        check_partitions(state.vector, ends)
        fold = await asyncio.to_thread(Fold, task=task, state=state)
        replayer = Replayer(bus, models, fold, starts, ends, forgiving=accept.divergence)
        rest = [official.record for official in records[index + 1 :]]
        await replayer.run(rest, progress)
    finally:
        await models.close()
    missing = [f"input {offset} of partition {partition}" for partition, offset in replayer.lost]
    missing += await check_inputs(bus, replayer.fold, starts=starts, ends=ends, accept=accept)
    keyframes = tuple(official for official in records if official.record.body.keyframe)
    return Restored(
        fold=replayer.fold,
        commits=commits,
        keyframes=keyframes[-2:],
        replayed=len(rest),
        steps=sum(len(record.body.steps) for record in rest),
        oldest_ms=replayer.oldest_ms,
        published_ms=max(known.timestamp_ms for known in records if known.record.body.steps or known is records[0]),
        repair="; ".join(missing)[:_NOTE_CHARACTERS],
    )


class Replayer:
    """Applies official records in order to a fold that stands right before them; every version's hashes are compared.

    fold: where it stands now; another object after a record that replaces the model.
    lost: inputs left out, if it is forgiving.
    """

    def __init__(
        self,
        bus: Bus,
        models: ModelsReader,
        fold: Fold,
        starts: Sequence[int],
        ends: Sequence[int],
        *,
        forgiving: bool = False,
    ) -> None:
        self._inputs = InputLog(bus, fold.task, first=fold.state.vector, starts=starts, ends=ends)
        self._models, self._forgiving = models, forgiving
        self.fold = fold
        self.lost: list[Place] = []

    @property
    def oldest_ms(self) -> float:
        """When the log took in the oldest input that was read again; infinite before the first."""
        return self._inputs.oldest_ms

    async def run(self, records: Sequence[Record], progress: Progress | None = None) -> None:
        """Apply them all; raises InputsLostError, DivergedError unless forgiving."""
        try:
            for count, record in enumerate(records, 1):
                if record.body.replaces_model:
                    state = await load_keyframe(self._models, record)
                    self.fold = await asyncio.to_thread(Fold, task=self.fold.task, state=state)
                    self.lost.clear()
                else:
                    await self._apply(record)
                if progress is not None:
                    progress(count, len(records))
        finally:
            await self._inputs.close()

    async def _apply(self, record: Record) -> None:
        frames = await self._inputs.fetch(record.body.runs)
        if self._forgiving:
            self.lost += await asyncio.to_thread(replay_forgiving, self.fold, record.body, frames)
            return
        try:
            await asyncio.to_thread(self.fold.replay, record.body, frames)
        except InputsLostError as error:
            raise InputsLostError(f"{error}. To go on without it: headwater aggregator --accept-divergence") from error


async def _enter(bus: Bus, task: str, models: ModelsReader) -> tuple[CommitsReader, list[Official], int, FoldState]:
    """The chain from a readable keyframe on: its reader, its records, where in them the keyframe is, and its state."""
    for first in (await entry(bus, task, models), None):
        commits = CommitsReader(bus, task, first)
        records = await commits.to_the_end()
        if not records and first is None:
            raise ConfigError(f"task {task!r} has no first record; make it with: headwater task create --task {task}")
        loaded = await _newest_keyframe(models, records)
        if loaded is not None:
            return commits, records, *loaded
        await commits.close()
    raise InputsLostError("no keyframe can be read: the models topic lost parts that the chain names")


async def _newest_keyframe(models: ModelsReader, records: Sequence[Official]) -> tuple[int, FoldState] | None:
    for index in range(len(records) - 1, -1, -1):
        if records[index].record.body.keyframe:
            with suppress(PartMissingError):
                return index, await load_keyframe(models, records[index].record)
    return None
