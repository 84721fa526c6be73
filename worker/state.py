"""Everything about a device that must survive a power cut; the outbox stores exactly this.

Values are never changed in place: a change makes a new value, so that what was stored can be told from what was not.
"""

from dataclasses import dataclass, field

import numpy as np

from broker_topics.chain import ChainPosition
from broker_topics.layout import Layout, Vector
from broker_topics.task import TaskSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Base:
    """What a training started from: float32[P] and the official version that it counts from."""

    version: int
    hash: bytes
    vector: Vector


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Queued:
    """Local work that is not yet in a record: local − base is the delta, and training goes on from `local`.

    work: trainings contained. steps: optimizer steps. pull: Σ‖a‖₁ of the trainings. since_s: wall clock of the first.
    """

    base: Base
    local: Vector
    work: int
    steps: int
    pull: float
    num_examples: int
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One record, exact to the byte, whose fate is not known yet.

    In doubt while `offset` is None: stored before its bytes reach a producer, resent byte for byte. Sent once the log
    said where it lies.
    """

    data: bytes
    crc: int
    incarnation: int
    sequence: int
    base_version: int
    work: float
    since_s: float
    partition: int | None = None
    offset: int | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether it is unknown where, or if, the log has it."""
        return self.offset is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Trainings by what became of them; trained = accepted + discarded + what the state still holds."""

    trained: float = 0.0
    accepted: float = 0.0
    discarded: float = 0.0
    updates_accepted: int = 0
    updates_given_back: int = 0
    updates_discarded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceState:
    """A device between two transactions.

    incarnation: grows whenever this outbox turns out to be a copy or a restored one. sequence: of the last row made.
    residual: float32[P], what compression and refusals kept back. carry: trainings in the residual that a refused
    update brought back and the next header must count. position: where the chain was last read.
    """

    residual: Vector
    incarnation: int = 1
    sequence: int = 0
    carry: float = 0.0
    queued: Queued | None = None
    row: Row | None = None
    position: ChainPosition | None = None
    settings: TaskSettings | None = None
    stale_in_a_row: int = 0
    share: float = 1.0
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def fresh(cls, layout: Layout) -> "DeviceState":
        """A new installation."""
        return cls(residual=np.zeros(layout.size, dtype=np.float32))

    @property
    def oldest_base(self) -> int | None:
        """The version that the oldest waiting work started from; None if none waits."""
        if self.row is not None:
            return self.row.base_version
        return self.queued.base.version if self.queued is not None else None

    @property
    def waiting_since_s(self) -> float | None:
        """Since when (seconds since 1970) the oldest work waits for its decision; None if none waits."""
        oldest = self.row or self.queued
        return None if oldest is None else oldest.since_s

    @property
    def waiting(self) -> int:
        """Updates that wait: one in a record at most, and one that still grows."""
        return (self.row is not None) + (self.queued is not None)
