"""Reads the newest records of a task's topics: a bounded number, however long the log is."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from aggregator.insight.telemetry import EVALUATOR
from broker_topics.bus import Bus, BusRecord, OffsetGoneError
from broker_topics.errors import ConfigError, WireError
from broker_topics.messages import Reject, Telemetry, Update
from broker_topics.topics import Topic, topic_name

_TAIL = 200
"""Newest records of a partition that are looked through for refusals; five times as many for an evaluation."""

_TAIL_UPDATES = 25
"""The same for updates, which may be large."""

_ANSWER_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The newest evaluation that telemetry still has."""

    version: int
    scores: Mapping[str, float]
    age_s: float


async def newest_updates(bus: Bus, task: str) -> dict[str, float]:
    """Device → when the log took in its newest update, of those in the log's last records."""
    newest: dict[str, float] = {}
    for record in await _tail(bus, topic_name(task, Topic.UPDATES), _TAIL_UPDATES):
        with suppress(WireError):
            name = Update.from_bytes(record.value or b"").client_id
            newest[name] = max(newest.get(name, 0.0), record.timestamp_ms / 1000)
    return newest


async def newest_stamp(bus: Bus, task: str) -> float | None:
    """When the log took in its newest record of the chain or of telemetry, unix seconds; None where there is none."""
    stamps = []
    for topic in (Topic.COMMITS, Topic.TELEMETRY):
        with suppress(ConfigError):
            stamps += [record.timestamp_ms / 1000 for record in await _tail(bus, topic_name(task, topic), 1)]
    return max(stamps, default=None)


async def newest_rejects(bus: Bus, task: str) -> list[tuple[Reject, float]]:
    """Refusals of the log's last records, each with when it was written."""
    found = []
    for record in await _tail(bus, topic_name(task, Topic.REJECTS), _TAIL):
        with suppress(WireError):
            found.append((Reject.from_bytes(record.value or b""), record.timestamp_ms / 1000))
    return found


async def newest_evaluation(bus: Bus, task: str, now: float) -> Scored | None:
    """What the evaluator reported last, if it is among the last records of its partition."""
    topic = topic_name(task, Topic.TELEMETRY)
    partition = await bus.partition_for(topic, EVALUATOR.encode())
    for record in reversed(await _tail(bus, topic, 5 * _TAIL, only=partition)):
        with suppress(WireError):
            report = Telemetry.from_bytes(record.value or b"")
            if report.client_id == EVALUATOR:
                values = {name: float(value) for name, value in report.values.items() if isinstance(value, int | float)}
                version = int(values.pop("version", 0))
                return Scored(version=version, scores=values, age_s=now - record.timestamp_ms / 1000)
    return None


async def _tail(bus: Bus, topic: str, count: int, only: int | None = None) -> list[BusRecord]:
    """The newest `count` records of every partition, or of one."""
    starts, ends = await bus.start_offsets(topic), await bus.end_offsets(topic)
    wanted = ends if only is None else {only: ends[only]}
    return await between(bus, topic, {p: max(starts[p], end - count) for p, end in wanted.items()})


async def between(bus: Bus, topic: str, first: Mapping[int, int], *, at_most: int | None = None) -> list[BusRecord]:
    """The records from `first` on, to the ends as they are now; at most so many of each partition."""
    ends = await bus.end_offsets(topic)
    stop = {
        p: min(ends[p], offset + at_most) if at_most else ends[p] for p, offset in first.items() if offset < ends[p]
    }
    if not stop:
        return []
    reader = bus.reader(topic, {p: first[p] for p in stop})
    found: list[BusRecord] = []
    try:
        while behind := [p for p, end in stop.items() if reader.position(p) < end]:
            reader.pause([p for p in stop if p not in behind])
            batch = await reader.fetch(timeout_s=_ANSWER_S)
            found += [record for record in batch if record.offset < stop[record.partition]]
            if not batch:
                # Offsets without a record, such as the end of a device's transaction.
                break
    except OffsetGoneError:
        # Retention went on while we looked.
        return found
    finally:
        await reader.close()
    return found
