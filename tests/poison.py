"""A corpus of hostile updates, each with the code that it must get. What it says must hold on any bus.

Every record is some device's own, so that one refusal never changes the next; those that belong together (a sequence
used twice, an incarnation that went back) share a device and stand in order. `ACCEPTED` marks the honest ones among
them.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgpack
import numpy as np
import zstandard

from broker_topics.codecs import CodecId, Encoded, encode
from broker_topics.frames import FORMAT, MAGIC, FrameKind, pack
from broker_topics.layout import Layout, Tensor
from broker_topics.messages import Control, Head, Reject, RejectCode, Telemetry, Update
from broker_topics.partitions import partition_of
from broker_topics.parts import cut
from broker_topics.topics import UPDATE_PARTITIONS
from tests.unit.codec_vectors import heavy_tailed, with_section
from tests.unit.test_codecs_hostile import lying_frames, plain

LAYOUT = Layout(tensors=(Tensor(name="w", shape=(40, 50)),))
SIZE = 2000
MAX_UPDATE_BYTES = 16 * 1024
ACCEPTED = "accepted"

Key = bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """One hostile record: what is wrong with it, what it is, where it goes, and the code that it must get."""

    name: str
    code: str
    key: Key
    value: bytes | None
    partition: int
    headers: Sequence[tuple[str, bytes]] = field(default=())


class Corpus:
    """Makes all records for one task, whose genesis has `base_hash`."""

    def __init__(self, task: str, base_hash: bytes) -> None:
        self._task, self._base_hash = task, base_hash
        self._count = 0
        self._sparse = encode(heavy_tailed(SIZE), CodecId.SPARSE, density=0.1)
        self._float = encode(heavy_tailed(SIZE), CodecId.FLOAT32)

    def records(self) -> Iterator[Poison]:
        """All of them, in the order in which they are to be sent."""
        yield from self._frames()
        yield from self._bombs()
        yield from self._elements()
        yield from self._identities()
        yield from self._bases()
        yield from self._dense_payloads()
        yield from self._sparse_payloads()
        yield from self._series()
        yield from self._kafka()

    def _update(self, **changed: object) -> Update:
        """An honest update of a device of its own, but for what is changed."""
        self._count += 1
        fields: dict[str, object] = {
            "task": self._task,
            "client_id": f"p-{self._count}",
            "incarnation": 1,
            "sequence": 1,
            "layout": LAYOUT.fingerprint,
            "base_version": 0,
            "base_hash": self._base_hash,
            "num_examples": 8,
            "num_steps": 1,
            "work": 1.0,
            "encoded": self._sparse,
        }
        return Update(**{**fields, **changed})  # type: ignore[arg-type]

    def _of(self, name: str, code: str, update: Update) -> Poison:
        return self._raw(name, code, update.to_bytes(), client_id=update.client_id)

    def _raw(self, name: str, code: str, value: bytes | None, *, client_id: str = "") -> Poison:
        self._count += 1
        key = (client_id or f"p-{self._count}").encode()
        return Poison(name=name, code=code, key=key, value=value, partition=partition_of(key, UPDATE_PARTITIONS))

    def _frames(self) -> Iterator[Poison]:
        whole = self._update().to_bytes()
        for size in range(10):
            yield self._raw(f"{size} bytes", "malformed", whole[:size])
        for size in np.linspace(10, len(whole) - 1, 40).astype(int).tolist():
            yield self._raw(f"cut after {size} bytes", "malformed", whole[:size])
        for place in np.linspace(0, len(whole) - 1, 60).astype(int).tolist():
            flipped = whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
            yield self._raw(f"bit {place % 8} of byte {place} flipped", "malformed", flipped)
        for extra in (b"\0", b"HW", whole, bytes(4096)):
            yield self._raw(f"{len(extra)} bytes behind the end", "malformed", whole + extra)
        for version in (0, 2, 3, 127, 255):
            yield self._raw(f"frame format {version}", "malformed", sealed(whole[5:-4], version=version, lie=None))
        for lie in (0, 1, len(whole), 4097, 65535):
            yield self._raw(f"header of {lie} bytes declared", "malformed", sealed(whole[5:-4], lie=lie))
        for random in range(10):
            yield self._raw("noise", "malformed", np.random.default_rng(random).bytes(50 * random + 9))
        yield self._raw("foreign magic", "malformed", b"XW" + whole[2:])
        for size in (MAX_UPDATE_BYTES + 1, 100_000, 1024 * 1024):
            yield self._raw(f"{size} bytes of noise", "too_large", np.random.default_rng(size).bytes(size))
            yield self._raw(f"{size} zero bytes", "too_large", bytes(size))
        for kind, other in {
            "telemetry": Telemetry(client_id="p", task=self._task, incarnation=1, values={}).to_bytes(),
            "control": Control(command="pause").to_bytes(),
            "head": Head(offset=0, height=0, record_hash=bytes(32)).to_bytes(),
            "reject": Reject(code=RejectCode.NORM, partition=0, offset=0, client_id="p", crc=0).to_bytes(),
            "part": next(cut("hidden", bytes(100))).value,
        }.items():
            yield self._raw(f"a {kind} instead of an update", "malformed", other)

    def _bombs(self) -> Iterator[Poison]:
        """Headers that would cost a careless reader memory, time or its stack."""
        headers = {
            "4,000 arrays within another": b"\x91" * 4000 + b"\xc0",
            "4,000 maps within another": b"\x81\x01" * 2000 + b"\xc0",
            "an array of 4 G": b"\xdd\xff\xff\xff\xff",
            "a map of 4 G": b"\xdf\xff\xff\xff\xff",
            "a text of 4 G": b"\x91\xdb\xff\xff\xff\xff",
            "4 G of bytes": b"\x91\xc6\xff\xff\xff\xff",
            "an extension of 4 G": b"\x91\xc9\xff\xff\xff\xff\x01",
            "an extension type": b"\x91\xd4\x05\x00",
            "a time stamp": b"\x91\xd6\xff\x00\x00\x00\x00",
            "a map with a list for a key": b"\x81\x91\x01\x01",
            "4,000 elements": msgpack.packb([1] * 4000),
            "no element": b"\x90",
            "a number": b"\x01",
            "a text": b"\xa1x",
            "nothing": b"",
            "the byte that is never used": b"\xc1",
            "text that is no UTF-8": b"\x91\xa2\xff\xfe",
            "two headers": b"\x91\x01\x91\x01",
        }
        for name, header in headers.items():
            yield self._raw(f"header: {name}", "malformed", sealed(header))

    def _elements(self) -> Iterator[Poison]:
        """Every element of the header with every kind of wrong value."""
        wrong: dict[int, list[object]] = {
            1: [None, 7, b"t", "", "t" * 201, "a\nb"],
            2: [None, 7, b"p", "", "p" * 129, "p\0", "p\u202e"],
            3: [None, True, -1, 0, 1.0, "1", []],
            4: [None, True, -1, 1.0, "1", [1]],
            5: [None, True, -1, 0.5, b"8"],
            6: [None, True, -1, 2.0, "0", 2**60],
            7: [None, 7, "", b"", bytes(7), bytes(9), bytes(32)],
            8: [None, True, 0, -1, 8.0, 2**60],
            9: [None, True, 0, -1, 1.5, 2**60],
            10: [None, True, 1, 0.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e300],
            11: [None, True, -1, 3, 5, 99, 4.0, 2**60],
            12: [None, True, -1, 0.0, 2**60],
            13: [None, True, 0, -1, 2000.0, 2**60],
            14: [None, True, -1, 1.0, 2**60],
            15: [None, 7, [], [1] * 9, [-1, 1, 1], [1.0, 1, 1], [2**63, 1, 1], ["a"]],
            16: [None, 7, [1] * 9, [-1, 1, 1], [True, 1, 1], [None]],
        }
        for place, values in wrong.items():
            for value in values:
                header, sections = self._row()
                header[place - 1] = value
                name = f"element {place} is {str(value)[:20]}"
                yield self._raw(name, "malformed", pack(FrameKind.UPDATE, header, sections))
        header, sections = self._row()
        for short in range(len(header)):
            yield self._raw(f"{short} elements", "malformed", pack(FrameKind.UPDATE, header[:short], sections))
        for more in (None, 1, [1, 2, 3], {"a": 1}):
            yield self._raw("an element of the future", "malformed", pack(FrameKind.UPDATE, [*header, more], sections))
        for sections in ((), self._sparse.sections[:2], (*self._sparse.sections, b"more")):
            name = f"{len(sections)} sections where 3 are declared"
            yield self._raw(name, "malformed", pack(FrameKind.UPDATE, header, sections))

    def _row(self) -> tuple[list[object], tuple[object, ...]]:
        """The header of an honest update and its sections."""
        whole = self._update().to_bytes()
        length = int.from_bytes(whole[3:5], "little")
        return msgpack.unpackb(whole[5 : 5 + length])[1:], self._sparse.sections

    def _identities(self) -> Iterator[Poison]:
        for task in ("another", self._task.upper(), self._task + "x", "t"):
            yield self._of(f"for task {task}", "wrong_task", self._update(task=task))
        keys: list[Key] = [None, b"", b"p-999999", b"P-1", b"\xff\xfe", b"p-1\0", bytes(1000)]
        for key in keys:
            honest = self._of("", "", self._update())
            yield replace(honest, name=f"key {str(key)[:20]}", code="identity", key=key)
        for shift in range(1, UPDATE_PARTITIONS):
            honest = self._of("", "", self._update())
            other = (honest.partition + shift) % UPDATE_PARTITIONS
            yield replace(honest, name=f"partition + {shift}", code="identity", partition=other)
        for layout in (0, 1, LAYOUT.fingerprint ^ 1, 2**64 - 1):
            yield self._of(f"layout {layout:x}", "unknown_layout", self._update(layout=layout))
        for size in (1, SIZE - 1, SIZE + 1, 2**31, 2**53):
            larger = self._sparse._replace(size=size)
            yield self._of(f"{size} numbers", "unknown_layout", self._update(encoded=larger))

    def _bases(self) -> Iterator[Poison]:
        for version in (1_000, 10**6, 2**31, 2**53):
            yield self._of(f"base version {version}", "future_version", self._update(base_version=version))
        for number in range(8):
            other = bytearray(self._base_hash)
            other[number] ^= 1
            yield self._of(f"byte {number} of the base", "unknown_base", self._update(base_hash=bytes(other)))
        yield self._of("a base of zeros", "unknown_base", self._update(base_hash=bytes(8)))

    def _dense_payloads(self) -> Iterator[Poison]:
        for codec in (CodecId.FLOAT32, CodecId.BFLOAT16, CodecId.INT8):
            dense = encode(heavy_tailed(SIZE), codec)
            for name, wrong in wrong_lengths(dense):
                yield self._of(f"{codec.name.lower()}: {name}", "bad_payload", self._update(encoded=wrong))
        for number in (np.nan, np.inf, -np.inf):
            for place in (0, SIZE // 2, SIZE - 1):
                vector = heavy_tailed(SIZE).copy()
                vector[place] = number
                wrong = with_section(self._float, 0, vector.tobytes())
                yield self._of(f"{number} at {place}", "non_finite", self._update(encoded=wrong))
                upper = (vector.view(np.uint32) >> 16).astype("<u2").tobytes()
                wrong = with_section(encode(heavy_tailed(SIZE), CodecId.BFLOAT16), 0, upper)
                yield self._of(f"{number} at {place}, bfloat16", "non_finite", self._update(encoded=wrong))
        int8 = encode(heavy_tailed(SIZE), CodecId.INT8)
        for base, code in (
            (np.nan, "non_finite"),
            (np.inf, "non_finite"),
            (3e38, "non_finite"),
            (1e36, "norm"),
            (-1.0, "bad_payload"),
        ):
            scales = struct.pack("<f", base) + bytes(int8.sections[0][4:])
            yield self._of(f"int8 scale {base}", code, self._update(encoded=with_section(int8, 0, scales)))
        numbers = b"\x80" + bytes(int8.sections[1][1:])
        yield self._of("int8 −128", "bad_payload", self._update(encoded=with_section(int8, 1, numbers)))
        for size in (1e30, 1e37, 3e38):
            huge = encode(np.full(SIZE, size, np.float32), CodecId.FLOAT32)
            yield self._of(f"every number {size}", "norm", self._update(encoded=huge))

    def _sparse_payloads(self) -> Iterator[Poison]:
        for name, wrong in wrong_lengths(self._sparse):
            yield self._of(f"sparse: {name}", "bad_payload", self._update(encoded=wrong))
        one = plain(bytes([0, 0, 255, 3]), bytes([0, 1, 2]), 1.0, 1.5)
        yield self._of("an honest sparse update", ACCEPTED, self._update(encoded=one))
        for bit in (5, 6, 7, 31, 52):
            wrong = self._sparse._replace(flags=self._sparse.flags | 1 << bit)
            yield self._of(f"flag {bit}", "bad_payload", self._update(encoded=wrong))
        for name, encoded in impossible_sparse():
            yield self._of(f"sparse: {name}", "bad_payload", self._update(encoded=encoded))
        for name, threshold, means in (
            ("threshold NaN", float("nan"), (1.0,)),
            ("threshold infinite", float("inf"), (1.0,)),
            ("mean NaN", 1.0, (1.0, float("nan"))),
            ("mean infinite", 1.0, (float("inf"),)),
            ("levels that overflow", 1e30, (1.0,) * 32),
        ):
            wrong = plain(bytes(2), bytes(2), *means, threshold=threshold)
            yield self._of(f"sparse: {name}", "non_finite", self._update(encoded=wrong))
        raw = bytes(300)
        for name, frame in lying_frames(raw).items():
            for index, flag in ((0, 2), (1, 4)):
                honest = plain(raw, raw, 1.0, size=SIZE)._replace(flags=flag)
                wrong = with_section(honest, index, frame, 300)
                yield self._of(f"zstd section {index} {name}", "bad_payload", self._update(encoded=wrong))
        for declared in (2**20, 2**31, 2**53):
            wrong = self._sparse._replace(raw_lengths=(declared, *self._sparse.raw_lengths[1:]))
            yield self._of(f"{declared} raw bytes declared", "bad_payload", self._update(encoded=wrong))
        bomb = zstandard.ZstdCompressor(level=1).compress(bytes(100_000_000))
        for index in (0, 1):
            wrong = with_section(self._sparse._replace(flags=2 * (index + 1)), index, bomb, 100_000_000)
            yield self._of(f"a bomb that tells its size, section {index}", "bad_payload", self._update(encoded=wrong))

    def _series(self) -> Iterator[Poison]:
        """Sequences and incarnations that are used twice, go back or leap ahead."""
        small = encode(np.full(SIZE, 1e-6, np.float32), CodecId.FLOAT32)
        for number in range(8):
            name = f"twin-{number}"
            first, other = self._update(client_id=name), self._update(client_id=name, num_examples=9)
            yield self._of("the first of two", ACCEPTED, first)
            yield self._of("the same bytes again", "duplicate", first)
            yield self._of("other bytes of the same sequence", "conflict", other)
            yield self._of("the first bytes once more", "duplicate", first)
            yield self._of("the next one", ACCEPTED, self._update(client_id=name, sequence=2, encoded=small))
            yield self._of("the first one again", "passed", first)
            yield self._of("a leap", "sequence_jump", self._update(client_id=name, sequence=1_000_003))
            yield self._of("a leap to the end", "sequence_jump", self._update(client_id=name, sequence=2**60))
            yield self._of("installed anew", ACCEPTED, self._update(client_id=name, incarnation=2, encoded=small))
            yield self._of("the old installation", "retired", self._update(client_id=name, sequence=3))
            worse = self._update(client_id=name, incarnation=2, sequence=2, layout=7)
            yield self._of("refused for its layout", "unknown_layout", worse)
            yield self._of("refused, and the same again", "duplicate", worse)
            mended = self._update(client_id=name, incarnation=2, sequence=2)
            yield self._of("refused, then mended under the same sequence", "conflict", mended)

    def _kafka(self) -> Iterator[Poison]:
        """What only a foreign Kafka client can write."""
        for number in range(6):
            yield self._raw(f"tombstone {number}", "malformed", None)
        for partition in range(UPDATE_PARTITIONS):
            nothing = self._raw("neither key nor value", "malformed", None)
            yield replace(nothing, key=None, partition=partition)
        honest = self._of("10,000 headers beside an honest update", ACCEPTED, self._update())
        yield replace(honest, headers=[(f"h{n}", b"x") for n in range(10_000)])
        honest = self._of("a header of 900 kB beside an honest update", ACCEPTED, self._update())
        yield replace(honest, headers=[("h", bytes(900_000))])
        wrong = self._raw("10,000 equal headers beside nothing", "malformed", b"")
        yield replace(wrong, headers=[("h", b"")] * 10_000)


def sealed(header: bytes, body: bytes = b"", *, version: int = FORMAT, lie: int | None = None) -> bytes:
    """A frame with a sound CRC around anything; `lie` is what it declares as the header's length."""
    length = len(header) if lie is None else lie
    whole = struct.pack("<2sBH", MAGIC, version, min(length, 65535)) + header + body
    return whole + struct.pack("<I", zlib.crc32(whole))


