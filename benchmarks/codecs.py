"""The codecs' bars: bytes against float32 and entropy, time against the bare scatter and memcpy, hostile messages.

Times are CPU seconds of one thread, so that busy neighbours count little, and bars are ratios of two things measured
in turn in the same run: absolute figures are of one machine.
`python -m benchmarks.codecs` prints them.
"""

import gc
import math
import statistics
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import zstandard

from benchmarks.deltas import DEMO, WIDENED, real_deltas
from benchmarks.figures import Figure, at_least, at_most, plain, show
from broker_topics.codecs import CodecId, Encoded, decode, encode, fast
from broker_topics.codecs.positions import Positions
from broker_topics.errors import WireError
from broker_topics.layout import Vector
from broker_topics.messages import Update

RECORD_BYTES = 1 << 20
"""The most that an update may have unless its task says otherwise."""


def codec_figures() -> list[Figure]:
    """Measure everything, in about a minute on one core."""
    return [*_bytes(), *_entropy(), *_accumulate(), *_int8(), *_encode(), *_hostile()]


def _bytes() -> Iterator[Figure]:
    random = _random_vector(10**6, seed=0)
    ratio = 4e6 / len(_update(encode(random, CodecId.SPARSE)).to_bytes())
    yield at_least("update, 1 % of random positions, n = 1,000,000, against float32", ratio, 290)
    for shape, bar in ((WIDENED, 350), (DEMO, 220)):
        deltas = real_deltas(shape, 0.01)
        sent = sum(len(_update(encode(delta, CodecId.SPARSE)).to_bytes()) for delta in deltas)
        size = len(deltas[0])
        ratio = 4 * size * len(deltas) / sent
        yield at_least(f"update, 1 % of real deltas, n = {size:,}, against float32", ratio, bar)


def _entropy() -> Iterator[Figure]:
    for size, density, bar in ((10**6, 0.1, 1.03), (10**6, 0.01, 1.03), (10**7, 0.003, 1.08), (10**7, 0.001, 1.08)):
        encoded = encode(_random_vector(size, seed=1), CodecId.SPARSE, density=density)
        share = encoded.k / size
        bits = -size * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
        value = 8 * len(encoded.sections[0]) / bits
        yield at_most(f"positions, density {density:.1%}, n = {size:,}, against entropy", value, bar, "×")


def _accumulate() -> Iterator[Figure]:
    """Wire bytes to accumulated sum, in turn with the bare `np.add.at` of another message's values.

    In turn, because both then meet the caches as a running aggregator leaves them: a loop of nothing but scatters
    finds the accumulator nearer than any real one would.

    A bare scatter knows neither header nor CRC nor checks, some hundred calls of Python that an update of any size
    takes. At n = 10⁵ they are most of the whole and the bar is out of reach of numpy; what comes on top of them is
    therefore shown as well, with the bar as it is.
    """
    fixed, _ = _fold_and_scatter(10**5, 64, 60, density=1e-5)
    yield plain("wire → accumulated, an update of a single value, n = 100,000", 1e6 * fixed, "µs")
    for size, count, rounds in ((10**5, 64, 60), (10**6, 32, 40), (10**7, 8, 12)):
        whole, scatter = _fold_and_scatter(size, count, rounds)
        yield at_most(f"wire → accumulated, 1 %, n = {size:,}, against bare add.at", whole / scatter, 4, "×")
        yield plain(
            f"wire → accumulated, 1 %, n = {size:,}: beyond that of a single value", (whole - fixed) / scatter, "×"
        )
        yield plain(f"wire → accumulated, 1 %, n = {size:,}", 1 / whole, "updates/s")


