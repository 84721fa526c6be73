"""Writes a task's first record: layout, first model, settings, and where the inputs begin."""

from dataclasses import replace

from aggregator.chain.keyframe import keyframe_parts
from aggregator.chain.writer import ChainWriter
from aggregator.fold.core import Fold
from aggregator.fold.state import FoldState
from aggregator.restore.inputs import start_vector
from broker_topics.bus import Bus
from broker_topics.codecs import CodecId, check_fits
from broker_topics.commits_log import CommitsReader, Official
from broker_topics.entry import head_of
from broker_topics.errors import ConfigError, LostRaceError
from broker_topics.layout import Layout, Vector
from broker_topics.messages import payload_limit
from broker_topics.provision import apply_topics
from broker_topics.record import Cause
from broker_topics.task import TaskSettings
from broker_topics.topics import topic_specs


class TaskExistsError(ConfigError):
    """The task has its first record already; it stays as it is."""


async def create_task(
    bus: Bus,
    task: str,
    *,
    settings: TaskSettings,
    layout: Layout,
    first: Vector,
    replication: int,
    identity: bytes | None = None,
) -> Official:
    """Make the topics that are missing and write the genesis; two creators race safely, the first one wins.

    Args:    first: float32[P], the first model; not changed. identity: the writer's 16 bytes, random unless given.
    Raises:  TaskExistsError: the task has a first record.
             ConfigError: its topics have other settings, or its dense updates would not fit into a record.
    """
    check_fits(CodecId[settings.codec.upper()], layout.size, payload_limit(settings.max_update_bytes))
    await apply_topics(bus, topic_specs(task, replication=replication))
    commits = CommitsReader(bus, task)
    try:
        if await commits.to_the_end():
            raise TaskExistsError(f"task {task!r} exists already; choose another name")
        vector = await start_vector(bus, task)
        state = FoldState.genesis(settings=settings, layout=layout, first=first, vector=vector)
        draft = Fold(task=task, state=state).step(Cause.GENESIS)
        writer = ChainWriter(bus, task, commits, identity=identity)
        parts = await writer.publish(0, draft.delta, keyframe_parts(state))
        try:
            official = await writer.append(replace(draft.body, parts=parts, keyframe=True))
        except LostRaceError:
            raise TaskExistsError(f"task {task!r} was made by somebody else at this moment") from None
        await writer.models.write_head(head_of(official))
        return official
    finally:
        await commits.close()