def wrong_lengths(encoded: Encoded) -> Iterator[tuple[str, Encoded]]:
    """The same numbers in sections that are too long, too short, or declared as something else."""
    for index, section in enumerate(encoded.sections):
        whole = bytes(section)
        for name, changed in (("a byte less", whole[:-1]), ("a byte more", whole + b"\0"), ("empty", b"")):
            yield f"section {index} {name}", with_section(encoded, index, changed)
            yield (
                f"section {index} {name}, undeclared",
                with_section(encoded, index, changed, encoded.raw_lengths[index]),
            )
    for k in (0, 1, encoded.k - 1, encoded.k + 1, SIZE // 2, 2**53):
        if k != encoded.k:
            yield f"k = {k}", encoded._replace(k=k)
    yield "no raw lengths", encoded._replace(raw_lengths=())
    yield "one raw length too many", encoded._replace(raw_lengths=(*encoded.raw_lengths, 1))
    doubled = encoded._replace(sections=encoded.sections * 2, raw_lengths=encoded.raw_lengths * 2)
    yield "its sections twice", doubled


def impossible_sparse() -> Iterator[tuple[str, Encoded]]:
    """Positions, symbols and codebooks that no encoder writes."""
    yield "more gaps than values", plain(bytes([0, 0, 0]), bytes([0, 1]), 1.0)
    yield "a skip for a value", plain(bytes([0, 255]), bytes([0, 1]), 1.0)
    yield "a skip at the end", plain(bytes([0, 0, 255]), bytes([0, 1]), 1.0)
    yield "nothing but skips", plain(bytes([255] * 9), bytes([0, 0]), 1.0)
    yield "a position behind the end", plain(bytes([0] + [255] * 7 + [250]), bytes([0, 0]), 1.0)
    yield "no value", plain(b"", b"", 1.0)
    yield "more values than a fifth", plain(bytes(401), bytes(401), 1.0)
    yield "fewer symbols than k", plain(bytes(2), bytes(2), 1.0, k=3)
    yield "a symbol beyond the codebook", plain(bytes(2), bytes([0, 2]), 1.0)
    yield "the largest symbol", plain(bytes(2), bytes([0, 255]), 1.0)
    yield "no codebook", plain(bytes(2), bytes(2))
    yield "33 levels", plain(bytes(2), bytes(2), *[1.0] * 33)
    yield "a negative mean", plain(bytes(2), bytes(2), -1.0)
    yield "threshold zero", plain(bytes(2), bytes(2), 1.0, threshold=0.0)
    yield "a negative threshold", plain(bytes(2), bytes(2), 1.0, threshold=-1.0)
    whole = encode(heavy_tailed(SIZE), CodecId.SPARSE, dense=(slice(100, 200), slice(300, 400)))
    for edges, values in (
        ([], 0),
        ([0], 0),
        ([5, 5], 0),
        ([7, 5], 0),
        ([100, 200, 199, 210], 111),
        ([300, 400, 100, 200], 200),
        ([SIZE - 5, SIZE + 1], 6),
        ([100, 200], 99),
        ([100, 200], 101),
        ([0, SIZE], SIZE),
        ([0, 2**32 - 1], SIZE),
    ):
        table = np.array(edges, "<u4").tobytes()
        yield f"segments {edges}", with_section(with_section(whole, 3, table), 4, bytes(2 * values))
