"""The bytes of the wire, kept: a record written years ago by any device is read the same today."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from broker_topics.codecs import CodecId, decode
from broker_topics.messages import Delta, Update
from tests.unit.golden_messages import GOLDEN, arithmetic, digest, messages

VALUES = {
    "update_float32": ("3eea6cb6706378e2", "0x1.8bf72a9553879p-11"),
    "update_bfloat16": ("9d4c275c2aada0f8", "0x1.8ba334d9814aap-11"),
    "update_int8": ("24227129d9f268ed", "0x1.048f07c08ccc8p-9"),
    "update_sparse_bits": ("40ec8f92cc6fcb45", "0x1.5e8add236a58fp+2"),
    "update_sparse_small": ("97e6e009f3de99f1", "0x1.99983b26c9eb0p-9"),
    "update_sparse_nibbles": ("1ce14936573b0470", "0x1.3f5fa616ae9c0p-7"),
    "update_sparse_plain": ("3f65fbebd058427b", "0x1.09c045f5d9286p+2"),
    "update_sparse_zstd": ("8cde510f90ee1bcc", "0x1.35e5814cef929p-2"),
    "update_sparse_wide": ("d9433da931b41200", "0x1.2f273a0104a80p-7"),
    "update_sparse_segments": ("29478823e630cc6d", "0x1.9cdcf526892f9p-9"),
    "delta": ("02578526a596abf5", "0x1.6d787000118b4p-9"),
}
"""Digest of the decoded float32 values, and the norm."""

ARITHMETIC = "9f2a429ff8b28ab6"
USES_ZSTD = 2 | 4
"""Flags of sections whose bytes another release of zstd may choose differently."""


def test_every_golden_file_has_its_message_and_every_message_its_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(messages())


@pytest.mark.parametrize("name", list(messages()))
def test_a_golden_record_is_read_as_the_message_it_was(name: str) -> None:
    message, record = messages()[name], (GOLDEN / f"{name}.bin").read_bytes()
    kept = type(message).from_bytes(record)
    if not isinstance(message, Update | Delta) or not isinstance(kept, Update | Delta):
        assert kept == message
        assert message.to_bytes() == record
        return
    decoded = decode(kept.encoded)
    assert (digest(decoded.to_vector().astype("<f4").tobytes()), decoded.norm.hex()) == VALUES[name]
    for field in ("task", "layout", "base_hash"):
        assert getattr(kept, field) == getattr(message, field)
    zstd_chose = kept.encoded.codec is CodecId.SPARSE and (kept.encoded.flags | message.encoded.flags) & USES_ZSTD
    if not zstd_chose:
        assert message.to_bytes() == record


def test_the_golden_updates_use_every_way_to_store_a_section() -> None:
    flags = [Update.from_bytes(path.read_bytes()).encoded.flags for path in GOLDEN.glob("update_sparse_*.bin")]
    assert {flag for flag in (1, 2, 4, 8, 16) if any(stored & flag for stored in flags)} == {1, 2, 4, 8, 16}


def test_an_update_is_laid_out_as_the_protocol_page_says() -> None:
    record = (GOLDEN / "update_bfloat16.bin").read_bytes()
    assert record[:3] == b"HW\x01"
    header_bytes = int.from_bytes(record[3:5], "little")
    assert record[5:8] == b"\xdc\x00\x11"
    assert record[8:15] == b"\x01\xa5watch"
    assert len(record) == 5 + header_bytes + 80 + 4


def test_the_arithmetic_gives_the_same_bits_as_ever() -> None:
    assert arithmetic() == ARITHMETIC


def test_the_arithmetic_gives_the_same_bits_with_the_fast_instructions_switched_off() -> None:
    core = getattr(np, "_core", None) or np.core
    features = core._multiarray_umath.__cpu_features__
    fast = [name for name in core._multiarray_umath.__cpu_dispatch__ if features.get(name)]
    if not fast:
        assert arithmetic() == ARITHMETIC
        return
    done = subprocess.run(
        [sys.executable, "-c", "from tests.unit.golden_messages import arithmetic; print(arithmetic())"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(fast)},
    )
    assert done.stdout.strip() == ARITHMETIC
