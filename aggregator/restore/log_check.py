"""Is the log still the one that was consumed? Checked before a single new input is taken."""

from collections.abc import Iterator, Sequence

from aggregator.fold.core import Fold
from aggregator.restore.inputs import InputLog
from aggregator.restore.recovery import Accept, fill_up
from broker_topics.bus import Bus
from broker_topics.errors import InputsLostError
from broker_topics.frames import frame_crc
from broker_topics.record import RunKind


async def check_inputs(
    bus: Bus, fold: Fold, *, starts: Sequence[int], ends: Sequence[int], changed: Sequence[int], accept: Accept
) -> list[str]:
    """Every partition must reach the vector, still hold what comes after it, and end in the input that was consumed.

    Args:    changed: of `changed_inputs`.
    Returns: what is missing, in words, where `accept.loss` covers it; void runs and fillings are then made.
    Raises:  InputsLostError: acknowledged data is gone or has become other data.
    """
    vector = fold.state.vector
    missing = list(_eaten(vector, starts)) + list(_cut(vector, ends))
    missing += [f"another record lies in partition {p} at offset {vector[p] - 1}" for p in changed]
    if missing and not accept.loss:
        raise InputsLostError(f"{'; '.join(missing)}. To go on without them: headwater aggregator --accept-loss")
    filled = await fill_up(bus, fold.task, vector=vector, ends=ends)
    for partition in {*filled, *changed}:
        fold.state.last_crc[partition] = None
    for partition, start in enumerate(starts):
        if start > vector[partition]:
            first = vector[partition]
            fold.void(partition=partition, first=first, count=start - first, kind=RunKind.LOST)
    return missing


def _eaten(vector: Sequence[int], starts: Sequence[int]) -> Iterator[str]:
    for partition, (offset, start) in enumerate(zip(vector, starts, strict=True)):
        if start > offset:
            yield f"retention deleted the inputs {offset} to {start - 1} of partition {partition} before they were read"


def _cut(vector: Sequence[int], ends: Sequence[int]) -> Iterator[str]:
    for partition, (offset, end) in enumerate(zip(vector, ends, strict=True)):
        if end < offset:
            yield f"partition {partition} was cut short: it ends at {end}, but {offset} inputs were acknowledged"


async def changed_inputs(bus: Bus, fold: Fold, *, starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Partitions whose last consumed input is another one now; one that retention has eaten tells nothing."""
    vector, changed = fold.state.vector, []
    before = [max(0, offset - 1) for offset in vector]
    log = InputLog(bus, fold.task, first=before, starts=starts, ends=ends, evenly=True, wanted=vector)
    try:
        for partition, crc in enumerate(fold.state.last_crc):
            record = await log.at(partition, vector[partition] - 1) if crc is not None else None
            if record is not None and frame_crc(record.value or b"") != crc:
                changed.append(partition)
    finally:
        await log.close()
    return changed
