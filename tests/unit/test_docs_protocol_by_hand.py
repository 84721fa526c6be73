"""A reader written from the protocol page alone, in plain Python, must understand what the code writes."""

import struct
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard

from broker_topics.codecs import CodecId, Encoded, decode, encode
from broker_topics.hidden import HiddenModel
from broker_topics.layout import Vector
from broker_topics.messages import Delta

WIDE, ZSTD_POSITIONS, ZSTD_SYMBOLS, PACKED_SYMBOLS, SEGMENTS = 1, 2, 4, 8, 16


def read_delta(data: bytes) -> tuple[list[Any], list[bytes]]:
    """Header and sections of a frame, by the sections Frames and DELTA of the page."""
    magic, version, length = struct.unpack_from("<2sBH", data)
    assert (magic, version) == (b"HW", 1)
    assert zlib.crc32(data[:-4]) == struct.unpack("<I", data[-4:])[0]
    kind, *header = msgpack.unpackb(data[5 : 5 + length])
    assert kind == 2
    sections, start = [], 5 + length
    for size in header[8]:
        sections.append(data[start : start + size])
        start += size
    assert start == len(data) - 4
    return header, sections


def read_values(header: list[Any], sections: list[bytes]) -> Vector:
    """The vector of a payload, by the section Codecs of the page."""
    codec, flags, size, k, _, raw_lengths = header[4:]
    if codec == 0:
        return np.array(struct.unpack(f"<{size}f", sections[0]), np.float32)
    if codec == 1:
        return np.array([_float(bits << 16) for bits in struct.unpack(f"<{size}H", sections[0])], np.float32)
    if codec == 2:
        base, *relative = struct.unpack(f"<f{-(-size // 256)}e", sections[0])
        scales = [np.float32(value * base) for value in relative]
        return np.array(
            [np.float32(n) * scales[i // 256] for i, n in enumerate(struct.unpack(f"{size}b", sections[1]))]
        )
    positions = _unzip(sections[0], raw_lengths[0]) if flags & ZSTD_POSITIONS else sections[0]
    symbols = _unzip(sections[1], raw_lengths[1]) if flags & ZSTD_SYMBOLS else sections[1]
    threshold, *means = struct.unpack(f"<f{(len(sections[2]) - 4) // 2}e", sections[2])
    vector = np.zeros(size, np.float32)
    for place, symbol in zip(_places(positions, flags), _symbols(symbols, flags, len(means))[:k], strict=True):
        magnitude = np.float32(means[symbol // 2] * threshold * 2.0 ** (symbol // 2))
        vector[place] = -magnitude if symbol % 2 else magnitude
    if flags & SEGMENTS:
        values = iter(struct.unpack(f"<{len(sections[4]) // 2}H", sections[4]))
        edges = struct.unpack(f"<{len(sections[3]) // 4}I", sections[3])
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            vector[start:stop] = [_float(next(values) << 16) for _ in range(stop - start)]
    return vector


def _float(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return value


def _unzip(section: bytes, raw_length: int) -> bytes:
    assert zstandard.frame_content_size(section) == raw_length
    raw: bytes = zstandard.ZstdDecompressor().decompress(section)
    return raw


def _places(raw: bytes, flags: int) -> list[int]:
    half = len(raw) // 2
    gaps = [low + 256 * high for low, high in zip(raw[:half], raw[half:], strict=True)] if flags & WIDE else list(raw)
    skip = 65535 if flags & WIDE else 255
    places, place = [], 0
    for gap in gaps:
        place += gap
        if gap != skip:
            places.append(place)
            place += 1
    return places


def _symbols(raw: bytes, flags: int, levels: int) -> list[int]:
    if not flags & PACKED_SYMBOLS:
        return list(raw)
    width = 1 if levels == 1 else 2 if levels == 2 else 4 if levels <= 8 else 8
    return [byte >> shift & (1 << width) - 1 for byte in raw for shift in range(0, 8, width)]


def delta_of(encoded: Encoded) -> bytes:
    return Delta(task="watch", layout=1, version=1, base_hash=bytes(8), encoded=encoded).to_bytes()


def normal(size: int) -> Vector:
    return np.random.default_rng(3).normal(size=size).astype(np.float32)


def heavy(size: int) -> Vector:
    """Magnitudes over many powers of two, so that symbols need a whole byte."""
    values: Vector = normal(size) ** np.float32(9)
    return values


def at(size: int, values: dict[int, float]) -> Vector:
    vector = np.zeros(size, np.float32)
    vector[list(values)] = list(values.values())
    return vector


EVERY_FIFTH = at(20_000, {5 * i: 1.0 + 7 * (i % 2) for i in range(4000)})

CASES: dict[str, tuple[Encoded, int]] = {
    "float32": (encode(normal(1000), CodecId.FLOAT32), 0),
    "bfloat16": (encode(normal(1000), CodecId.BFLOAT16), 0),
    "int8 with a short last block": (encode(normal(1000), CodecId.INT8), 0),
    "plain bytes": (encode(heavy(20_000), CodecId.SPARSE, density=0.2), 0),
    "zstd": (encode(EVERY_FIFTH, CodecId.SPARSE, density=0.2), ZSTD_POSITIONS | ZSTD_SYMBOLS),
    "16-bit gaps": (encode(normal(200_000), CodecId.SPARSE, density=0.001), WIDE),
    "4 bits": (encode(at(2000, {0: 0.5, 2: -0.5, 300: 100.0, 301: 7.0}), CodecId.SPARSE), PACKED_SYMBOLS),
    "2 bits": (encode(at(2000, {0: 0.5, 2: -0.5, 300: 1.0}), CodecId.SPARSE), PACKED_SYMBOLS),
    "1 bit": (encode(at(2000, {300: 1.0, 1000: -1.0, 1999: 1.0}), CodecId.SPARSE), PACKED_SYMBOLS),
    "segments": (encode(normal(20_000), CodecId.SPARSE, dense=[slice(0, 10), slice(50, 70)]), SEGMENTS),
    "nothing at all": (encode(np.zeros(2000, np.float32), CodecId.SPARSE), 0),
}


@pytest.mark.parametrize(("encoded", "flag"), CASES.values(), ids=CASES)
def test_a_reader_written_from_the_page_finds_the_very_values(encoded: Encoded, flag: int) -> None:
    header, sections = read_delta(delta_of(encoded))
    assert encoded.flags & flag == flag
    assert np.array_equal(read_values(header, sections), decode(encoded).to_vector())


def test_the_served_model_advances_as_the_page_says() -> None:
    hidden, served = normal(1000), normal(1000) * np.float32(0.5)
    model = HiddenModel(version=7, hidden=hidden.copy(), served=served.copy())
    model.advance(None, inputs=3, horizon=100)
    eighth = np.float32(0.125)  # 1 / (7 + 1), which is more than 3 / 100
    expected = served + eighth * (hidden - served)
    assert model.version == 8
    assert np.array_equal(model.hidden, hidden)
    assert np.array_equal(model.served, expected)
