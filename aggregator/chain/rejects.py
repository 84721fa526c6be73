"""What devices are told of refusals, beside the chain that decides."""

from collections.abc import Iterable, Iterator

from aggregator.fold.outcome import Admission
from broker_topics.errors import RejectCode
from broker_topics.messages import Reject
from broker_topics.record import Body, RunKind


def rejects(admitted: Iterable[Admission], body: Body) -> Iterator[Reject]:
    """The refusals of one official record, and every update of it that could not be read where it lies."""
    for admission in admitted:
        if admission.refused:
            yield Reject(
                code=admission.decision.code or RejectCode.MALFORMED,
                partition=admission.partition,
                offset=admission.offset,
                client_id=admission.client_id,
                crc=admission.decision.crc,
            )
    control = len(body.vector) - 1
    for run in body.runs:
        if run.kind is RunKind.UNREADABLE and run.partition != control:
            for offset in range(run.first, run.first + run.count):  # whose it was nobody knows
                yield Reject(code=RejectCode.UNREADABLE, partition=run.partition, offset=offset, client_id="", crc=0)
