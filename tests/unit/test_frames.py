"""The envelope of every record: what `pack` writes is read back, everything else is refused."""

import struct
import zlib

import msgpack
import pytest

from broker_topics.errors import ConfigError, RejectCode, WireError
from broker_topics.frames import FrameKind, frame_crc, pack, split, unpack


def seal(before_crc: bytes) -> bytes:
    return before_crc + struct.pack("<I", zlib.crc32(before_crc))


def framed(header: bytes, body: bytes = b"", *, magic: bytes = b"HW", version: int = 1) -> bytes:
    return seal(magic + struct.pack("<BH", version, len(header)) + header + body)


def refusal(data: bytes, **options: object) -> RejectCode:
    with pytest.raises(WireError) as caught:
        unpack(data, **options)  # type: ignore[arg-type]
    return caught.value.code


def test_a_frame_comes_back_with_its_kind_header_and_body() -> None:
    frame = unpack(pack(FrameKind.CONTROL, ["pause", None, 1.5, b"\x00"], [b"ab", memoryview(b"cd")]))
    assert frame.kind is FrameKind.CONTROL
    assert frame.header == ["pause", None, 1.5, b"\x00"]
    assert bytes(frame.body) == b"abcd"


def test_the_body_is_a_view_that_cannot_be_written() -> None:
    record = bytearray(pack(FrameKind.HEAD, [], [b"payload"]))
    body = unpack(record).body
    assert body.readonly
    record[-5] ^= 1
    assert bytes(body) == b"payloae"


def test_the_crc_of_a_frame_is_the_one_at_its_end() -> None:
    record = pack(FrameKind.HEAD, [1, 2], [b"payload"])
    assert frame_crc(record) == zlib.crc32(record[:-4]) == unpack(record).crc
    assert record[-4:] == struct.pack("<I", frame_crc(record))


@pytest.mark.parametrize("size", [5_119, 5_120, 5_121, 30_000, 65_536, 65_537, 200_000])
def test_the_crc_of_a_long_frame_is_the_one_of_all_its_bytes(size: int) -> None:
    record = pack(FrameKind.HEAD, [1, 2], [bytes(range(256)) * (size // 256), b"z" * (size % 256)])
    assert frame_crc(record) == zlib.crc32(record[:-4]) == unpack(record).crc


def test_two_frames_differ_in_crc_although_a_plain_crc_of_them_would_not() -> None:
    one, other = pack(FrameKind.HEAD, [1]), pack(FrameKind.HEAD, [2])
    assert zlib.crc32(one) == zlib.crc32(other)
    assert frame_crc(one) != frame_crc(other)


@pytest.mark.parametrize("garbage", [b"", b"x", b"HW", b"four", b"garbage", bytes(100)])
def test_garbage_has_a_crc_too(garbage: bytes) -> None:
    assert frame_crc(garbage) == zlib.crc32(garbage)


def test_a_frame_with_a_damaged_end_has_another_crc() -> None:
    record = pack(FrameKind.HEAD, [1])
    damaged = record[:-1] + bytes([record[-1] ^ 1])
    assert frame_crc(damaged) != frame_crc(record)


@pytest.mark.parametrize("length", range(20))
def test_a_frame_cut_short_is_malformed(length: int) -> None:
    assert refusal(pack(FrameKind.HEAD, [1, 2, b"0123456789"])[:length]) is RejectCode.MALFORMED


def test_every_flipped_bit_is_noticed() -> None:
    record = pack(FrameKind.REJECT, ["stale", 3, 17], [b"abc"])
    for position in range(8 * len(record)):
        flipped = bytearray(record)
        flipped[position // 8] ^= 1 << position % 8
        assert refusal(bytes(flipped)) is RejectCode.MALFORMED


@pytest.mark.parametrize(
    "record",
    [
        framed(msgpack.packb([1]), magic=b"HV"),
        framed(msgpack.packb([1]), version=0),
        framed(msgpack.packb([1]), version=2),
        framed(msgpack.packb([])),
        framed(msgpack.packb({1: 1})),
        framed(msgpack.packb(1)),
        framed(msgpack.packb([0])),
        framed(msgpack.packb([8])),
        framed(msgpack.packb([True])),
        framed(msgpack.packb([1.0])),
        framed(msgpack.packb(["1"])),
        framed(msgpack.packb([1]) + b"\x00"),
        framed(b"\xdc\xff\xff"),
        framed(b"\xdd\xff\xff\xff\xff"),
        framed(b"\x91" * 4096),
        framed(b"\x92\x01\xc1"),
        framed(b"\x92\x01\xa1\xff"),
        framed(b"\x92\x01\xc7\x0c\xff" + b"\xff" * 12),
        framed(b"\x92\x01\x81\x90\x01"),
        framed(b""),
        framed(msgpack.packb([1, b"x" * 5000])),
    ],
)
def test_a_sealed_frame_that_pack_could_not_write_is_malformed(record: bytes) -> None:
    assert refusal(record) is RejectCode.MALFORMED


def test_a_header_longer_than_the_frame_is_malformed() -> None:
    assert refusal(seal(b"HW\x01" + struct.pack("<H", 40) + msgpack.packb([1]))) is RejectCode.MALFORMED


def test_another_kind_than_the_expected_one_is_malformed() -> None:
    assert refusal(pack(FrameKind.HEAD, [1]), expect=FrameKind.UPDATE) is RejectCode.MALFORMED


def test_a_record_above_the_limit_is_too_large_before_anything_is_read() -> None:
    assert refusal(b"x" * 101, max_bytes=100) is RejectCode.TOO_LARGE
    assert unpack(pack(FrameKind.HEAD, [1]), max_bytes=100).header == [1]


def test_a_header_above_4096_bytes_cannot_be_written() -> None:
    assert len(unpack(pack(FrameKind.TELEMETRY, ["x" * 4091])).header[0]) == 4091  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shorten names or values"):
        pack(FrameKind.TELEMETRY, ["x" * 4092])


def test_sections_are_cut_in_order_and_must_fill_the_body() -> None:
    body = memoryview(b"aabbb")
    assert [bytes(part) for part in split(body, [2, 0, 3])] == [b"aa", b"", b"bbb"]
    for lengths in ([2, 2], [2, 4], []):
        with pytest.raises(WireError):
            split(body, lengths)
