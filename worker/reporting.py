"""What a device tells of itself: log lines, the caller's own callback, and telemetry that may get lost."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker_topics.bus import Bus
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError
from broker_topics.messages import Telemetry
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger
from worker.events import Fact, Kind, Report

_LEVELS = {
    Kind.OUTBOX_CORRUPT: "error",
    Kind.OUTBOX_FULL: "error",
    Kind.TRAINING_FAILED: "warning",
    Kind.DISCARDED: "warning",
    Kind.INCARNATION: "warning",
    Kind.UNREACHABLE: "warning",
    Kind.REACHABLE: "info",
    Kind.TRAINED: "info",
    Kind.SETTLED: "info",
    Kind.IN_DOUBT: "info",
    Kind.GIVEN_BACK: "info",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent:
    """Something that happened to a device; `kind` names it, `facts` are the numbers that belong to it.

    at_s: seconds since 1970.
    """

    kind: Kind
    client_id: str
    at_s: float
    facts: Mapping[str, Fact] = field(default_factory=dict)


OnEvent = Callable[[WorkerEvent], None]


class Reporter:
    """Passes reports on; never waits for anything."""

    def __init__(self, *, task: str, client_id: str, wall: Callable[[], float], on_event: OnEvent | None) -> None:
        self._log = get_logger("worker").bind(task=task, client_id=client_id)
        self._client_id, self._wall, self._on_event = client_id, wall, on_event

    def __call__(self, report: Report) -> None:
        """Log it and hand it to the caller's callback, whose errors are the caller's."""
        write = getattr(self._log, _LEVELS.get(report.kind, "debug"))
        write(report.kind.value, **report.facts)
        if self._on_event is not None:
            event = WorkerEvent(kind=report.kind, client_id=self._client_id, at_s=self._wall(), facts=report.facts)
            self._on_event(event)


async def send_telemetry(
    bus: Bus, *, task: str, client_id: str, incarnation: int, values: Mapping[str, float | str]
) -> bool:
    """Send one report; False if it got lost, which is allowed. Numbers that are not finite stay behind."""
    finite = {name: value for name, value in values.items() if isinstance(value, str) or math.isfinite(value)}
    report = Telemetry(client_id=client_id, task=task, incarnation=incarnation, values=finite)
    topic, key = topic_name(task, Topic.TELEMETRY), client_id.encode()
    try:
        partition = await bus.partition_for(topic, key)
        with passing(Io.SEND_TELEMETRY):
            await bus.send(topic, key=key, value=report.to_bytes(), partition=partition)
    except BusError:
        return False
    return True
