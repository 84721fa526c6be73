"""Mutated records: none is accepted, none raises anything but a refusal, none costs more memory than it declares."""

import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from broker_topics.codecs import CodecId, decode, encode
from broker_topics.errors import RejectCode, WireError
from broker_topics.frames import FrameKind, frame_crc, unpack
from broker_topics.messages import Control, Delta, Head, Reject, Telemetry, Update
from tests.unit.codec_vectors import heavy_tailed
from tests.unit.golden_messages import Message, messages, update

READERS: dict[FrameKind, Callable[[bytes], Message]] = {
    FrameKind.UPDATE: Update.from_bytes,
    FrameKind.DELTA: Delta.from_bytes,
    FrameKind.REJECT: Reject.from_bytes,
    FrameKind.TELEMETRY: Telemetry.from_bytes,
    FrameKind.CONTROL: Control.from_bytes,
    FrameKind.HEAD: Head.from_bytes,
}
RECORDS = [message.to_bytes() for message in messages().values()]
RECORDS.append(update(encode(heavy_tailed(5000), CodecId.SPARSE, density=0.1)).to_bytes())
REFUSALS = {RejectCode.MALFORMED, RejectCode.BAD_PAYLOAD, RejectCode.NON_FINITE}
TELLING_BYTES = bytes([0, 1, 2, 127, 128, 254, 255, 0xC0, 0xC4, 0xCA, 0xCB, 0xCF, 0xD3, 0xDC, 0xDD, 0xDF])


def read(record: bytes) -> None:
    """All that an aggregator or device does with a record before it uses it."""
    frame = unpack(record)
    if frame.kind is FrameKind.PART:
        return
    message = READERS[frame.kind](record)
    if isinstance(message, Update | Delta):
        decoded = decode(message.encoded)
        if decoded.size <= 10**6:
            assert np.isfinite(decoded.to_vector()).all()


def mutate(record: bytearray, draw: random.Random) -> None:
    """Change one thing in place, as a faulty disk, a bug or an attacker might."""
    place = draw.randrange(len(record))
    match draw.randrange(8):
        case 0 | 1:
            record[place] ^= 1 << draw.randrange(8)
        case 2:
            record[place] = draw.choice(TELLING_BYTES)
        case 3:
            record[place : place + 4] = draw.randbytes(min(4, len(record) - place))
        case 4:
            del record[place : place + draw.randrange(1, 9)]
        case 5:
            record[place:place] = draw.randbytes(draw.randrange(1, 9))
        case 6:
            other = draw.choice(RECORDS)
            record[place:] = other[draw.randrange(len(other)) :]
        case _:
            start = draw.randrange(len(record))
            record[place : place + 8] = record[start : start + 8]


def test_no_mutated_record_is_accepted() -> None:
    draw = random.Random(20240229)
    tried = 0
    while tried < 100_000:
        original = draw.choice(RECORDS)
        mutated = bytearray(original)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            if mutated:
                mutate(mutated, draw)
        if bytes(mutated) in RECORDS:
            continue
        tried += 1
        frame_crc(mutated)
        with pytest.raises(WireError) as caught:
            unpack(mutated)
        if caught.value.code is not RejectCode.MALFORMED:
            pytest.fail(f"{mutated.hex()}: {caught.value}")


def test_a_mutated_record_that_was_sealed_again_is_read_or_refused_with_a_code() -> None:
    """An attacker computes the CRC: then every check behind it must hold."""
    draw = random.Random(20240301)
    read_anyway = 0
    for _ in range(60_000):
        mutated = bytearray(draw.choice(RECORDS)[:-4])
        for _ in range(draw.choice((1, 1, 2))):
            if mutated:
                mutate(mutated, draw)
        record = bytes(mutated) + struct.pack("<I", zlib.crc32(mutated))
        try:
            read(record)
            read_anyway += 1
        except WireError as error:
            if error.code not in REFUSALS:
                pytest.fail(f"{record.hex()}: {error}")
    assert 5_000 < read_anyway < 40_000


def test_hostile_records_take_no_more_memory_than_a_few_times_their_size() -> None:
    draw = random.Random(20240302)
    tracemalloc.start()
    for _ in range(3_000):
        mutated = bytearray(draw.choice(RECORDS)[:-4])
        mutate(mutated, draw)
        record = bytes(mutated) + struct.pack("<I", zlib.crc32(mutated))
        try:
            decode(Update.from_bytes(record).encoded)
        except WireError:
            continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
