"""Derives a model again from the log alone, and says whether every hash on the way agrees."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from aggregator.chain.keyframe import load_keyframe
from aggregator.fold.core import Fold
from aggregator.fold.state import FoldState
from aggregator.restore.inputs import InputLog, end_vector, start_vector
from aggregator.restore.replayer import Progress, Replayer
from broker_topics.bus import Bus
from broker_topics.commits_log import CommitsReader
from broker_topics.entry import check_task
from broker_topics.errors import ConfigError, InputsLostError
from broker_topics.models_log import ModelsReader, PartMissingError
from broker_topics.record import Cause, Record, RunKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay went through; that it returned at all means that every hash agreed."""

    from_version: int
    to_version: int
    records: int
    inputs: int
    accepted: int
    served_hash: bytes
    chain_head: bytes


async def replay(bus: Bus, task: str, *, to_version: int | None = None, progress: Progress | None = None) -> Replayed:
    """Start at the oldest keyframe that can still be replayed from, apply every input since, compare every version.

    What lies before a repair cannot be derived again: an operator accepted that inputs are gone.

    Raises:  ConfigError: unknown task or version.  InputsLostError: nothing can be replayed any more, or a frame is not
             the one that was decided on.  InvariantError: another model results than the chain names.
    """
    await check_task(bus, task)
    commits = CommitsReader(bus, task)
    try:
        records = [official.record for official in await commits.to_the_end()]
    finally:
        await commits.close()
    if not records:
        raise ConfigError(f"task {task!r} has no first record; make it with: headwater task create --task {task}")
    if to_version is not None:
        newest = records[-1].body.version
        records = [record for record in records if record.body.version <= to_version]
        if not records or records[-1].body.version != to_version:
            raise ConfigError(f"version {to_version} of task {task!r} does not exist; it has versions 0 to {newest}")
    starts, ends = await start_vector(bus, task), await end_vector(bus, task)
    index, state = await _oldest_keyframe(bus, task, records, starts)
    first_version = state.model.version
    rest = records[index + 1 :]
    models = ModelsReader(bus, task)
    try:
        fold = await asyncio.to_thread(Fold, task=task, state=state)
        inputs = InputLog(bus, task, first=state.vector, starts=starts, ends=ends)
        replayer = Replayer(inputs, models, fold, proving=True)
        try:
            await replayer.run(rest, progress)
        finally:
            await replayer.close()
    finally:
        await models.close()
    return Replayed(
        from_version=first_version,
        to_version=replayer.fold.state.model.version,
        records=len(rest),
        inputs=sum(run.count for record in rest for run in record.body.runs if run.kind is RunKind.DATA),
        accepted=sum(decision.accepted for record in rest for decision in record.body.decisions),
        served_hash=replayer.fold.state.model.served_hash(),
        chain_head=records[-1].hash,
    )


async def _oldest_keyframe(
    bus: Bus, task: str, records: Sequence[Record], starts: Sequence[int]
) -> tuple[int, FoldState]:
    models = ModelsReader(bus, task)
    repaired = max((index for index, record in enumerate(records) if record.body.cause is Cause.REPAIR), default=0)
    try:
        for index, record in enumerate(records[repaired:], repaired):
            eaten = any(start > offset for start, offset in zip(starts, record.body.vector, strict=True))
            if record.body.keyframe and not eaten:
                with suppress(PartMissingError):
                    return index, await load_keyframe(models, record)
    finally:
        await models.close()
    raise InputsLostError("no keyframe is left from which the log can still be replayed")
