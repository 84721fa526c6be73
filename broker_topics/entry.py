"""Where to enter the chain."""

from collections.abc import Iterable

from broker_topics.bus import Bus
from broker_topics.chain import ChainPosition
from broker_topics.commits_log import Official, record_at
from broker_topics.crash_points import Io, passing
from broker_topics.errors import ConfigError
from broker_topics.messages import Head
from broker_topics.models_log import ModelsReader
from broker_topics.topics import Topic, topic_name

MAX_CATCH_UP = 20_000
"""Records that a returning reader is willing to go through before it starts at the newest keyframe instead."""


def head_of(keyframe: Official) -> Head:
    """What `head` says while this is the newest official keyframe."""
    return Head(offset=keyframe.offset, height=keyframe.record.height, record_hash=keyframe.record.hash)


async def check_task(bus: Bus, task: str, topics: Iterable[Topic] = Topic) -> None:
    """Raise ConfigError unless those of the task's topics that a role may see exist."""
    names = [topic_name(task, topic) for topic in topics]
    there = await bus.existing(names)
    missing = [name for name in names if name not in there]
    if len(missing) == len(names):
        raise ConfigError(
            f"task {task!r} is unknown to this broker; correct the name, "
            f"or make it: headwater task create --task {task}"
        )
    if missing:
        raise ConfigError(f"topics are missing: {', '.join(missing)}; mend with: headwater topics apply --task {task}")


async def entry(
    bus: Bus, task: str, models: ModelsReader, since: ChainPosition | None = None, *, head: Head | None = None
) -> Official | None:
    """The record to start from: what `head` names, or `since` if that is older; None means the log's beginning.

    A pointer is trusted only if the record that it names lies where it says; a start anywhere else in the log could
    follow a loser's fork.

    Args:    head: where it was read just now; otherwise it is searched.
    """
    if head is None:
        with passing(Io.READ_HEAD):
            head = await models.head()
    places = [ChainPosition(head.offset, head.height, head.record_hash)] if head is not None else []
    if since is not None and (head is None or head.height - since.height <= MAX_CATCH_UP):
        places.append(since)
    for place in sorted(places, key=lambda place: place.height):
        found = await record_at(bus, task, place.offset)
        if found is not None and found.record.hash == place.hash:
            return found
    return None
