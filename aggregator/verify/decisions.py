"""I1, I4, I5 and I6: what the chain decided on each input, against what lies there; no I/O."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aggregator.fold.gate import SETTLING
from aggregator.verify.account import Account
from aggregator.verify.promises import Promises
from aggregator.verify.verdict import Book, Invariant
from broker_topics.bus import BusRecord
from broker_topics.errors import WireError
from broker_topics.frames import frame_crc
from broker_topics.messages import Update
from broker_topics.record import Cause, Decision, Record, Run, RunKind
from broker_topics.task import REMEMBERED

Place = tuple[int, int]
"""Partition, control being the last one, and offset."""

Found = Mapping[Place, BusRecord]
"""What lies in the log at the places that a record names, as far as anything does."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input that the chain decided on; `data` is its frame, None where nobody has it any more."""

    partition: int
    offset: int
    decision: Decision
    data: bytes | None


class Decisions:
    """Takes the official records in order, each with what lies at the places that it names.

    Args:  starts: the oldest offset still there of every partition. promises: what others were told.
           known: frames by CRC, for inputs that the log no longer has. excused: places whose inputs were destroyed.
    """

    def __init__(
        self,
        book: Book,
        account: Account,
        promises: Promises,
        *,
        starts: Sequence[int],
        known: Mapping[int, bytes],
        excused: frozenset[Place] = frozenset(),
    ) -> None:
        self._book, self._account, self._promises = book, account, promises
        self._starts, self._known, self._excused = starts, known, excused
        self._last: Record | None = None
        self._bases: dict[int, bytes] = {}
        self._taken: dict[int, int] = {}
        self._contents: set[int] = set()
        self._refused: set[int] = set()
        self._changed: list[str] = []

    def feed(self, record: Record, found: Found) -> None:
        """Check one official record."""
        last = self._last
        if record.body.cause is Cause.REPAIR:
            self._book.saw(Invariant.ACCOUNT, "inputs given up by an operator", len(self._changed))
            self._changed.clear()
        for run in record.body.runs:
            if run.kind is not RunKind.DATA:
                self._void(run, found)
        if last is not None:
            for one in inputs_of(record, found, self._known):
                self._check(record, last, one, found.get((one.partition, one.offset)))
        self._bases.setdefault(record.body.version, record.body.base_hash)
        self._account.passed(record)
        self._last = record

    def close(self) -> None:
        """No more is to come: inputs that no operator has given up since must be what was decided on."""
        for what in self._changed:
            self._book.broken(Invariant.ACCOUNT, what, gone=True)

    def _void(self, run: Run, found: Found) -> None:
        """I6: what was passed over held nothing that can be read."""
        self._promises.void(run)
        for offset in range(max(run.first, self._starts[run.partition]), run.first + run.count):
            there = found.get((run.partition, offset)) if (run.partition, offset) not in self._excused else None
            if there is not None and (there.readable or run.kind is not RunKind.UNREADABLE):
                self._book.broken(
                    Invariant.ACCOUNT, f"partition {run.partition}, offset {offset} was passed over, but can be read"
                )

    def _check(self, record: Record, last: Record, one: Input, there: BusRecord | None) -> None:
        is_there = self._check_place(one, there)
        self._promises.decided(one.partition, one.offset, one.decision)
        if not is_there:
            return  # gone: an operator may have left it out, and its device may have sent it again
        if one.partition == len(record.body.vector) - 1 or (not one.decision.accepted and one.data is None):
            return
        if one.data is None:
            self._book.saw(Invariant.ONCE, "accepted, beyond retention")
            return
        settling = one.decision.code in SETTLING
        if not one.decision.accepted and not settling:
            return
        try:
            update = Update.from_bytes(one.data)
        except WireError as error:
            self._book.broken(Invariant.ONCE, f"{_at(one)} was accepted, but cannot be read: {error}")
            return
        if settling:
            self._refused.add(_name(update, one.decision.crc))
            return
        self._check_once(record, last, one, update)
        self._check_staleness(record, last, update)

    def _check_place(self, one: Input, there: BusRecord | None) -> bool:
        """I6: the very input that was decided on lies where the chain says, or retention took it."""
        if (one.partition, one.offset) in self._excused:
            return False
        if there is None:
            if one.offset < self._starts[one.partition]:
                return True
            self._changed.append(f"{_at(one)} was decided on, but holds nothing")
            return False
        self._book.saw(Invariant.ACCOUNT, "inputs read again")
        if not there.readable or frame_crc(there.value or b"") != one.decision.crc:
            self._changed.append(f"{_at(one)} holds another input than decided on")
            return False
        return True

    def _check_once(self, record: Record, last: Record, one: Input, update: Update) -> None:
        """I1: once by content, once by name as long as the ledger remembers it, never after a final refusal."""
        book, body = self._book, record.body
        book.saw(Invariant.ONCE, "accepted updates")
        label = f"{update.client_id!r}, incarnation {update.incarnation}, sequence {update.sequence}"
        content, name = _name(update, one.decision.crc), _name(update)
        if content in self._contents:
            book.broken(Invariant.ONCE, f"{label}: the same update was accepted twice, at last at {_at(one)}")
        elif name in self._taken:
            # A device silent for longer than the ledger remembers may be installed anew and count from the beginning.
            remembered = REMEMBERED * min(body.max_staleness, last.body.max_staleness)
            if body.version - self._taken[name] <= remembered:
                book.broken(Invariant.ONCE, f"{label}: two updates were accepted under this name")
        if content in self._refused:
            book.broken(Invariant.ONCE, f"{label}: refused for good and then accepted, at {_at(one)}")
        self._contents.add(content)
        self._taken[name] = body.version

    def _check_staleness(self, record: Record, last: Record, update: Update) -> None:
        """I5: against the version that the update was added to, from a base that the chain names."""
        staleness = last.body.version - update.base_version
        self._book.saw(Invariant.STALENESS, "accepted updates")
        if not 0 <= staleness <= last.body.max_staleness:
            self._book.broken(
                Invariant.STALENESS,
                f"height {record.height} applies an update {staleness} versions old, {last.body.max_staleness} allowed",
            )
        if self._bases.get(update.base_version) != update.base_hash:
            self._book.broken(
                Invariant.STALENESS, f"height {record.height} applies an update from a base that never was"
            )


def inputs_of(record: Record, found: Found, known: Mapping[int, bytes]) -> Iterator[Input]:
    """Every input that a record decided on, in its order."""
    for run, decisions in record.body.decided():
        for offset, decision in enumerate(decisions, run.first):
            there = found.get((run.partition, offset))
            data = there.value or b"" if there is not None and there.readable else None
            if data is None or frame_crc(data) != decision.crc:
                data = known.get(decision.crc)
            yield Input(run.partition, offset, decision, data)


def _at(one: Input) -> str:
    return f"partition {one.partition}, offset {one.offset}"


def _name(update: Update, crc: int | None = None) -> int:
    """64 bits for one (client, incarnation, sequence), or for one content under that name: a fleet has millions."""
    text = f"{update.incarnation}/{update.sequence}/{crc}/{update.client_id}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
