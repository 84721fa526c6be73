"""Which devices lag, from the broker alone: what the newest keyframe knows of each, and the updates since."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from aggregator.fold.state import Glance
from broker_topics.bus import Bus
from broker_topics.commits_log import Official
from broker_topics.entry import check_task
from broker_topics.errors import ConfigError, RejectCode, WireError
from broker_topics.messages import Update
from broker_topics.record import Body, Decision
from broker_topics.topics import Topic, topic_name
from headwater.checkup.facts import chain_since_keyframe, glance_of
from headwater.checkup.tail import between

Order = Literal["rarity", "silence", "staleness"]

_MOST = 5_000
"""Updates since the keyframe that are looked at, of each partition."""


@dataclass(slots=True, kw_only=True)
class Straggler:
    """One device. Versions are server steps; times are of the log's clock.

    times_rarer: its usual distance between two accepted updates, in the fleet's means. 1 is average.
    silent_for: how long it has been silent, in its own usual distances; beyond 5 it should have been heard.
    staleness: of its newest update since the keyframe, None if there was none. stale: how many of them were refused so.
    last_heard_s: seconds since its newest update since the keyframe, None if there was none.
    """

    client_id: str
    times_rarer: float = 1.0
    silent_for: float = 0.0
    versions_ago: int = 0
    staleness: int | None = None
    accepted: int = 0
    stale: int = 0
    last_outcome: str = ""
    last_heard_s: float | None = None


async def read_stragglers(
    bus: Bus, task: str, *, order: Order = "rarity", now_s: Callable[[], float] = time.time
) -> list[Straggler]:
    """Every device that the task knows, the worst first; nothing is written.

    Raises:  ConfigError: the task is unknown, or its newest keyframe cannot be read.
             BusError: the broker does not answer.
    """
    await check_task(bus, task)
    chain = await chain_since_keyframe(bus, task)
    seen, unreadable = await glance_of(bus, task, chain[0])
    if seen is None:
        raise ConfigError(f"the newest keyframe cannot be read: {unreadable}; see: headwater status --task {task}")
    rows = {name: Straggler(client_id=name) for name, _ in seen.ledger.named()}
    since = await _since(bus, task, chain, rows, now_s())
    _habits(seen, since, chain[-1].record.body.version, rows)
    keys: Mapping[Order, Callable[[Straggler], float]] = {
        "rarity": lambda row: row.times_rarer,
        "silence": lambda row: row.silent_for,
        "staleness": lambda row: row.stale * 1e9 + (row.staleness or 0),
    }
    return sorted(rows.values(), key=lambda row: (-keys[order](row), row.client_id))


@dataclass(slots=True)
class _Since:
    """Accepted updates since the keyframe: how many, and as the how manieth each device was heard last."""

    count: int = 0
    last: dict[str, int] = field(default_factory=dict)


async def _since(bus: Bus, task: str, chain: Sequence[Official], rows: dict[str, Straggler], now: float) -> _Since:
    """Note every update that a record since the keyframe decided on; what cannot be read any more is left out."""
    topic, first, last = topic_name(task, Topic.UPDATES), chain[0].record.body.vector, chain[-1].record.body.vector
    wanted = {partition: offset for partition, offset in enumerate(first[:-1]) if offset < last[partition]}
    inputs = {(r.partition, r.offset): r for r in await between(bus, topic, wanted, at_most=_MOST)}
    since = _Since()
    for official in chain[1:]:
        body = official.record.body
        version = body.version - len(body.steps)
        for place, decision in _decided(body):
            if (record := inputs.get(place)) is not None:
                with suppress(WireError):
                    update = Update.from_bytes(record.value or b"")
                    row = rows.setdefault(update.client_id, Straggler(client_id=update.client_id))
                    row.staleness, row.last_outcome = max(0, version - update.base_version), decision.outcome
                    row.last_heard_s = now - record.timestamp_ms / 1000
                    _count(row, decision, since)
    return since


def _decided(body: Body) -> Iterator[tuple[tuple[int, int], Decision]]:
    """(partition, offset) of every data input of a record, with its decision."""
    for run, decisions in body.decided():
        for offset, decision in enumerate(decisions, run.first):
            yield (run.partition, offset), decision


def _count(row: Straggler, decision: Decision, since: _Since) -> None:
    row.stale += decision.code is RejectCode.STALE
    if decision.accepted:
        row.accepted += 1
        since.count += 1
        since.last[row.client_id] = since.count


def _habits(seen: Glance, since: _Since, version: int, rows: Mapping[str, Straggler]) -> None:
    """What is usual for each device, from the keyframe, and how long it has been silent in those terms."""
    for name, entry in seen.ledger.named():
        row, habit = rows[name], entry.habit
        row.versions_ago = 0 if row.staleness is not None else version - entry.heard_version
        row.last_outcome = row.last_outcome or entry.outcome
        gap = (habit.gap if habit else 0.0) or seen.population
        if habit is not None and gap:
            row.times_rarer = round(gap / seen.population, 2)
            heard_at = since.last.get(name, habit.last_arrival - seen.arrivals)
            row.silent_for = round((since.count - heard_at) / gap, 1)
