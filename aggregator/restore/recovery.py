"""What an operator may accept when acknowledged data was lost: to go on without it, named in the chain for ever."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aggregator.fold.core import Fold
from aggregator.restore.inputs import Place
from broker_topics.bus import Bus
from broker_topics.crash_points import Io, passing
from broker_topics.frames import frame_crc
from broker_topics.record import Body, Cause, Decision, Run, RunKind, Step
from broker_topics.topics import Topic, topic_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Flags for one start, none of them set by itself.

    loss: inputs that were never consumed, or the end of a partition, are gone; go on without them.
    divergence: inputs that the model was made from are gone, or replay ends elsewhere; go on from what results.
    """

    loss: bool = False
    divergence: bool = False


def forgive(body: Body, frames: Mapping[Place, bytes]) -> tuple[Body, tuple[Place, ...]]:
    """A record without the inputs that are gone or have become others, and where those lay.

    Missing inputs become void runs; the step takes what is left, and is left out where nothing is.
    """
    runs: list[Run] = []
    kept: list[Decision] = []
    lost: list[Place] = []
    for run, decisions in body.decided():
        if run.kind is not RunKind.DATA:
            runs.append(run)
        for offset, decision in enumerate(decisions, run.first):
            data = frames.get((run.partition, offset))
            if data is not None and frame_crc(data) == decision.crc:
                runs.append(Run(run.partition, offset, 1))
                kept.append(decision)
            else:
                runs.append(Run(run.partition, offset, 1, RunKind.LOST))
                lost.append((run.partition, offset))
    control = len(body.vector) - 1
    places = [run.partition for run in runs if run.kind is RunKind.DATA]
    applied = sum(d.accepted and p != control for d, p in zip(kept, places, strict=True))
    steps = (Step(applied, body.steps[0].cause),) if body.steps and applied else ()
    return replace(body, runs=tuple(runs), decisions=tuple(kept), steps=steps), tuple(lost)


def replay_forgiving(fold: Fold, body: Body, frames: Mapping[Place, bytes]) -> tuple[Place, ...]:
    """Apply what is left of one record; the places that were left out. Versions and bases stay the chain's own."""
    rest, lost = forgive(body, frames)
    fold.replay(rest, frames, compare=False)
    if fold.state.model.version < body.version:
        fold.replace(Cause.REPAIR)
    fold.state.bases[body.version] = body.base_hash
    return lost


async def fill_up(bus: Bus, task: str, *, vector: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Fill partitions that were cut below the vector with empty records, so that nothing may land there again.

    Returns: the partitions that were filled.
    """
    cut = [partition for partition, offset in enumerate(vector) if ends[partition] < offset]
    for partition in cut:
        control = partition == len(vector) - 1
        topic = topic_name(task, Topic.CONTROL if control else Topic.UPDATES)
        while (await bus.end_offsets(topic))[0 if control else partition] < vector[partition]:
            with passing(Io.FILL_UP):
                await bus.send(topic, key=None, value=b"", partition=0 if control else partition)
    return cut
