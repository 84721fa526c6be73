"""What the broker alone tells of a task: chain, lag, retention, devices, refusals and the last evaluation."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aggregator.fold.commands import PAUSE, RESUME
from aggregator.fold.state import Glance, glance
from aggregator.restore.inputs import check_partitions, end_vector, start_vector
from broker_topics.bus import Bus
from broker_topics.chain import settled_in
from broker_topics.commits_log import CommitsReader, Official
from broker_topics.entry import check_task, entry
from broker_topics.errors import ConfigError, WireError
from broker_topics.messages import Control
from broker_topics.models_log import ModelsReader
from broker_topics.parts import SERVER
from broker_topics.record import Decision
from broker_topics.topics import Topic, topic_name
from headwater.checkup.tail import Scored, between, newest_evaluation, newest_rejects, newest_updates

_RECENT_S = 3600.0
_SHORTEST_MIN = 1 / 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """One device as the newest keyframe knows it: how rarely it is heard, in means of the fleet.

    silent_s: since its newest update in the log, None where that is too far back to be found.
    """

    client_id: str
    times_rarer: float
    versions_ago: int
    silent_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A task at one instant, times in seconds before now; everything from the broker.

    accepted, refused: inputs of the records since the newest keyframe. refusals: by code, within the last hour.
    lost: updates between the log's start and what the chain consumed, which nobody can read any more.
    retention_s: infinite where updates are kept for ever, None where this user may not see it.
    oldest_needed_s: age of the oldest update that a restart would read again, 0 where there is none.
    unreadable: why the newest keyframe cannot be loaded, "" if it can.
    """

    task: str
    version: int
    height: int
    head: str
    record_age_s: float
    version_age_s: float
    versions_a_minute: float
    keyframe_version: int
    keyframe_age_s: float
    unreadable: str
    paused: bool
    flush_deadline_s: float
    lag: Sequence[int]
    lost: int
    retention_s: float | None
    oldest_needed_s: float
    accepted: int
    refused: int
    refusals: Mapping[str, int]
    refused_devices: Sequence[str]
    devices: int
    population: float
    buffer_size: int
    slow: Sequence[Slow]
    scored: Scored | None

    @property
    def headroom_s(self) -> float | None:
        """Time until retention takes an update that is still needed; None where retention cannot be seen."""
        return None if self.retention_s is None else self.retention_s - self.oldest_needed_s


async def read_facts(bus: Bus, task: str, *, now_s: Callable[[], float] = time.time) -> Facts:
    """Look at everything once; nothing is written.

    Raises:  ConfigError: the task is unknown, or this user may not read it.  BusError: the broker does not answer.
    """
    await check_task(bus, task)
    chain = await chain_since_keyframe(bus, task)
    first, last = chain[0], chain[-1]
    seen, unreadable = await glance_of(bus, task, first)
    starts, ends = await start_vector(bus, task), await end_vector(bus, task)
    vector = last.record.body.vector
    check_partitions(vector, ends)
    now = now_s()
    needed = {p: max(offset, starts[p]) for p, offset in enumerate(first.record.body.vector[:-1])}
    tail = await newest_updates(bus, task)
    refused = [(reject, at) for reject, at in await newest_rejects(bus, task) if now - at < _RECENT_S]
    decisions = [decision for official in chain[1:] for decision in official.record.body.decisions]
    accepted = sum(decision.accepted for decision in decisions)
    stepped = [official for official in chain if official.record.body.steps] or [first]
    return Facts(
        task=task,
        version=last.record.body.version,
        height=last.record.height,
        head=last.record.hash.hex(),
        record_age_s=now - last.timestamp_ms / 1000,
        version_age_s=now - stepped[-1].timestamp_ms / 1000,
        versions_a_minute=_pace(chain, now),
        keyframe_version=first.record.body.version,
        keyframe_age_s=now - first.timestamp_ms / 1000,
        unreadable=unreadable,
        paused=await _paused(bus, task, chain, seen),
        flush_deadline_s=seen.settings.flush_deadline_s if seen else 0.0,
        lag=[max(0, end - next_) for end, next_ in zip(ends[:-1], vector, strict=False)],
        lost=sum(max(0, start - next_) for start, next_ in zip(starts, vector, strict=True)),
        retention_s=await _retention_s(bus, task),
        oldest_needed_s=await _oldest_s(bus, task, needed, now),
        accepted=accepted,
        refused=len(decisions) - accepted,
        refusals=dict(Counter(reject.code.value for reject, _ in refused).most_common()),
        refused_devices=[name for name, _ in Counter(r.client_id for r, _ in refused if r.client_id).most_common(3)],
        devices=len(seen.ledger) if seen else 0,
        population=seen.population if seen else 0.0,
        buffer_size=seen.settings.buffer_size if seen else 0,
        slow=_slow(seen, tail, last.record.body.version, now) if seen else (),
        scored=await newest_evaluation(bus, task, now),
    )


