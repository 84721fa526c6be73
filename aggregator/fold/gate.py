"""Judges one input, in a fixed order: identity, then sequence, then everything else. Nothing is changed here.

size → frame and CRC → task → identity → incarnation and sequence → layout → version window → base → separation →
payload (lengths, decompression, values, finite) → norm.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aggregator.fold.state import FoldState
from broker_topics.codecs import Decoded, Encoded
from broker_topics.errors import RejectCode, WireError
from broker_topics.frames import FrameKind, frame_crc, unpack
from broker_topics.messages import Update
from broker_topics.partitions import partition_of
from broker_topics.record import Decision

Decode = Callable[[Encoded], Decoded]
"""Reads an update's payload, or raises WireError: `broker_topics.codecs.decode`, perhaps with a watch on it."""

LARGEST_PUSH = 1e30
"""Largest norm · w_max of an update: ten thousand of them still add up within float32."""

SETTLING = frozenset(
    {
        RejectCode.UNKNOWN_LAYOUT,
        RejectCode.STALE,
        RejectCode.FUTURE_VERSION,
        RejectCode.UNKNOWN_BASE,
        RejectCode.TOO_SOON,
        RejectCode.BAD_PAYLOAD,
        RejectCode.NON_FINITE,
        RejectCode.NORM,
    }
)
"""Refusals that come after identity and sequence, hence advance the ledger; no earlier check gives one of these."""


class Passed(NamedTuple):
    """An update that passed every check, ready to be added with a weight."""

    update: Update
    decoded: Decoded
    crc: int
    staleness: int


class Refused(NamedTuple):
    """A refusal; `update` is None where identity was not established."""

    decision: Decision
    update: Update | None = None


def judge(
    state: FoldState, decode: Decode, *, task: str, weight_limit: float, partition: int, key: bytes | None, data: bytes
) -> Passed | Refused:
    """Take one input through all checks.

    Args:    decode: reads a payload. weight_limit: w_max of the rule. key, data: of the record; data may be anything.
    """
    try:
        frame = unpack(data, expect=FrameKind.UPDATE, max_bytes=state.settings.max_update_bytes)
        update, crc = Update.from_frame(frame), frame.crc
    except WireError as error:
        return Refused(Decision(frame_crc(data), 0.0, error.code))
    if update.task != task:
        return Refused(Decision(crc, 0.0, RejectCode.WRONG_TASK))
    if not _is_own(update, key, partition, state.vector):
        return Refused(Decision(crc, 0.0, RejectCode.IDENTITY))
    known = state.ledger.judge(
        client_id=update.client_id, incarnation=update.incarnation, sequence=update.sequence, crc=crc
    )
    if known is not None:
        return Refused(known, update)
    code = _misfit(update, state)
    if code is not None:
        return Refused(Decision(crc, 0.0, code), update)
    try:
        decoded = decode(update.encoded)
    except WireError as error:
        code = RejectCode.NON_FINITE if error.code is RejectCode.NON_FINITE else RejectCode.BAD_PAYLOAD
        return Refused(Decision(crc, 0.0, code), update)
    if not _within(decoded.norm, state.settings.max_update_norm, weight_limit):
        return Refused(Decision(crc, 0.0, RejectCode.NORM), update)
    return Passed(update, decoded, crc, state.model.version - update.base_version)


def _is_own(update: Update, key: bytes | None, partition: int, vector: Sequence[int]) -> bool:
    """The record's key is the client id, and it lies where that key belongs."""
    if key is None or key != update.client_id.encode():
        return False
    return partition_of(key, len(vector) - 1) == partition


def _misfit(update: Update, state: FoldState) -> RejectCode | None:
    """Why an update cannot be added to this model at this version, if it cannot."""
    if update.layout != state.layout.fingerprint or update.encoded.size != state.layout.size:
        return RejectCode.UNKNOWN_LAYOUT
    staleness = state.model.version - update.base_version
    if staleness < 0:
        return RejectCode.FUTURE_VERSION
    if staleness > state.max_staleness:
        return RejectCode.STALE
    if state.bases.get(update.base_version) != update.base_hash:
        return RejectCode.UNKNOWN_BASE
    entry = state.ledger.get(update.client_id)
    if entry is not None and 0 <= entry.accepted_version > state.model.version - state.settings.min_separation:
        return RejectCode.TOO_SOON
    return None


def _within(norm: float, limit: float, weight_limit: float) -> bool:
    if limit and norm > limit:
        return False
    return norm * weight_limit <= LARGEST_PUSH
