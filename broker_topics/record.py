"""One record of the commit chain: what it says, and its bytes.

The envelope is frozen for ever: format u8, height u64, parent 32 bytes, writer 16 bytes, body length u32. The body is
MessagePack and at most 512 KiB.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgpack

from broker_topics.errors import ConfigError, RejectCode, WireError

FORMAT = 1
GENESIS_PARENT = bytes(32)
MAX_BODY_BYTES = 512 * 1024
ENVELOPE = struct.Struct(">BQ32s16sI")


class RunKind(StrEnum):
    """What a run of offsets held: inputs with a decision each, or nothing that can be read."""

    DATA = "data"
    LOST = "lost"
    UNREADABLE = "unreadable"
    CONTROL = "control"


class Cause(StrEnum):
    """Why a server step, or a record without one, was made."""

    GENESIS = "genesis"
    FULL = "full"
    DEADLINE = "deadline"
    CONTROL = "control"
    ROLL_BACK = "roll_back"
    REPAIR = "repair"


REPLACING = frozenset({Cause.ROLL_BACK, Cause.REPAIR})
"""Causes of records whose model does not follow from the one before: they are keyframes, and readers load them."""


@dataclass(frozen=True, slots=True)
class Run:
    """`count` consecutive offsets of one partition, consumed together; updates come first, control is the last one."""

    partition: int
    first: int
    count: int
    kind: RunKind = RunKind.DATA


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one input: accepted with the weight that multiplied its delta, or refused with a code.

    crc: CRC-32 of the whole frame, the input's identity.
    weight: float32 value that was applied, 0.0 for a refusal.
    code: None when accepted.
    first: of a duplicate, the outcome of the first copy ("accepted" or its reject code), else "".
    incarnation: of `retired`, `conflict` and `passed`, the current incarnation in the ledger, else 0.
    """

    crc: int
    weight: float = 0.0
    code: RejectCode | None = None
    first: str = ""
    incarnation: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the input entered the model."""
        return self.code is None

    @property
    def outcome(self) -> str:
        """`accepted` or the reject code; of a duplicate, the first copy's outcome."""
        return self.first if self.code is RejectCode.DUPLICATE else self.code.value if self.code else "accepted"


@dataclass(frozen=True, slots=True)
class Step:
    """One server step: how many accepted updates it took, and why then."""

    inputs: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class PartRef:
    """Where one part of a delta or keyframe lies in the models topic, and the SHA-256 of its record."""

    name: str
    index: int
    offset: int
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a record says; `version` counts server steps after it, `vector` holds the next offset of every partition."""

    version: int
    steps: tuple[Step, ...]
    cause: Cause
    runs: tuple[Run, ...]
    vector: tuple[int, ...]
    decisions: tuple[Decision, ...]
    rules: bytes
    max_staleness: int
    state_hash: bytes
    hidden_hash: bytes
    served_hash: bytes
    parts: tuple[PartRef, ...] = ()
    keyframe: bool = False
    note: str = ""

    @property
    def hashes(self) -> tuple[bytes, bytes, bytes]:
        """Of x and the optimizer, of x̂, of the served model."""
        return self.state_hash, self.hidden_hash, self.served_hash

    @property
    def base_hash(self) -> bytes:
        """The 8 bytes by which updates name the hidden model of this version."""
        return self.hidden_hash[:8]

    def decided(self) -> Iterator[tuple[Run, Sequence[Decision]]]:
        """Each run with the decisions on its inputs, one for each offset; none where it is void."""
        index = 0
        for run in self.runs:
            count = run.count if run.kind is RunKind.DATA else 0
            yield run, self.decisions[index : index + count]
            index += count

    @property
    def replaces_model(self) -> bool:
        """Whether the model does not follow from the one before it, but is what this record's keyframe holds."""
        return bool(self.steps) and self.cause in REPLACING


