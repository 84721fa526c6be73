"""What the fold says: of each input an admission, of all inputs since the last record a draft of the next one."""

from dataclasses import dataclass, field

from aggregator.gate import Passed, Refused
from broker_topics.errors import InvariantError
from broker_topics.record import Body, Decision, Run, RunKind


class DivergedError(InvariantError):
    """Replay of the very inputs that the chain consumed ends with another model; the fold is of no use afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
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

    runs: list[Run] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    count: int = 0

    def add(self, partition: int, first: int, count: int, kind: RunKind) -> None:
        """Take in offsets; those that go on where the last run ended lengthen it."""
        last = self.runs[-1] if self.runs else None
        if last is not None and last.partition == partition and last.kind is kind:
            self.runs[-1] = Run(partition, last.first, last.count + count, kind)
        else:
            self.runs.append(Run(partition, first, count, kind))
        self.count += count


def admission(verdict: Passed | Refused, decision: Decision, *, partition: int, offset: int, size: int) -> Admission:
    """The admission of one input of `size` bytes."""
    update = verdict.update
    if update is None:
        return Admission(decision=decision, partition=partition, offset=offset, bytes=size)
    return Admission(
        decision=decision,
        partition=partition,
        offset=offset,
        bytes=size,
        client_id=update.client_id,
        staleness=verdict.staleness if isinstance(verdict, Passed) else 0,
        norm=verdict.decoded.norm if isinstance(verdict, Passed) else 0.0,
        codec=update.encoded.codec.name.lower(),
        work=update.work,
        num_examples=update.num_examples,
    )
