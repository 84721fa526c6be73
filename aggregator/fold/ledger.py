"""What became of each device's last update: one small entry a client, so that nothing ever enters twice.

An entry lives for `REMEMBERED` × max_staleness versions after its device was last heard. A device resends an update in
doubt for max_staleness versions; the rest is for copies that reach the log late, from a broker that was frozen. A copy
that comes later still is refused as stale, since its base is; a device that sent it more than once then gives it up,
because nobody knows any more whether an earlier copy was accepted.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from aggregator.fold.fairness import Habit
from broker_topics import fields
from broker_topics.errors import RejectCode, WireError
from broker_topics.record import Decision
from broker_topics.task import REMEMBERED

MAX_SEQUENCE_JUMP = 1_000_000

NEVER = -1
"""Version at which a device was last accepted if it never was."""

_ROW_TYPES: Final[list[type]] = [str, int, int, str, int, int, int]
_HABIT_TYPES: Final[list[type]] = [int, float, float, int]


@dataclass(slots=True)
class Entry:
    """One device: the last sequence that was judged, its outcome and CRC, and when it was accepted and heard."""

    incarnation: int
    sequence: int
    outcome: str
    crc: int
    accepted_version: int
    heard_version: int
    habit: Habit | None


class Ledger:
    """All devices that were heard lately, least recently heard first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, client_id: str) -> Entry | None:
        """The entry of a device; None if it was never heard, or not for long."""
        return self._entries.get(client_id)

    def entries(self) -> list[Entry]:
        """Every entry as it is now, least recently heard first; may be called from another thread."""
        return list(self._entries.values())

    def named(self) -> Iterator[tuple[str, Entry]]:
        """Every device with its entry, least recently heard first."""
        return iter(self._entries.items())

    def judge(self, *, client_id: str, incarnation: int, sequence: int, crc: int) -> Decision | None:
        """Refuse what was judged before or is out of order; None lets it pass.

        A smaller incarnation is `retired`; the last sequence again is a `duplicate` if its bytes are equal, else a
        `conflict`; an older one is `passed`; one more than a million ahead is a `sequence_jump`. None of these changes
        an entry.
        """
        entry = self._entries.get(client_id)
        if entry is None:
            return None
        if incarnation < entry.incarnation:
            return Decision(crc, 0.0, RejectCode.RETIRED, "", entry.incarnation)
        last = 0
        if incarnation == entry.incarnation:
            last = entry.sequence
            if sequence == last and crc == entry.crc:
                return Decision(crc, 0.0, RejectCode.DUPLICATE, entry.outcome)
            if sequence <= last:
                code = RejectCode.CONFLICT if sequence == last else RejectCode.PASSED
                return Decision(crc, 0.0, code, "", entry.incarnation)
        if sequence - last > MAX_SEQUENCE_JUMP:
            return Decision(crc, 0.0, RejectCode.SEQUENCE_JUMP)
        return None

    def settle(
        self, *, client_id: str, incarnation: int, sequence: int, decision: Decision, version: int, habit: Habit | None
    ) -> None:
        """Note a final decision; `habit` is the device's after it was accepted, None leaves the known one."""
        entry = self._entries.get(client_id)
        if entry is None:
            entry = self._entries[client_id] = Entry(0, 0, "", 0, NEVER, 0, None)
        else:
            self._entries.move_to_end(client_id)
        entry.incarnation, entry.sequence = incarnation, sequence
        entry.outcome, entry.crc, entry.heard_version = decision.outcome, decision.crc, version
        if habit is not None:
            entry.accepted_version, entry.habit = version, habit

    def evict(self, *, version: int, max_staleness: int) -> Iterator[Entry]:
        """Forget devices not heard for longer than an entry lives; yields what is forgotten."""
        oldest = version - REMEMBERED * max_staleness
        while self._entries and next(iter(self._entries.values())).heard_version < oldest:
            yield self._entries.popitem(last=False)[1]

    def rows(self) -> Iterator[list[Any]]:
        """One row an entry, by client id: equal ledgers give equal rows."""
        for client_id in sorted(self._entries):
            entry = self._entries[client_id]
            habit = entry.habit
            yield [
                client_id,
                entry.incarnation,
                entry.sequence,
                entry.outcome,
                entry.crc,
                entry.accepted_version,
                entry.heard_version,
                None if habit is None else [habit.last_arrival, habit.gap, habit.freshness, habit.share],
            ]

    @classmethod
    def from_rows(cls, rows: Iterable[object]) -> "Ledger":
        """Read what `rows` gave; raises WireError (malformed) on anything else."""
        read = [_entry(row) for row in rows]
        read.sort(key=lambda pair: pair[1].heard_version)
        ledger = cls()
        ledger._entries.update(read)
        if len(ledger) != len(read):
            raise WireError(RejectCode.MALFORMED, "a client has two ledger entries")
        return ledger


def _entry(row: object) -> tuple[str, Entry]:
    """One row read: exact types by two comparisons, as a large fleet's rows are read while nobody leads."""
    if type(row) is not list or len(row) != len(_ROW_TYPES) + 1:
        raise fields.malformed("a ledger entry cannot be read")
    *own, habit = row
    name, incarnation, sequence, outcome, crc, accepted, heard = fields.typed(own, _ROW_TYPES)
    return name, Entry(incarnation, sequence, outcome, crc, accepted, heard, _habit(habit))


def _habit(row: object) -> Habit | None:
    if row is None:
        return None
    if type(row) is not list:
        raise fields.malformed("a device's habit in a keyframe cannot be read")
    return Habit(*fields.typed(row, _HABIT_TYPES))
