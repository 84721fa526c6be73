"""The compiled loops of the extra `fast` are numpy's to the bit, and nobody misses them where they are not there."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from broker_topics.codecs import CodecId, Decoded, Encoded, Gathered, decode, encode, fast, positions, values
from broker_topics.errors import InvariantError, WireError
from broker_topics.layout import Vector
from tests.unit.codec_vectors import LARGEST, SUBNORMAL, heavy_tailed

pytest.importorskip("numba", reason="numba is not installed; pip install 'headwater[fast]'")

ROOT = Path(__file__).parent.parent.parent
SIZES = [65_536, 65_537, 65_791, 65_792, 66_047, 131_072, 131_073, 200_000, 1_000_003]
WEIGHTS = [1.0, -1.0, 0.0, 0.5, 1 / 3, -0.1, 1e-30, 1e-44, 3e7]
WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import hashlib
import numpy as np
from broker_topics.codecs import CodecId, decode, encode, fast
from tests.unit.codec_vectors import heavy_tailed
total = heavy_tailed(200_001, 1)
assert fast.kernels_for(total) is None
for codec in CodecId:
    decode(encode(heavy_tailed(200_001), codec, density=0.05)).add_to(total, 0.3)
print(hashlib.sha256(total.tobytes()).hexdigest())
"""


def added(decoded: Decoded, start: Vector, weight: float) -> Vector:
    """What `add_to` makes of `start`."""
    total = start.copy()
    with np.errstate(all="ignore"):
        decoded.add_to(total, weight)
    return total


