"""I6: of every partition, what it received and what became of that, counted in offsets; no I/O."""

from collections import Counter
from collections.abc import Mapping

from aggregator.verify.verdict import Book, Invariant
from broker_topics.bus import BusRecord
from broker_topics.errors import RejectCode, WireError
from broker_topics.messages import Reject
from broker_topics.record import Decision, Record, RunKind


class Account:
    """Counts applied, refused and void offsets by partition; holds `rejects` to what the chain refused."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._first: tuple[int, ...] = ()
        self._vector: tuple[int, ...] = ()
        self._counts: Counter[tuple[int, str]] = Counter()
        self._rejects: dict[tuple[int, int], tuple[RejectCode, int]] = {}

    def rejected(self, found: BusRecord) -> None:
        """Note one record of the rejects topic; all of them come before the chain."""
        try:
            reject = Reject.from_bytes(found.value or b"")
        except WireError as error:
            self._book.broken(Invariant.ACCOUNT, f"offset {found.offset} of rejects cannot be read: {error}")
            return
        place, said = (reject.partition, reject.offset), (reject.code, reject.crc)
        if self._rejects.setdefault(place, said) != said:
            self._book.broken(Invariant.ACCOUNT, f"two rejects of {_words(place)} differ")

    def passed(self, record: Record) -> None:
        """Take in one official record."""
        body = record.body
        self._first, self._vector = self._first or body.vector, body.vector
        index = 0
        for run in body.runs:
            if run.kind is not RunKind.DATA:
                self._counts[run.partition, f"void {run.kind.value}"] += run.count
                if run.kind is RunKind.UNREADABLE:
                    for offset in range(run.first, run.first + run.count):
                        self._agree(run.partition, offset, (RejectCode.UNREADABLE, 0))
                continue
            for offset, decision in enumerate(body.decisions[index : index + run.count], run.first):
                self._counts[run.partition, "applied" if decision.accepted else "refused"] += 1
                self._compare(run.partition, offset, decision)
            index += run.count

    def close(self) -> tuple[Mapping[str, int], ...]:
        """The figures of every partition, control last."""
        for place in sorted(self._rejects) if self._vector else ():
            self._book.broken(Invariant.ACCOUNT, f"a reject of {_words(place)} says what the chain does not")
        return tuple(self._row(partition) for partition in range(len(self._vector)))

    def _compare(self, partition: int, offset: int, decision: Decision) -> None:
        self._agree(partition, offset, (decision.code, decision.crc))

    def _agree(self, partition: int, offset: int, decided: tuple[RejectCode | None, int]) -> None:
        said = self._rejects.get((partition, offset))
        if said is not None:
            self._book.saw(Invariant.ACCOUNT, "rejects compared")
            if said == decided:
                del self._rejects[partition, offset]

    def _row(self, partition: int) -> Mapping[str, int]:
        received = self._vector[partition] - self._first[partition]
        kinds = ("applied", "refused", *(f"void {kind.value}" for kind in RunKind if kind is not RunKind.DATA))
        counts = {kind: self._counts[partition, kind] for kind in kinds}
        self._book.saw(Invariant.ACCOUNT, "offsets", received)
        if sum(counts.values()) != received:
            self._book.broken(
                Invariant.ACCOUNT,
                f"partition {partition}: {received} offsets passed, {sum(counts.values())} accounted for",
            )
        return {"partition": partition, "received": received, **counts}


def _words(place: tuple[int, int]) -> str:
    return f"partition {place[0]}, offset {place[1]}"
