"""A device's state as bytes: one small checked row of facts; vectors and records lie beside it in pieces."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
import numpy as np

from broker_topics.chain import ChainPosition
from broker_topics.errors import WireError
from broker_topics.layout import Vector
from broker_topics.task import TaskSettings
from worker.state import Base, DeviceState, Queued, Row, Tally

FORMAT = 1
PIECE_BYTES = 1 << 20


class DamagedError(Exception):
    """What the outbox holds is not what was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose state it is; another one's is never loaded."""

    task: str
    client_id: str
    layout: int
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Up to 1 MiB of a vector or record, with the CRC-32 of its bytes."""

    index: int
    crc: int
    data: memoryview


def blobs_of(state: DeviceState) -> dict[str, memoryview]:
    """The large values of a state by name; views, nothing is copied."""
    blobs = {"residual": _view(state.residual)}
    if state.queued is not None:
        blobs["base"], blobs["local"] = _view(state.queued.base.vector), _view(state.queued.local)
    if state.row is not None:
        blobs["row"] = memoryview(state.row.data)
    return blobs


def pieces_of(blob: memoryview) -> Iterator[Piece]:
    """Cut a blob."""
    for index, start in enumerate(range(0, len(blob), PIECE_BYTES)):
        part = blob[start : start + PIECE_BYTES]
        yield Piece(index, zlib.crc32(part), part)


def write_facts(owner: Owner, state: DeviceState) -> bytes:
    """Everything but the large values, which are named with their lengths; the CRC-32 is at the end."""
    queued, row, position = state.queued, state.row, state.position
    packed: bytes = msgpack.packb(
        {
            "format": FORMAT,
            "owner": asdict(owner),
            "blobs": {name: len(blob) for name, blob in blobs_of(state).items()},
            "incarnation": state.incarnation,
            "sequence": state.sequence,
            "carry": state.carry,
            "stale_in_a_row": state.stale_in_a_row,
            "share": state.share,
            "tally": asdict(state.tally),
            "settings": state.settings.to_bytes() if state.settings else None,
            "position": [position.offset, position.height, position.hash] if position else None,
            "queued": _queued_row(queued) if queued else None,
            "row": _row_row(row) if row else None,
        }
    )
    return packed + zlib.crc32(packed).to_bytes(4, "big")


def read_facts(data: bytes) -> dict[str, Any]:
    """Undo `write_facts`; raises DamagedError."""
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "big"):
        raise DamagedError("the CRC of the facts differs")
    facts: dict[str, Any] = msgpack.unpackb(data[:-4])
    return facts


def read_state(facts: Mapping[str, Any], blobs: Mapping[str, bytearray]) -> DeviceState:
    """Put a state together; raises DamagedError where the parts do not fit."""
    try:
        queued, row, position = facts["queued"], facts["row"], facts["position"]
        return DeviceState(
            residual=_vector(blobs["residual"]),
            incarnation=facts["incarnation"],
            sequence=facts["sequence"],
            carry=facts["carry"],
            stale_in_a_row=facts["stale_in_a_row"],
            share=facts["share"],
            tally=Tally(**facts["tally"]),
            settings=TaskSettings.from_bytes(facts["settings"]) if facts["settings"] else None,
            position=ChainPosition(*position) if position else None,
            queued=_queued(queued, blobs) if queued else None,
            row=Row(data=bytes(blobs["row"]), **row) if row else None,
        )
    except (KeyError, TypeError, ValueError, WireError) as error:
        raise DamagedError(f"the facts cannot be read: {error}") from error


def _queued_row(queued: Queued) -> dict[str, Any]:
    return {
        "version": queued.base.version,
        "hash": queued.base.hash,
        "work": queued.work,
        "steps": queued.steps,
        "pull": queued.pull,
        "num_examples": queued.num_examples,
        "since_s": queued.since_s,
    }


def _queued(row: dict[str, Any], blobs: Mapping[str, bytearray]) -> Queued:
    base = Base(version=row.pop("version"), hash=row.pop("hash"), vector=_vector(blobs["base"]))
    return Queued(base=base, local=_vector(blobs["local"]), **row)


def _row_row(row: Row) -> dict[str, Any]:
    return {
        "crc": row.crc,
        "incarnation": row.incarnation,
        "sequence": row.sequence,
        "base_version": row.base_version,
        "work": row.work,
        "since_s": row.since_s,
        "partition": row.partition,
        "offset": row.offset,
    }


def _view(vector: Vector) -> memoryview:
    return memoryview(np.ascontiguousarray(vector, dtype="<f4").data).cast("B")


def _vector(blob: bytearray) -> Vector:
    vector: Vector = np.frombuffer(blob, dtype="<f4")
    return vector