def _fold_and_scatter(size: int, count: int, rounds: int, *, density: float = 0.01) -> tuple[float, float]:
    """Median seconds of a whole update and of its bare scatter."""
    vectors = (_random_vector(size, seed) for seed in range(count))
    records = [_update(encode(vector, CodecId.SPARSE, density=density)).to_bytes() for vector in vectors]
    bare = [_scatter_of(Update.from_bytes(record).encoded) for record in records]
    accumulator = np.zeros(size, dtype=np.float32)
    whole_s, bare_s = [], []
    gc.disable()
    for _ in range(rounds):
        for index, record in enumerate(records):
            whole_s.append(_timed(_fold, record, accumulator))
            bare_s.append(_timed(np.add.at, accumulator, *bare[(index + count // 2) % count]))
    gc.enable()
    return statistics.median(whole_s), statistics.median(bare_s)


def _int8() -> Iterator[Figure]:
    """A checked int8 update added with a weight, in turn with `a += b` of as many float32 numbers."""
    for size, rounds in ((10**6, 200), (10**7, 30)):
        decoded = decode(encode(_random_vector(size, seed=4), CodecId.INT8))
        other, accumulator = _random_vector(size, seed=5), np.zeros(size, dtype=np.float32)
        if fast.kernels_for(accumulator) is None:
            continue  # a promise of the extra alone
        decoded.add_to(accumulator, 0.5)
        add = partial(np.add, accumulator, other, out=accumulator)
        pairs = [(_timed(add), _timed(decoded.add_to, accumulator, 0.5)) for _ in range(rounds)]
        ratio = statistics.median(pair[0] for pair in pairs) / statistics.median(pair[1] for pair in pairs)
        yield at_least(f"int8 with numba → accumulated, n = {size:,}, against float32 a += b", ratio, 1)


def _encode() -> Iterator[Figure]:
    for size, rounds in ((10**6, 30), (10**7, 6)):
        vector = _random_vector(size, seed=2)
        copy = np.empty_like(vector)
        pairs = [(_timed(encode, vector, CodecId.SPARSE), _timed(np.copyto, copy, vector)) for _ in range(rounds)]
        ratio = statistics.median(pair[0] for pair in pairs) / statistics.median(pair[1] for pair in pairs)
        yield at_most(f"encode, 1 %, n = {size:,}, against memcpy", ratio, 20, "×")


def _hostile() -> Iterator[Figure]:
    """The worst of a set of messages, each lying in its own way."""
    slowest_s, memory = 0.0, 0.0
    for record in _hostile_records():
        slowest_s = max(slowest_s, min(_timed(_refuse, record) for _ in range(20)))
        tracemalloc.start()
        _refuse(record)
        memory = max(memory, tracemalloc.get_traced_memory()[1] / RECORD_BYTES)
        tracemalloc.stop()
    yield at_most("hostile message, time until refused", 1e3 * slowest_s, 1, "ms")
    yield at_most("hostile message, peak memory against the largest record", memory, 2, "×")


def _hostile_records() -> Iterator[bytes]:
    honest = _update(encode(_random_vector(10**6, seed=3), CodecId.SPARSE))
    record = honest.to_bytes()
    yield record[:-5] + bytes([record[-5] ^ 1]) + record[-4:]
    yield _sealed(b"HW\x01" + struct.pack("<H", 4096) + b"\x91" * 4096)
    encoded = honest.encoded
    sections = list(encoded.sections)
    bomb = zstandard.ZstdCompressor().compress(bytes(200_000_000))
    yield _with(encoded, sections=(bomb, *sections[1:]))
    yield _with(encoded, sections=(sections[0][:-9], *sections[1:]))
    yield _with(encoded, k=encoded.k - 1)
    yield _with(encoded, size=encoded.size // 2)
    yield _with(encoded, sections=(*sections[:2], b"\xff" * len(sections[2])))
    yield _with(encoded, size=2**50, k=2**40, raw_lengths=(2**41, 2**40, encoded.raw_lengths[2]))


def _with(encoded: Encoded, **change: object) -> bytes:
    return _update(encoded._replace(**change)).to_bytes()  # type: ignore[arg-type]


def _sealed(before_crc: bytes) -> bytes:
    return before_crc + struct.pack("<I", zlib.crc32(before_crc))


def _refuse(record: bytes) -> None:
    try:
        decode(Update.from_bytes(record).encoded)
    except WireError:
        return
    raise AssertionError("a hostile message was accepted")


def _fold(record: bytes, accumulator: Vector) -> None:
    decode(Update.from_bytes(record).encoded).add_to(accumulator, 0.5)


def _scatter_of(encoded: Encoded) -> tuple[Positions, Vector]:
    vector = decode(encoded).to_vector()
    places = np.flatnonzero(vector)
    return places, vector[places] * np.float32(0.5)


def _random_vector(size: int, seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32) * np.float32(1e-3)


def _update(encoded: Encoded) -> Update:
    return Update(
        task="watch",
        client_id="w-17",
        incarnation=1,
        sequence=412,
        layout=0xFEDCBA9876543210,
        base_version=1207,
        base_hash=bytes(range(8)),
        num_examples=312,
        num_steps=39,
        work=1.0,
        encoded=encoded,
    )


def _timed(action: Callable[..., object], *arguments: object) -> float:
    start = time.thread_time()
    action(*arguments)
    return time.thread_time() - start


if __name__ == "__main__":
    show(codec_figures())
