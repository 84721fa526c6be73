"""What a device's core is told, and what it asks for: all there is between the rules and the world."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from broker_topics.chain import ChainPosition
from broker_topics.layout import Vector
from broker_topics.record import Record
from broker_topics.task import TaskSettings
from worker.state import Base, DeviceState, Row


@dataclass(frozen=True, slots=True)
class Moment:
    """Now: `now_s` of a clock that never jumps, for pauses; `wall_s` since 1970, for ages that survive a restart."""

    now_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """The chain was entered at its end. `known`: every record since the stored position will be shown."""

    known: bool
    last: Record
    settings: TaskSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsSeen:
    """Newly official records in order; `caught_up` once the end of the log has been reached since the last outage."""

    records: tuple[Record, ...] = ()
    position: ChainPosition
    settings: TaskSettings
    caught_up: bool = False


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The broker does not answer."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A training ended. `base` is what it started from; `pull` its ‖a‖₁; `local` float32[P] is not kept by others."""

    base: Base
    local: Vector
    num_examples: int
    num_steps: int
    pull: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """The training function raised; nothing came of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class TrainingSkipped:
    """The device may not train now, or returned without a step."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """The log has a row, and where."""

    incarnation: int
    sequence: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class ProduceFailed:
    """It is not known whether the log has the row, or certain that it has not; either way the same bytes go again."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The moment that `Core.wake_s` named has come."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The device wants to end: nothing new is begun."""


Event: TypeAlias = (
    Entered
    | RecordsSeen
    | Unreachable
    | Trained
    | TrainingFailed
    | TrainingSkipped
    | Produced
    | ProduceFailed
    | TimePassed
    | StopRequested
)


@dataclass(frozen=True, slots=True)
class Store:
    """Make this state durable in one transaction before any later effect is performed."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class Produce:
    """Send these bytes; answer with Produced or ProduceFailed."""

    row: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train once; answer with Trained, TrainingFailed or TrainingSkipped.

    base: what the work counts from; None: the newest model. start: float32[P] to begin with; None: the base itself.
    """

    base: Base | None
    start: Vector | None
    settings: TaskSettings
    epochs: int
    deadline_s: float
    max_steps: int
    seed: int


class Kind(StrEnum):
    """What a device reports of itself; each is also the name of a log event."""

    REACHABLE = "broker_reachable"
    UNREACHABLE = "broker_unreachable"
    FOLLOWED = "model_followed"
    TRAINING_STARTED = "training_started"
    TRAINED = "training_finished"
    TRAINING_FAILED = "training_failed"
    TRAINING_SKIPPED = "training_skipped"
    QUEUED = "update_queued"
    SENT = "update_sent"
    SETTLED = "update_settled"
    IN_DOUBT = "update_in_doubt"
    GIVEN_BACK = "update_given_back"
    DISCARDED = "update_discarded"
    INCARNATION = "incarnation_changed"
    OUTBOX_CORRUPT = "outbox_corrupt"
    OUTBOX_FULL = "outbox_full"


Fact: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True)
class Report:
    """Something that people, logs and telemetry may want to know."""

    kind: Kind
    facts: Mapping[str, Fact] = field(default_factory=dict)


Effect: TypeAlias = Store | Produce | Train | Report
