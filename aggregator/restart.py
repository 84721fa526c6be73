"""From the log to a living fold: newest keyframe, then the inputs since by their recorded decisions, hashes checked."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aggregator.core import Fold
from aggregator.inputs import InputLog, end_vector, start_vector
from aggregator.keyframe import load_keyframe
from aggregator.state import FoldState
from broker_topics.bus import Bus
from broker_topics.entry import CommitsReader, Official, check_task, entry
from broker_topics.errors import ConfigError, InputsLostError
from broker_topics.frames import frame_crc
from broker_topics.models_log import ModelsReader, PartMissingError
from broker_topics.record import Record

Progress = Callable[[int, int], None]
"""Called with versions replayed so far and in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A fold at the chain's end, and the reader that stands there.

    replayed: records since the keyframe; steps: server steps in them. oldest_ms: when the log took in the oldest input
    of theirs, infinite if there is none.
    """

    fold: Fold
    commits: CommitsReader
    keyframes: tuple[Official, ...]
    replayed: int
    steps: int
    oldest_ms: float


async def restore(bus: Bus, task: str, *, progress: Progress | None = None) -> Restored:
    """Bring the fold to the newest official record.

    Raises:  ConfigError: unknown task.  InputsLostError: inputs that the chain consumed, or that wait to be consumed,
             are gone or have become others.  InvariantError: replay reaches other bytes than the chain names.
    """
    await check_task(bus, task)
    models = ModelsReader(bus, task)
    try:
        commits = CommitsReader(bus, task, await entry(bus, task, models))
        records = await _official(commits)
        loaded = await _newest_keyframe(models, records)
        if loaded is None:
            await commits.close()
            commits = CommitsReader(bus, task)
            records = await _official(commits)
            loaded = await _newest_keyframe(models, records)
        if loaded is None:
            raise InputsLostError("no keyframe can be read: the models topic lost parts that the chain names")
    finally:
        await models.close()
    index, state = loaded
    starts, ends = await start_vector(bus, task), await end_vector(bus, task)
    fold = await asyncio.to_thread(Fold, task=task, state=state)
    rest = [official.record for official in records[index + 1 :]]
    oldest_ms = await replay_records(bus, fold, rest, starts=starts, ends=ends, progress=progress)
    await _check_inputs(bus, task, fold.state, starts, ends)
    keyframes = tuple(official for official in records if official.record.body.keyframe)
    return Restored(
        fold=fold,
        commits=commits,
        keyframes=keyframes[-2:],
        replayed=len(rest),
        steps=sum(len(record.body.steps) for record in rest),
        oldest_ms=oldest_ms,
    )


async def replay_records(
    bus: Bus,
    fold: Fold,
    records: Sequence[Record],
    *,
    starts: Sequence[int],
    ends: Sequence[int],
    progress: Progress | None = None,
) -> float:
    """Apply official records in order to a fold that stands right before them; every version's hashes are compared.

    Returns: when the log took in the oldest input among them, milliseconds of its clock; infinite if there is none.
    """
    inputs = InputLog(bus, fold.task, first=fold.state.vector, starts=starts, ends=ends)
    try:
        for count, record in enumerate(records, 1):
            frames = await inputs.fetch(record.body.runs)
            await asyncio.to_thread(fold.replay, record.body, frames)
            if progress is not None:
                progress(count, len(records))
        return inputs.oldest_ms
    finally:
        await inputs.close()


async def _official(commits: CommitsReader) -> list[Official]:
    records = await commits.to_the_end()
    if not records:
        raise ConfigError("the task has no first record; make it with: headwater task create")
    return records


async def _newest_keyframe(models: ModelsReader, records: Sequence[Official]) -> tuple[int, FoldState] | None:
    for index in range(len(records) - 1, -1, -1):
        if records[index].record.body.keyframe:
            with suppress(PartMissingError):
                return index, await load_keyframe(models, records[index].record)
    return None


async def _check_inputs(bus: Bus, task: str, state: FoldState, starts: Sequence[int], ends: Sequence[int]) -> None:
    """The log must reach the vector, still hold what comes after it, and end in the very input that was consumed."""
    if len(state.vector) != len(ends):
        raise ConfigError(
            f"the task was made with {len(state.vector) - 1} partitions of updates, the topic now has {len(ends) - 1}"
        )
    log = InputLog(bus, task, first=[max(0, offset - 1) for offset in state.vector], starts=starts, ends=ends)
    try:
        for partition, offset in enumerate(state.vector):
            if ends[partition] < offset:
                raise InputsLostError(
                    f"partition {partition} ends at {ends[partition]}, but {offset} inputs of it were acknowledged: "
                    "the log was cut short"
                )
            if starts[partition] > offset:
                raise InputsLostError(
                    f"retention deleted the inputs {offset} to {starts[partition] - 1} of partition {partition} "
                    "before they were consumed"
                )
            crc = state.last_crc[partition]
            record = await log.at(partition, offset - 1) if crc is not None else None
            if record is not None and frame_crc(record.value or b"") != crc:
                raise InputsLostError(f"another record lies in partition {partition} at offset {offset - 1}")
    finally:
        await log.close()
