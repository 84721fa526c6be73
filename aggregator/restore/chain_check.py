"""Is the log of commits still the one that was written? Its own end cannot tell; what other writes left behind can.

Parts are published before the record that names them, at most `AHEAD` records before it: a part of a height beyond
that belongs to a record that was official and is gone. And what lies behind the last official record and cannot be
read may have been the next one.
"""

from collections.abc import Sequence

from aggregator.restore.recovery import Accept
from broker_topics.commits_log import CommitsReader, Official
from broker_topics.errors import InputsLostError
from broker_topics.models_log import Tail
from broker_topics.parts import height_of

AHEAD = 3
"""Records whose parts may lie in the log before the first of them is official."""

_MEND = "Bring the topic back from a replica or a copy"


def newest_parts(tail: Tail) -> list[tuple[int, int]]:
    """(offset, height) of the parts at the end of the models topic, which must be read before the commits are."""
    found = [(offset, height_of(key)) for offset, key in tail.keys]
    return [(offset, height) for offset, height in found if height is not None]


def check_commits(
    task: str, commits: CommitsReader, records: Sequence[Official], parts: Sequence[tuple[int, int]], accept: Accept
) -> list[str]:
    """Compare the end of the chain with what was published for it.

    Args:    records: as read, the newest keyframe and what came after it among them.
             parts: of `newest_parts`; those before the newest keyframe's own were dealt with when that was written.
    Returns: what is missing, in words, where `accept.loss` covers it.
    Raises:  InputsLostError: official records are gone.
    """
    if not records:
        if parts:
            raise InputsLostError(
                f"the commits topic of task {task!r} is empty, although models holds parts up to record "
                f"{max(height for _, height in parts)}: it was lost, or deleted and made anew. {_MEND}, "
                "or make a new task under another name"
            )
        return []
    last, missing = records[-1], list[str]()
    settled = max(part.offset for known in records if known.record.body.keyframe for part in known.record.body.parts)
    beyond = [height for offset, height in parts if offset > settled and height > last.record.height + AHEAD]
    if beyond:
        missing.append(
            f"the commits topic was cut short: it ends with record {last.record.height}, "
            f"but record {max(beyond)} has left parts in models"
        )
    if commits.unreadable_at > last.offset:
        missing.append(
            f"the record at offset {commits.unreadable_at} of the commits topic cannot be read, "
            f"and the chain does not go on past record {last.record.height}"
        )
    if missing and not accept.loss:
        raise InputsLostError(f"{'; '.join(missing)}. {_MEND}. To go on from there: headwater aggregator --accept-loss")
    return missing


def parts_end(records: Sequence[Official]) -> int:
    """The offset in models behind every part of these records; 0 if they have none."""
    return 1 + max((part.offset for known in records for part in known.record.body.parts), default=-1)
