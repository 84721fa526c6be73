"""The one rule by which every reader follows the commit chain.

A record is valid if its height is the last one's + 1, its parent is the last one's hash, its runs continue the last
vector without a gap, and it holds at most one server step. The first valid record in log order wins; all others are
ignored. Appending is thus a compare-and-set, and two writers at once can only waste work.
"""

import hashlib
from dataclasses import dataclass

from broker_topics.errors import ConfigError, WireError
from broker_topics.record import ENVELOPE, FORMAT, GENESIS_PARENT, Body, Cause, Decision, Record, RunKind, parse

_REMEMBERED = 64
"""Places in the chain whose winners are known by hash."""


class UnknownFormatError(ConfigError):
    """The next record of the chain is in a format that this release cannot read."""


@dataclass(frozen=True, slots=True)
class ChainPosition:
    """A place in the chain: the log offset, height and hash of one official record."""

    offset: int
    height: int
    hash: bytes


class ChainReader:
    """Follows the chain by the reader's rule, one log record at a time; no I/O of its own.

    Start it with the record to trust (from `head`), or with none to begin at the genesis.
    """

    def __init__(self, last: Record | None = None, offset: int = -1) -> None:
        self.last = last
        self.last_offset = offset
        self._newest: dict[int, bytes] = {last.height: last.hash} if last else {}
        self.missed = False
        """True once a record was seen that only another chain, or one further on, can hold: see whether the last one
        still lies at `last_offset`, and read again from there."""
        self.sent: Record | None = None
        """What its writer knows already: these very bytes need not be read as a record again."""

    def feed(self, offset: int, data: bytes) -> Record | None:
        """The record if it is the chain's next, else None; raises UnknownFormatError rather than skip a winner."""
        if len(data) < ENVELOPE.size:
            return None
        number, height, parent, _, _ = ENVELOPE.unpack_from(data)
        expected, parent_hash = (self.last.height + 1, self.last.hash) if self.last else (0, GENESIS_PARENT)
        if height > expected or (height == expected and parent != parent_hash):
            self.missed = True
        if height != expected or parent != parent_hash:
            return None
        if number != FORMAT:
            raise UnknownFormatError(f"chain record {height} is in format {number}; update Headwater on this machine")
        try:
            record = self.sent if self.sent is not None and data == self.sent.data else parse(data)
        except WireError:
            return None
        if not continues(self.last, record.body):
            return None
        self.last, self.last_offset, self.missed = record, offset, False
        self._newest[height] = record.hash
        self._newest.pop(height - _REMEMBERED, None)
        return record

    def lost_race(self, data: bytes) -> bool:
        """Whether a log record wanted a place in the chain that another record has; for operators, no rule reads it.

        A copy of the official record, sent again in doubt, did not lose. Only the newest places are remembered.
        """
        if len(data) < ENVELOPE.size:
            return False
        winner = self._newest.get(ENVELOPE.unpack_from(data)[1])
        return winner is not None and hashlib.sha256(data).digest() != winner


def continues(last: Record | None, body: Body) -> bool:
    """Whether the runs lead from the last record's vector to this one's without a gap, a decision for every input."""
    if last is None:
        return body.cause is Cause.GENESIS and not body.runs
    vector = list(last.body.vector)
    if len(body.vector) != len(vector) or len(body.steps) > 1:
        return False
    inputs = 0
    for run in body.runs:
        if not 0 <= run.partition < len(vector) or run.count < 1 or run.first != vector[run.partition]:
            return False
        vector[run.partition] += run.count
        inputs += run.count if run.kind is RunKind.DATA else 0
    return tuple(vector) == body.vector and inputs == len(body.decisions)


def settled_in(body: Body, partition: int, offset: int) -> Decision | RunKind | None:
    """The decision on one input, the kind of void run that covers it, or None where this record does not."""
    for run, decisions in body.decided():
        if run.partition == partition and run.first <= offset < run.first + run.count:
            return decisions[offset - run.first] if decisions else run.kind
    return None
