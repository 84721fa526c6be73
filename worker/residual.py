"""Error feedback: what goes into a record, what stays behind, and what comes back when a record is refused.

acc = fl32(Δ + e), m = C(acc), e ← acc − decoded(m); a refused m returns to e, so that no work is lost.
"""

from dataclasses import replace

import numpy as np

from broker_topics.codecs import CodecId, decode, dense_segments, encode_with_residual
from broker_topics.errors import InvariantError, WireError
from broker_topics.frames import frame_crc
from broker_topics.layout import Layout, Vector
from broker_topics.messages import Update, payload_limit
from broker_topics.task import TaskSettings
from worker.state import DeviceState, Queued, Row

CODEC_IDS = {
    "float32": CodecId.FLOAT32,
    "bfloat16": CodecId.BFLOAT16,
    "int8": CodecId.INT8,
    "sparse": CodecId.SPARSE,
}


class NonFiniteError(Exception):
    """Work that is not finite; it must not touch the residual."""


def total_of(queued: Queued, residual: Vector, settings: TaskSettings) -> Vector:
    """fl32(Δ · a_ref · work / ‖a‖₁ + e): the queued work, counted as reference trainings, on top of the residual.

    Returns: float32[P], newly allocated.
    Raises:  NonFiniteError: checked before the sum and after it.
    Source:  FedNova, arXiv:2007.07481; error feedback, arXiv:1809.07599.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        delta: Vector = queued.local - queued.base.vector
        if settings.reference_steps and queued.pull:
            delta *= np.float32(settings.reference_steps * queued.work / queued.pull)
        if not is_finite(delta):
            raise NonFiniteError
        delta += residual
    if not is_finite(delta):
        raise NonFiniteError
    return delta


def pack(
    state: DeviceState, queued: Queued, *, task: str, client_id: str, layout: Layout, settings: TaskSettings
) -> tuple[DeviceState, Row]:
    """Make the next record from the queued work and the residual.

    Returns: the state with the row in it, nothing queued, and the new residual; and the row, whose sequence is one
             above the old state's. decoded + residual = total, exactly.
    Raises:  NonFiniteError.  ConfigError: the task's codec cannot fit this layout into an update.
    """
    total = total_of(queued, state.residual, settings)
    encoded, residual = encode_with_residual(
        total,
        CODEC_IDS[settings.codec],
        density=settings.density,
        dense=dense_segments(layout, settings.dense_tensors_up_to),
        max_bytes=payload_limit(settings.max_update_bytes),
    )
    update = Update(
        task=task,
        client_id=client_id,
        incarnation=state.incarnation,
        sequence=state.sequence + 1,
        layout=layout.fingerprint,
        base_version=queued.base.version,
        base_hash=queued.base.hash,
        num_examples=queued.num_examples,
        num_steps=max(1, queued.steps),
        work=queued.work + state.carry,
        encoded=encoded,
    )
    data = update.to_bytes()
    row = Row(
        data=data,
        crc=frame_crc(data),
        incarnation=update.incarnation,
        sequence=update.sequence,
        base_version=update.base_version,
        work=update.work,
        since_s=queued.since_s,
    )
    return replace(state, queued=None, residual=residual, carry=0.0, row=row, sequence=row.sequence), row


def give_back(residual: Vector, row: Row) -> Vector:
    """The residual with a refused record's values in it again; a new float32[P]."""
    back = residual.copy()
    try:
        decode(Update.from_bytes(row.data).encoded).add_to(back)
    except WireError as error:
        raise InvariantError(f"a record that this device wrote itself cannot be read: {error}") from error
    return back


def is_finite(vector: Vector) -> bool:
    """Whether every number is finite."""
    return bool(np.isfinite(vector).all())
