"""What the chain's decision on an update means to the device that sent it."""

from dataclasses import replace
from enum import Enum

from broker_topics.chain import settled_in
from broker_topics.errors import RejectCode
from broker_topics.record import Body, Decision
from broker_topics.task import TaskSettings
from worker.events import Moment, Trained
from worker.residual import give_back, total_of
from worker.state import DeviceState, Queued, Row, Tally

ACCEPTED = "accepted"

FORGOTTEN = "forgotten"
"""What was sent more than once and is stale beyond all memory: an earlier copy may be in the model."""

GIVEN_BACK = frozenset({RejectCode.STALE, RejectCode.UNKNOWN_BASE, RejectCode.FUTURE_VERSION, RejectCode.CONFLICT})
"""Refusals whose work returns to the residual; all others would grow without end there, or count twice."""

RENEWING = frozenset({RejectCode.CONFLICT, RejectCode.PASSED, RejectCode.RETIRED, RejectCode.SEQUENCE_JUMP})
"""Refusals that tell of a copied or restored outbox: the device takes a new incarnation."""

STALE_LIMIT = 2
CLOCK_SET_S = 60.0
"""A wall clock that leaps this far against the one that never does was set, or the device slept."""

_SMALLEST_SHARE = 1 / 64
_RECOVERY = 1.25


class Doubt(Enum):
    """The log holds something else, or nothing, where the row should lie."""

    VOID = "the log holds nothing where the update was"
    OTHER = "the log holds another record where the update was"


def judged(body: Body, row: Row) -> Decision | Doubt | None:
    """What one official record says of a sent row; None where it says nothing."""
    if row.partition is None or row.offset is None:
        return None
    found = settled_in(body, row.partition, row.offset)
    if found is None or (isinstance(found, Decision) and found.crc == row.crc):
        return found if isinstance(found, Decision) else None
    return Doubt.OTHER if isinstance(found, Decision) else Doubt.VOID


def settle(state: DeviceState, row: Row, outcome: str, incarnation: int = 0) -> DeviceState:
    """The state once the fate of its row is known.

    Args:    outcome: `accepted`, a reject code, or a reason of the device's own for giving up.
             incarnation: the current one in the ledger, where the decision names it.
    """
    state = replace(state, row=None)
    if outcome == ACCEPTED:
        tally = replace(
            state.tally,
            accepted=state.tally.accepted + row.work,
            updates_accepted=state.tally.updates_accepted + 1,
        )
        return replace(state, tally=tally, stale_in_a_row=0, share=min(1.0, state.share * _RECOVERY))
    if outcome in GIVEN_BACK:
        tally = replace(state.tally, updates_given_back=state.tally.updates_given_back + 1)
        state = replace(state, residual=give_back(state.residual, row), carry=state.carry + row.work, tally=tally)
    else:
        state = replace(state, tally=_discarded(state.tally, row.work))
    if outcome == RejectCode.STALE:
        state = _shorten(state)
    if outcome in RENEWING and row.incarnation == state.incarnation:
        state = replace(state, incarnation=max(state.incarnation, incarnation) + 1, sequence=0)
    return state


def add_training(state: DeviceState, trained: Trained, wall_s: float) -> DeviceState:
    """The state with one more training in its queued work."""
    old = state.queued
    queued = Queued(
        base=trained.base,
        local=trained.local,
        work=(old.work if old else 0) + 1,
        steps=(old.steps if old else 0) + trained.num_steps,
        pull=(old.pull if old else 0.0) + trained.pull,
        num_examples=trained.num_examples,
        since_s=old.since_s if old else wall_s,
    )
    return replace(state, queued=queued, tally=replace(state.tally, trained=state.tally.trained + 1))


def fold_back(state: DeviceState, queued: Queued, settings: TaskSettings) -> DeviceState:
    """The state with its queued work in the residual, from where the next update takes it along.

    Raises:  NonFiniteError.
    """
    residual = total_of(queued, state.residual, settings)
    return replace(state, queued=None, residual=residual, carry=state.carry + queued.work)


def redated(state: DeviceState, before: Moment, now: Moment) -> DeviceState:
    """The state at a later moment; where the wall clock was set meanwhile, what waits is dated along and is no older.

    Devices without a battery begin in 1970 and learn the time later. The first moment of a process tells nothing.
    """
    row, queued = state.row, state.queued
    set_by_s = (now.wall_s - before.wall_s) - (now.now_s - before.now_s)
    if before == Moment(0.0, 0.0) or abs(set_by_s) < CLOCK_SET_S:
        return state
    return replace(
        state,
        row=replace(row, since_s=row.since_s + set_by_s) if row else None,
        queued=replace(queued, since_s=queued.since_s + set_by_s) if queued else None,
    )


def drop_queued(state: DeviceState, queued: Queued) -> DeviceState:
    """The state without its queued work, which is counted as discarded."""
    return replace(state, queued=None, tally=_discarded(state.tally, queued.work))


def _shorten(state: DeviceState) -> DeviceState:
    """After two stale updates in a row a device trains half as long, so that the next one is fresher."""
    in_a_row = state.stale_in_a_row + 1
    if in_a_row < STALE_LIMIT:
        return replace(state, stale_in_a_row=in_a_row)
    return replace(state, stale_in_a_row=0, share=max(_SMALLEST_SHARE, state.share / 2))


def _discarded(tally: Tally, work: float) -> Tally:
    return replace(tally, discarded=tally.discarded + work, updates_discarded=tally.updates_discarded + 1)
