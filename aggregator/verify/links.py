"""I2 and I9: the reader's rule, written down a second time so that an error in the first shows; no I/O."""

from collections import defaultdict
from collections.abc import Iterable

from aggregator.verify.evidence import Seen
from aggregator.verify.verdict import Book, Invariant
from broker_topics.chain import ChainReader
from broker_topics.errors import WireError
from broker_topics.messages import Head
from broker_topics.record import Record, RunKind, parse


class Links:
    """Takes the log of commits, one record after the other; gives the official ones back.

    Args:  seen: what readers took for official. head: what the models topic names as the newest keyframe.
    """

    def __init__(self, book: Book, *, seen: Iterable[Seen] = (), head: Head | None = None) -> None:
        self.last: Record | None = None
        self._book, self._head = book, head
        self._head_found = False
        self._reader = ChainReader()
        self._seen: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
        self._check_forward(seen)

    def feed(self, offset: int, data: bytes) -> Record | None:
        """The record, if it is the first valid one of its height; raises UnknownFormatError as every reader does."""
        product = self._reader.feed(offset, data)
        try:
            record: Record | None = parse(data)
        except WireError:
            record = None
        if record is not None and not follows(self.last, record):
            record = None
        if (record and record.hash) != (product and product.hash):
            height = record.height if record else product.height if product else -1
            self._book.broken(Invariant.CHAIN, f"offset {offset}: readers disagree on what record {height} is")
        if record is None:
            return None
        self._check_record(record)
        self._check_pointers(offset, record)
        self.last = record
        return record

    def close(self, end: int) -> None:
        """No more is to come; `end` is where reading the log ended."""
        book = self._book
        if self.last is None:
            book.broken(Invariant.CHAIN, "the chain has no beginning", gone=True)
        for height, sightings in sorted(self._seen.items()):
            for reader, digest in sorted(sightings):
                book.broken(
                    Invariant.CHAIN,
                    f"{reader} saw {digest[:12]} at height {height}, where the chain has no such record",
                )
        if self._head is not None and self._head.offset < end and not self._head_found:
            book.notes.append("`head` names no official keyframe: readers go through the chain from its beginning")

    def _check_record(self, record: Record) -> None:
        book, body = self._book, record.body
        book.saw(Invariant.CHAIN, "records")
        book.saw(Invariant.FORWARD, "records")
        if self.last is None:
            return
        last = self.last.body
        if body.version < last.version:
            book.broken(Invariant.FORWARD, f"height {record.height} goes from version {last.version} to {body.version}")
        if body.version != last.version + len(body.steps):
            book.broken(Invariant.CHAIN, f"height {record.height} makes version {last.version} into {body.version}")
        if not body.steps and (body.state_hash, body.hidden_hash) != (last.state_hash, last.hidden_hash):
            book.broken(Invariant.CHAIN, f"height {record.height} moves the model without a step")
        if not body.runs and not body.keyframe:
            book.broken(Invariant.CHAIN, f"height {record.height} consumes nothing")
        control, taken = len(body.vector) - 1, sum(step.inputs for step in body.steps)
        if taken != _accepted(record, control):
            book.broken(
                Invariant.CHAIN, f"height {record.height}: the step takes another number of updates than was accepted"
            )

    def _check_pointers(self, offset: int, record: Record) -> None:
        digest = record.hash.hex()
        sightings = self._seen.pop(record.height, set())
        wrong = {(reader, other) for reader, other in sightings if other != digest}
        self._book.saw(Invariant.CHAIN, "sightings", len(sightings))
        if wrong:
            self._seen[record.height] = wrong  # told at the end, all together
        head = self._head
        if head is None or head.record_hash != record.hash:
            return
        self._head_found = head.offset == offset and record.body.keyframe
        if not record.body.keyframe:
            self._book.broken(Invariant.CHAIN, f"head names height {record.height}, which is no keyframe")

    def _check_forward(self, seen: Iterable[Seen]) -> None:
        """No reader ever went back, and all followed this chain."""
        stands: dict[str, Seen] = {}
        for one in seen:
            before = stands.get(one.reader)
            if before is not None and (one.height < before.height or one.version < before.version):
                self._book.broken(
                    Invariant.FORWARD,
                    f"{one.reader} was at height {before.height}, version {before.version}, and then at height "
                    f"{one.height}, version {one.version}",
                )
            stands[one.reader] = one
            self._seen[one.height].add((one.reader, one.hash))
            self._book.saw(Invariant.FORWARD, "sightings")


def follows(last: Record | None, record: Record) -> bool:
    """Whether a record continues the chain: height, parent, runs without a gap, a decision for each input."""
    body = record.body
    if last is None:
        return record.height == 0 and record.parent == bytes(32) and not body.runs and body.cause.value == "genesis"
    expected = list(last.body.vector)
    for run in body.runs:
        if run.partition >= len(expected) or run.first != expected[run.partition] or run.count < 1:
            return False
        expected[run.partition] += run.count
    data = sum(run.count for run in body.runs if run.kind is RunKind.DATA)
    return (
        record.height == last.height + 1
        and record.parent == last.hash
        and tuple(expected) == body.vector
        and len(body.decisions) == data
        and len(body.steps) <= 1
    )


def _accepted(record: Record, control: int) -> int:
    index = count = 0
    for run in record.body.runs:
        if run.kind is RunKind.DATA:
            decisions = record.body.decisions[index : index + run.count]
            index += run.count
            count += sum(decision.accepted for decision in decisions) if run.partition != control else 0
    return count
