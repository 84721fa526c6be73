"""The messages whose bytes are kept in tests/fixtures/golden, made of integers so that every machine makes the same.

`python -m tests.unit.golden_messages` adds files that are missing. A file that is there is the format itself: it is
never written anew; a change of the format takes a new format number and new files.
"""

import hashlib
from pathlib import Path

import numpy as np

from broker_topics.codecs import CodecId, Encoded, decode, encode, encode_with_residual
from broker_topics.errors import RejectCode
from broker_topics.layout import Vector
from broker_topics.messages import Control, Delta, Head, Reject, Telemetry, Update
from tests.unit.codec_vectors import heavy_tailed

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"

Message = Update | Delta | Reject | Telemetry | Control | Head


def update(encoded: Encoded) -> Update:
    return Update(
        task="watch",
        client_id="w-17",
        incarnation=2,
        sequence=41,
        layout=0xFEDCBA9876543210,
        base_version=1207,
        base_hash=bytes(range(8)),
        num_examples=312,
        num_steps=39,
        work=1.25,
        encoded=encoded,
    )


def vectors() -> dict[str, tuple[Vector, CodecId, float, tuple[slice, ...]]]:
    """What each update carries: vector, codec, density, segments."""
    signs, spread = np.sign(heavy_tailed(3000)), heavy_tailed(3000)
    spread[::50] *= 10
    enormous, skewed = spread.copy(), heavy_tailed(20_000)
    enormous[::97] *= 5000
    skewed[::200] *= 300
    return {
        "update_float32": (heavy_tailed(40), CodecId.FLOAT32, 0.01, ()),
        "update_bfloat16": (heavy_tailed(40), CodecId.BFLOAT16, 0.01, ()),
        "update_int8": (heavy_tailed(300), CodecId.INT8, 0.01, ()),
        "update_sparse_bits": (signs, CodecId.SPARSE, 0.01, ()),
        "update_sparse_small": (heavy_tailed(3000), CodecId.SPARSE, 0.01, ()),
        "update_sparse_nibbles": (spread, CodecId.SPARSE, 0.01, ()),
        "update_sparse_plain": (enormous, CodecId.SPARSE, 0.01, ()),
        "update_sparse_zstd": (skewed, CodecId.SPARSE, 0.05, ()),
        "update_sparse_wide": (heavy_tailed(300_000), CodecId.SPARSE, 0.0005, ()),
        "update_sparse_segments": (heavy_tailed(3000), CodecId.SPARSE, 0.01, (slice(0, 8), slice(2900, 2912))),
    }


def messages() -> dict[str, Message]:
    """Every golden message by the name of its file."""
    made: dict[str, Message] = {}
    for name, (vector, codec, density, segments) in vectors().items():
        made[name] = update(encode(vector, codec, density=density, dense=segments))
    delta = encode(heavy_tailed(3000, seed=1), CodecId.SPARSE, density=0.01)
    made["delta"] = Delta(task="watch", layout=7, version=1208, base_hash=bytes(range(8)), encoded=delta)
    made["reject"] = Reject(code=RejectCode.STALE, partition=11, offset=2**33, client_id="w-17", crc=0xDEADBEEF)
    values: dict[str, str | int | float] = {"battery": 0.5, "free_bytes": 2**40, "link": "wifi"}
    made["telemetry"] = Telemetry(client_id="w-17", task="watch", incarnation=2, values=values)
    made["control_pause"] = Control(command="pause")
    made["control_roll_back"] = Control(command="roll_back", argument=1100)
    made["head"] = Head(offset=2**33, height=123_456, record_hash=bytes(range(32)))
    return made


def digest(data: bytes) -> str:
    """The first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def arithmetic() -> str:
    """One digest over all that the codecs compute, compressed bytes aside."""
    seen = []
    for vector, codec, density, segments in vectors().values():
        encoded, residual = encode_with_residual(vector, codec, density=density, dense=segments)
        decoded = decode(encoded)
        accumulator = heavy_tailed(len(vector), seed=2)
        decoded.add_to(accumulator, 0.37)
        seen += [decoded.to_vector().tobytes(), residual.tobytes(), accumulator.tobytes(), decoded.norm.hex().encode()]
    return digest(b"".join(seen))


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, message in messages().items():
        path = GOLDEN / f"{name}.bin"
        if not path.exists():
            path.write_bytes(message.to_bytes())