async def chain_since_keyframe(bus: Bus, task: str) -> list[Official]:
    """The official records from the newest keyframe on; from the beginning where nothing names one."""
    models = ModelsReader(bus, task)
    commits = CommitsReader(bus, task)
    try:
        if (at := await entry(bus, task, models)) is not None:
            await commits.close()
            commits = CommitsReader(bus, task, at)
        records = await commits.to_the_end()
    finally:
        await models.close()
        await commits.close()
    if not records:
        raise ConfigError(f"task {task!r} has no first record; make it with: headwater task create --task {task}")
    newest = max(index for index, official in enumerate(records) if official.record.body.keyframe)
    return records[newest:]


async def glance_of(bus: Bus, task: str, keyframe: Official) -> tuple[Glance | None, str]:
    """What a keyframe says beside its vectors, or why it cannot be read."""
    models = ModelsReader(bus, task)
    try:
        return await asyncio.to_thread(glance, await models.read(keyframe.record.body.parts, SERVER)), ""
    except WireError as error:
        return None, error.reason
    finally:
        await models.close()


async def _paused(bus: Bus, task: str, chain: Sequence[Official], seen: Glance | None) -> bool:
    """Whether a pause is in force: what the keyframe says, and every command that was obeyed since."""
    paused = seen.paused if seen else False
    control = len(chain[-1].record.body.vector) - 1
    first = chain[0].record.body.vector[control]
    for record in await between(bus, topic_name(task, Topic.CONTROL), {0: first}):
        found = (settled_in(official.record.body, control, record.offset) for official in chain[1:])
        if any(isinstance(decision, Decision) and decision.accepted for decision in found):
            with suppress(WireError):
                command = Control.from_bytes(record.value or b"").command
                paused = command == PAUSE if command in (PAUSE, RESUME) else paused
    return paused


async def _retention_s(bus: Bus, task: str) -> float | None:
    topic = topic_name(task, Topic.UPDATES)
    try:
        text = (await bus.describe([topic]))[topic].settings.get("retention.ms", "-1")
    except ConfigError:
        return None
    return math.inf if int(text) < 0 else int(text) / 1000


async def _oldest_s(bus: Bus, task: str, first: Mapping[int, int], now: float) -> float:
    """Age of the oldest update from these offsets on; 0 where there is none."""
    found = await between(bus, topic_name(task, Topic.UPDATES), first, at_most=1)
    return now - min((record.timestamp_ms / 1000 for record in found), default=now)


def _pace(chain: Sequence[Official], now: float) -> float:
    """Server steps a minute over the records of the last five minutes."""
    recent = [official for official in chain if now - official.timestamp_ms / 1000 < 300.0]
    if len(recent) < 2:
        return 0.0
    minutes = max(_SHORTEST_MIN, (recent[-1].timestamp_ms - recent[0].timestamp_ms) / 60_000)
    return sum(len(official.record.body.steps) for official in recent[1:]) / minutes


def _slow(seen: Glance, tail: Mapping[str, float], version: int, now: float) -> list[Slow]:
    rows = [
        Slow(
            client_id=name,
            times_rarer=entry.habit.gap / seen.population if seen.population else 0.0,
            versions_ago=version - entry.heard_version,
            silent_s=now - tail[name] if name in tail else None,
        )
        for name, entry in seen.ledger.named()
        if entry.habit is not None
    ]
    return sorted(rows, key=lambda row: (-row.times_rarer, row.client_id))[:5]