@dataclass(frozen=True, slots=True)
class Record:
    """One link of the chain, with the bytes it was read from or will be written as."""

    height: int
    parent: bytes
    writer: bytes
    body: Body
    data: bytes

    @property
    def hash(self) -> bytes:
        """SHA-256 of the record's bytes: the parent of the next record."""
        return hashlib.sha256(self.data).digest()


def build(*, height: int, parent: bytes, writer: bytes, body: Body) -> Record:
    """Make a record and its bytes; raises ConfigError when the body outgrows its limit."""
    packed = msgpack.packb(_body_rows(body))
    if len(packed) > MAX_BODY_BYTES:
        raise ConfigError(f"a chain record of {len(packed)} bytes is above {MAX_BODY_BYTES}; lower backlog_buffer_size")
    data = ENVELOPE.pack(FORMAT, height, parent, writer, len(packed)) + packed
    return Record(height, parent, writer, body, data)


def parse(data: bytes) -> Record:
    """Read a record's bytes; raises WireError (malformed) where they are not one of this format."""
    try:
        number, height, parent, writer, length = ENVELOPE.unpack_from(data)
        if number != FORMAT or len(data) != ENVELOPE.size + length or length > MAX_BODY_BYTES:
            raise ValueError("wrong format number or length")
        return Record(height, parent, writer, _body(msgpack.unpackb(data[ENVELOPE.size :])), data)
    except (ValueError, TypeError, KeyError, struct.error) as error:
        raise WireError(RejectCode.MALFORMED, f"chain record: {error}") from error


def _body_rows(body: Body) -> dict[str, Any]:
    return {
        "version": body.version,
        "steps": [[step.inputs, step.cause.value] for step in body.steps],
        "cause": body.cause.value,
        "runs": [[run.partition, run.first, run.count, run.kind.value] for run in body.runs],
        "vector": list(body.vector),
        "decisions": [_decision_row(decision) for decision in body.decisions],
        "rules": body.rules,
        "max_staleness": body.max_staleness,
        "state_hash": body.state_hash,
        "hidden_hash": body.hidden_hash,
        "served_hash": body.served_hash,
        "parts": [[part.name, part.index, part.offset, part.size, part.digest] for part in body.parts],
        "keyframe": body.keyframe,
        "note": body.note,
    }


def _decision_row(decision: Decision) -> list[Any]:
    if decision.code is None:
        return [decision.crc, decision.weight]
    return [decision.crc, decision.code.value, decision.first, decision.incarnation]


def _body(rows: dict[str, Any]) -> Body:
    return Body(
        version=_natural(rows["version"]),
        steps=tuple(Step(_natural(inputs), Cause(cause)) for inputs, cause in rows["steps"]),
        cause=Cause(rows["cause"]),
        runs=tuple(Run(_natural(p), _natural(first), _natural(n), RunKind(kind)) for p, first, n, kind in rows["runs"]),
        vector=tuple(_natural(offset) for offset in rows["vector"]),
        decisions=tuple(_decision(row) for row in rows["decisions"]),
        rules=_bytes(rows["rules"], 32),
        max_staleness=_natural(rows["max_staleness"]),
        state_hash=_bytes(rows["state_hash"], 32),
        hidden_hash=_bytes(rows["hidden_hash"], 32),
        served_hash=_bytes(rows["served_hash"], 32),
        parts=tuple(
            PartRef(_text(name), _natural(index), _natural(offset), _natural(size), _bytes(digest, 32))
            for name, index, offset, size, digest in rows["parts"]
        ),
        keyframe=rows["keyframe"] is True,
        note=_text(rows["note"]),
    )


def _decision(row: Sequence[Any]) -> Decision:
    if len(row) == 2:
        if not isinstance(row[1], float):
            raise ValueError("a weight is a float")
        return Decision(_natural(row[0]), row[1])
    crc, code, first, incarnation = row
    return Decision(_natural(crc), 0.0, RejectCode(code), _text(first), _natural(incarnation))


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a count is a non-negative integer")
    return value


def _bytes(value: Any, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise ValueError(f"a hash has {length} bytes")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is a string")
    return value
