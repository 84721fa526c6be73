"""The account at the end of a run: what devices believe and what the model holds, against what the chain says."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aggregator.verify import Acknowledged, Evidence, Seen, Settled
from broker_topics.record import RunKind
from tests.simulation.devices import SIZE, Watch, mass_of
from tests.simulation.history import History, inputs_of
from worker.state import Row


@dataclass(slots=True)
class Account:
    """I4 for every device, and the mass of the model.

    cut: places of inputs that a power cut took. accepted: version at which each update, by CRC, entered the model.
    left_out: those of which a copy was cut, so that an operator may have left it out and its device may have it again.
    """

    history: History
    watches: Sequence[Watch]
    made: Mapping[int, bytes]
    complain: Callable[[str], None]
    cut: Collection[tuple[int, int]] = ()
    accepted: dict[int, int] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)
    weights: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.history.chain:
            return
        control = len(self.history.vector) - 1
        for one in inputs_of(self.history, {}):
            crc, body = one.decision.crc, self.history.chain[one.height].body
            if (one.partition, one.offset) in self.cut:
                self.left_out.add(crc)
            if one.decision.accepted and one.partition != control:
                self.accepted[crc] = body.version
                self.weights[crc] = one.decision.weight

    def check_devices(self, *, lost_outboxes: bool) -> None:
        """What is in the chain was settled by a device, and never given back; the checker has asked the rest.

        Args:  lost_outboxes: an older outbox was put back somewhere, whose device no longer knows what it once did.
        """
        for watch in self.watches:
            for row, outcome in watch.outbox.settled:
                if outcome == "given_back" and row.crc in self.accepted.keys() - self.left_out:
                    self.complain(f"I4: {watch.client_id} took an update back that the chain accepted")
        known = {row.crc for watch in self.watches for row, _ in watch.outbox.settled}
        states = [watch.outbox.state for watch in self.watches]
        known |= {state.row.crc for state in states if state is not None and state.row is not None}
        if not lost_outboxes and (nobodys := self.accepted.keys() - known):
            self.complain(f"I4: {len(nobodys)} accepted updates are remembered by no device")

    def check_mass(self, buffer_size: int) -> None:
        """The model is the sum of what was accepted, to the last bit; only where all numbers are exact."""
        total = sum((mass_of(self.made[crc]) * weight for crc, weight in self.weights.items()), np.zeros(SIZE))
        if self.history.x is not None and (off := np.abs(total / buffer_size - self.history.x).max()) > 0:
            self.complain(f"mass: the model holds {off} more or less than was accepted")


def happened(history: History) -> Counter[str]:
    """What the chain tells of a run, counted."""
    counts = Counter({"records": len(history.chain), "replayed keyframes": history.segments})
    for record in history.chain:
        for decision in record.body.decisions:
            counts[decision.code.value if decision.code else "accepted"] += 1
        for run in record.body.runs:
            if run.kind is not RunKind.DATA:
                counts[f"void {run.kind.value}"] += run.count
    return counts


def collected(
    watches: Sequence[Watch], seen: Sequence[tuple[int, bytes]], cut: Collection[tuple[int, int]]
) -> Evidence:
    """What devices were told and hold, and what readers saw; of what a power cut took nothing is asked."""
    items: list[Acknowledged | Settled | Seen] = []
    for watch in watches:
        for row in watch.outbox.acknowledged:
            if row.partition is not None and row.offset is not None and (row.partition, row.offset) not in cut:
                items.append(
                    Acknowledged(**_name(watch, row), partition=row.partition, offset=row.offset)  # type: ignore[arg-type]
                )
        for row, outcome in watch.outbox.settled:
            if outcome == "accepted" or not cut:
                items.append(Settled(**_name(watch, row), outcome=outcome))  # type: ignore[arg-type]
    places = {*seen, *(place for watch in watches for place in watch.outbox.seen)}
    items += [Seen(reader="a reader", height=height, hash=digest.hex()) for height, digest in sorted(places)]
    return Evidence.of(items)


def _name(watch: Watch, row: Row) -> dict[str, str | int]:
    return {"client_id": watch.client_id, "incarnation": row.incarnation, "sequence": row.sequence, "crc": row.crc}
