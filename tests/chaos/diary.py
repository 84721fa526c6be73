"""What devices told of themselves in their logs, as evidence for the checker, and what they left in the log."""

from collections.abc import Iterable, Iterator
from typing import Any

from aggregator.verify import Acknowledged, Settled
from broker_topics.messages import Update
from tests.kafka.support import Role
from tests.simulation.history import History
from worker.settling import ACCEPTED, GIVEN_BACK


def told_by(roles: Iterable[Role]) -> Iterator[Acknowledged | Settled]:
    """Every update that the log took and every fate that was stored, of roles that log from `debug` on."""
    for role in roles:
        if role.name == "worker":
            for line in role.lines():
                match line.get("event"):
                    case "update_sent":
                        yield Acknowledged(**_names(line), partition=line["partition"], offset=line["offset"])
                    case "update_settled":
                        yield Settled(**_names(line), outcome=_fate(line["outcome"]))


def _names(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("client_id", "incarnation", "sequence", "crc")}


def _fate(outcome: str) -> str:
    if outcome == ACCEPTED:
        return "accepted"
    return "given_back" if outcome in GIVEN_BACK else "discarded"


def updates_of(history: History) -> dict[str, list[Update]]:
    """What lies in the log, by device, in log order."""
    found: dict[str, list[Update]] = {}
    control = len(history.vector) - 1
    for (partition, _), record in sorted(history.inputs.items()):
        if partition != control:
            update = Update.from_bytes(record.value or b"")
            found.setdefault(update.client_id, []).append(update)
    return found


def assert_sequences_continue(history: History, *devices: str) -> None:
    """No restart was taken for a copy of the outbox, and no sequence number was skipped."""
    assert_no_copy_was_suspected(history, *devices)
    updates = updates_of(history)
    for device in devices:
        sequences = {update.sequence for update in updates[device]}
        assert sequences == set(range(1, max(sequences) + 1)), device


def assert_no_copy_was_suspected(history: History, *devices: str) -> None:
    """No device that was killed had forgotten what it sent, and took a new incarnation for it."""
    updates = updates_of(history)
    assert set(devices) <= set(updates)
    for device in devices:
        assert {update.incarnation for update in updates[device]} == {1}, f"{device} took a new incarnation"