def assert_same_bits(encoded: Encoded, start: Vector, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fast.kernels_for(start) is not None
    compiled = added(decode(encoded), start, weight)
    with monkeypatch.context() as patch:
        patch.setattr(fast, "LEAST", len(start) + 1)
        assert fast.kernels_for(start) is None
        expected = added(decode(encoded), start, weight)
    np.testing.assert_array_equal(compiled.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("size", SIZES)
def test_int8_adds_the_same_bits_as_numpy_for_every_weight_and_tail(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode(heavy_tailed(size), CodecId.INT8)
    for weight in WEIGHTS:
        assert_same_bits(encoded, heavy_tailed(size, 1), weight, monkeypatch)


@pytest.mark.parametrize("density", [0.00001, 0.001, 0.01, 0.2])
@pytest.mark.parametrize("size", SIZES)
def test_sparse_adds_the_same_bits_as_numpy_for_every_weight(
    size: int, density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = heavy_tailed(size)
    vector[[0, -1]] = 1.0  # both ends are sent, whatever the density
    for segments in ((), (slice(100, 400), slice(size - 300, size - 1))):
        encoded = encode(vector, CodecId.SPARSE, density=density, dense=segments)
        for weight in WEIGHTS:
            assert_same_bits(encoded, heavy_tailed(size, 1), weight, monkeypatch)


@pytest.mark.parametrize("size", [2_000, 200_000])
def test_many_vectors_added_together_give_the_bits_of_one_after_the_other(size: int) -> None:
    def sparse(seed: int, density: float, *dense: slice) -> Decoded:
        return decode(encode(heavy_tailed(size, seed), CodecId.SPARSE, density=density, dense=dense))

    mixed = [
        *(sparse(seed, 0.05) for seed in range(5)),
        *(sparse(seed, 0.05, slice(10, 300)) for seed in (5, 6)),
        *(sparse(seed, 0.00002) for seed in (7, 8)),  # gaps of two bytes
        *(sparse(seed, 0.004) for seed in (9, 10)),  # skips among gaps of one
        decode(encode(heavy_tailed(size, 11), CodecId.INT8)),
        sparse(12, 0.2),
    ]
    weighted = [(decoded, 0.1 * number - 0.4) for number, decoded in enumerate(mixed)]
    together = heavy_tailed(size, 20)
    expected = together.copy()
    for decoded, weight in weighted:
        decoded.add_to(expected, weight)
    gathered = Gathered(together)
    for decoded, weight in weighted:
        if not gathered.take(decoded, weight):
            gathered.flush()
            decoded.add_to(together, weight)
    gathered.flush()
    np.testing.assert_array_equal(together.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(("density", "in_blocks"), [(0.2, True), (0.01, True), (0.001, False), (0.00005, False)])
def test_many_values_are_added_block_by_block_and_few_in_one_sweep(
    density: float, in_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, called = 200_003, list[str]()
    kernels = fast.load_kernels()
    assert kernels is not None

    def spy(name: str, kernel: Callable[..., None]) -> Callable[..., None]:
        def spied(*arguments: object) -> None:
            called.append(name)
            kernel(*arguments)

        return spied

    spied = kernels._replace(
        add_in_blocks=spy("blocks", kernels.add_in_blocks), add_gaps=spy("sweep", kernels.add_gaps)
    )
    vectors = [decode(encode(heavy_tailed(size, seed), CodecId.SPARSE, density=density)) for seed in range(70)]
    expected, together = heavy_tailed(size, 99), heavy_tailed(size, 99)
    for number, decoded in enumerate(vectors):
        decoded.add_to(expected, number / 70)
    monkeypatch.setattr(fast, "load_kernels", lambda: spied)
    gathered = Gathered(together)
    assert all(gathered.take(decoded, number / 70) for number, decoded in enumerate(vectors))
    gathered.flush()
    assert set(called[:-1]) == {"blocks" if in_blocks else "sweep"}
    np.testing.assert_array_equal(together.view(np.uint32), expected.view(np.uint32))


def test_vectors_are_not_gathered_where_they_do_not_fit() -> None:
    decoded = decode(encode(heavy_tailed(100_000), CodecId.SPARSE))
    with pytest.raises(InvariantError):
        Gathered(np.zeros(99_999, np.float32)).take(decoded, 1.0)


@pytest.mark.parametrize("codec", [CodecId.INT8, CodecId.SPARSE])
@pytest.mark.parametrize("scale", [SUBNORMAL, 1e-42, 1e-38, 1e-12, 1e37])
def test_numbers_at_the_edges_of_float32_add_the_same_bits(
    codec: CodecId, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = heavy_tailed(70_001, scale=scale)
    vector[7], vector[300], vector[70_000] = LARGEST, -LARGEST, SUBNORMAL
    for part in (vector, np.where(np.abs(vector) == LARGEST, np.float32(0), vector)):
        encoded = encode(part, codec, density=0.05)
        for weight in (1.0, -1.0, 0.7, 3.0, 1e-30):
            for start in (np.zeros_like(part), -np.zeros_like(part), part, heavy_tailed(70_001, 1, scale)):
                assert_same_bits(encoded, start, weight, monkeypatch)


@pytest.mark.parametrize("codec", [CodecId.INT8, CodecId.SPARSE])
def test_sections_may_be_views_into_a_record_at_any_offset(codec: CodecId, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode(heavy_tailed(100_001), codec, density=0.05)
    expected = decode(encoded).to_vector()
    for offset in (1, 3):
        for kind in (bytes, bytearray):
            records = [memoryview(kind(bytes(offset) + bytes(section))) for section in encoded.sections]
            viewed = encoded._replace(sections=tuple(record[offset:] for record in records))
            np.testing.assert_array_equal(decode(viewed).to_vector(), expected)
            assert_same_bits(viewed, heavy_tailed(100_001, 1), 0.3, monkeypatch)


@pytest.mark.parametrize("codec", [CodecId.INT8, CodecId.SPARSE])
def test_an_accumulator_with_strides_is_left_to_numpy(codec: CodecId) -> None:
    decoded = decode(encode(heavy_tailed(70_000), codec, density=0.05))
    wide = np.zeros(140_000, np.float32)
    assert fast.kernels_for(wide[::2]) is None
    decoded.add_to(wide[::2], 0.3)
    np.testing.assert_array_equal(wide[::2], added(decoded, np.zeros(70_000, np.float32), 0.3))
    assert not wide[1::2].any()


@pytest.mark.parametrize("size", [2_000, 70_000])
@pytest.mark.parametrize("codec", [CodecId.INT8, CodecId.SPARSE])
def test_an_accumulator_that_must_not_change_does_not(codec: CodecId, size: int) -> None:
    frozen = np.zeros(size, np.float32)
    frozen.setflags(write=False)
    with pytest.raises(InvariantError, match="read-only"):
        decode(encode(heavy_tailed(size), codec, density=0.05)).add_to(frozen)
    assert not frozen.any()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_gaps_are_refused_for_the_same_reasons_as_by_numpy(
    size: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = b"".join(positions.write_gaps(np.array([0, 255, 40_000, size - 1]), wide=wide))
    cases = {
        "": (4, size),
        "not the declared one": (5, size),
        "behind the end": (4, size - 1),
    }
    for reason, (k, room) in cases.items():
        for least in (0, size + 1):
            monkeypatch.setattr(fast, "LEAST", least)
            with pytest.raises(WireError, match=reason) if reason else nullcontext():
                assert len(positions.read_gaps(raw, k, room, fast.kernels_of_size(room), wide=wide)) >= 4


@pytest.mark.parametrize("levels", [1, 2, 3, 8, 9, 32])
@pytest.mark.parametrize("k", [1, 2, 7, 500, 5_000, 12_701])
def test_symbols_are_read_and_counted_as_by_numpy(levels: int, k: int) -> None:
    kernels = fast.load_kernels()
    symbols = np.random.default_rng(k).integers(0, 2 * levels, k).astype(np.uint8)
    table = np.random.default_rng(levels).random(2 * levels, dtype=np.float32)
    assert values.norm_of(symbols, table, kernels) == values.norm_of(symbols, table, None)
    width = values.packed_width(levels)
    packed = values.write_packed(symbols, width)
    for loops in (kernels, None):
        np.testing.assert_array_equal(values.read_packed(packed, k, width, loops), symbols)
        symbols[-1] = 2 * levels
        with pytest.raises(WireError, match="beyond the codebook"):
            values.norm_of(symbols, table, loops)
        symbols[-1] = values.read_packed(packed, k, width, loops)[-1]


def python(script: str, **environment: str) -> str:
    """What a new Python prints."""
    env = os.environ | environment
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=True).stdout


def test_everything_works_without_numba_and_comes_to_the_same_bits() -> None:
    with_numba = WITHOUT_NUMBA.replace('sys.modules["numba"] = None', "").replace("is None", "is not None")
    assert python(WITHOUT_NUMBA) == python(with_numba) != ""


def test_small_vectors_do_not_load_numba() -> None:
    script = WITHOUT_NUMBA.replace('sys.modules["numba"] = None', "").replace("200_001", "65_535")
    assert python(script + 'print("numba" in sys.modules)').splitlines()[1:] == ["False"]


def test_where_machine_code_cannot_be_kept_it_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def compile_(numba: object, *, keep: bool) -> fast.Kernels:
        kept.append(keep)
        if keep:
            raise RuntimeError("cannot cache function: no locator available")
        return original(numba, keep=keep)

    original = fast._compile
    monkeypatch.setattr(fast, "_compile", compile_)
    assert fast.load_kernels.__wrapped__() is not None
    assert kept == [True, False]


def test_loops_that_were_deferred_leave_the_adding_to_numpy_until_they_are_loaded():
    wide = np.zeros(fast.LEAST, np.float32)
    fast.defer_kernels()
    try:
        assert fast.kernels_for(wide) is None
        fast.load_deferred(fast.LEAST - 1)
        assert fast.kernels_for(wide) is None
    finally:
        fast.load_deferred(fast.LEAST)
    assert fast.kernels_for(wide) is not None
