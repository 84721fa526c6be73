"""What the fold says: of each input an admission, of all inputs since the last record a draft of the next one."""

from dataclasses import dataclass, field
from typing import NamedTuple

from aggregator.fold.gate import Passed, Refused
from broker_topics.codecs import CodecId
from broker_topics.errors import InvariantError
from broker_topics.record import Body, Decision, Run, RunKind

_CODEC_NAMES = {codec: codec.name.lower() for codec in CodecId}


class DivergedError(InvariantError):
    """Replay of the very inputs that the chain consumed ends with another model; the fold is of no use afterwards."""


class Admission(NamedTuple):
    """The decision on one input, with what metrics want to know of it.

    client_id is "" where identity was not established; norm and staleness are 0 for what was refused.
    """

    decision: Decision
    partition: int
    offset: int
    bytes: int
    client_id: str = ""
    staleness: int = 0
    norm: float = 0.0
    codec: str = ""
    work: float = 0.0
    num_examples: int = 0

    @property
    def refused(self) -> bool:
        """Whether the input stayed out of the model."""
        return not self.decision.accepted


@dataclass(frozen=True, slots=True)
class Draft:
    """What a chain record will say of the inputs since the last one, and the Delta frame of its step, if it has one.

    body: complete but for what the writer adds: parts, keyframe and note.
    norm: L2 norm of what the delta adds to the devices' model.
    """

    body: Body
    delta: bytes | None
    norm: float = 0.0


@dataclass(slots=True)
class Consumed:
    """Inputs and void offsets since the last record, as runs in the order in which they were taken."""

    decisions: list[Decision] = field(default_factory=list)
    count: int = 0
    _ended: list[Run] = field(default_factory=list)
    _partition: int = -1
    _kind: RunKind = RunKind.DATA
    _first: int = 0
    _next: int = 0

    @property
    def runs(self) -> list[Run]:
        """Every run, the one that still grows included."""
        return [*self._ended, self._growing()] if self.count else []

    def add(self, partition: int, first: int, count: int, kind: RunKind) -> None:
        """Take in offsets; those that go on where the last run ended lengthen it."""
        if partition != self._partition or kind is not self._kind:
            if self.count:
                self._ended.append(self._growing())
            self._partition, self._kind, self._first = partition, kind, first
        self._next = first + count
        self.count += count

    def _growing(self) -> Run:
        return Run(self._partition, self._first, self._next - self._first, self._kind)


def admission(verdict: Passed | Refused, decision: Decision, *, partition: int, offset: int, size: int) -> Admission:
    """The admission of one input of `size` bytes."""
    update = verdict.update
    if update is None:
        return Admission(decision, partition, offset, size)
    codec = _CODEC_NAMES[update.encoded.codec]
    staleness, norm = (verdict.staleness, verdict.decoded.norm) if isinstance(verdict, Passed) else (0, 0.0)
    known = update.client_id, staleness, norm, codec, update.work, update.num_examples
    return Admission(decision, partition, offset, size, *known)
