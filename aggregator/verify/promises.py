"""I4: what producers were told and what devices hold, against the chain; no I/O."""

from collections import defaultdict

from aggregator.verify.evidence import Acknowledged, Evidence, Settled
from aggregator.verify.verdict import Book, Invariant
from broker_topics.bus import BusRecord
from broker_topics.frames import frame_crc
from broker_topics.partitions import partition_of
from broker_topics.record import Decision, Run, RunKind


class Promises:
    """Compares evidence with decisions as they come by.

    Args:  updates: partitions of the updates topic. at_rest: nothing that was acknowledged may still wait.
    """

    def __init__(self, book: Book, evidence: Evidence, *, updates: int, at_rest: bool) -> None:
        self._book, self._at_rest = book, at_rest
        self._acknowledged: defaultdict[tuple[int, int], list[Acknowledged]] = defaultdict(list)
        for told in evidence.acknowledged:
            self._acknowledged[told.partition, told.offset].append(told)
        self._settled: defaultdict[tuple[int, int], list[Settled]] = defaultdict(list)
        for held in evidence.settled:
            self._settled[partition_of(held.client_id.encode(), updates), held.crc].append(held)
        self._accepted: set[tuple[int, int]] = set()

    def decided(self, partition: int, offset: int, decision: Decision) -> None:
        """The chain decided on one input."""
        for told in self._acknowledged.pop((partition, offset), ()):
            self._book.saw(Invariant.SETTLED, "acknowledged and settled")
            if told.crc != decision.crc:
                self._book.broken(Invariant.SETTLED, f"{_words(told)} was acknowledged, but another was judged there")
        key = partition, decision.crc
        if decision.accepted and key in self._settled:
            self._accepted.add(key)

    def void(self, run: Run) -> None:
        """The chain passed over some offsets."""
        inside = [place for place in self._acknowledged if place[0] == run.partition]
        for place in inside:
            if not run.first <= place[1] < run.first + run.count:
                continue
            for told in self._acknowledged.pop(place):
                self._book.saw(Invariant.SETTLED, f"acknowledged, then void {run.kind.value}")
                if run.kind is RunKind.CONTROL:
                    self._book.broken(Invariant.SETTLED, f"{_words(told)} was acknowledged, but nothing is there")

    def waits(self, partition: int, offset: int, found: BusRecord | None) -> None:
        """An offset behind the chain's vector; None where nothing lies there."""
        for told in self._acknowledged.pop((partition, offset), ()):
            if found is None or not found.readable or frame_crc(found.value or b"") != told.crc:
                self._book.broken(Invariant.SETTLED, f"{_words(told)} was acknowledged and is gone", gone=True)
        if found is None:
            return
        self._book.saw(Invariant.SETTLED, "inputs that wait")
        if self._at_rest:
            self._book.broken(
                Invariant.SETTLED, f"partition {partition}, offset {offset} was acknowledged and never settled"
            )

    def close(self) -> None:
        """No more is to come."""
        for told in [told for there in self._acknowledged.values() for told in there]:
            self._book.broken(Invariant.SETTLED, f"{_words(told)} was acknowledged and is gone", gone=True)
        for key, holders in self._settled.items():
            for held in holders:
                self._book.saw(Invariant.SETTLED, f"held as {held.outcome}")
                if held.outcome == "accepted" and key not in self._accepted:
                    self._book.broken(Invariant.SETTLED, f"{_words(held)} is held as accepted, the chain has it not")
                if held.outcome == "given_back" and key in self._accepted:
                    self._book.broken(Invariant.SETTLED, f"{_words(held)} was taken back, though the chain accepted it")


def _words(one: Acknowledged | Settled) -> str:
    return f"{one.client_id!r}, incarnation {one.incarnation}, sequence {one.sequence}"
