"""The messages of a task: what a device, the aggregator and an operator tell each other, one frame each.

Reading checks the exact type and range of every element; payload sections stay views into the record and are decoded
only by `codecs.decode`. Parts of keyframes and deltas have a module of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from broker_topics import fields
from broker_topics.codecs import Encoded, codec_of
from broker_topics.errors import ConfigError, RejectCode, WireError
from broker_topics.fields import COUNT, U64, Scalar
from broker_topics.frames import MAX_HEADER_BYTES, Buffer, Frame, FrameKind, pack, split, unpack

MAX_ID: Final = 128
"""Characters of a client id."""

MAX_TASK: Final = 200
"""Characters of a task's name."""

MAX_COHORT: Final = 64
"""Characters of a cohort's name."""

HEADER_ALLOWANCE: Final = 1024
"""Bytes that envelope and header of an update never exceed."""

HASH_BYTES: Final = 8
"""Bytes of the hash that names a hidden model."""

_ENCODED_TYPES: Final[list[type]] = [int, int, int, int, list, list]
_UPDATE_TYPES: Final[list[type]] = [str, str, int, int, int, int, bytes, int, int, float, *_ENCODED_TYPES]
_DELTA_TYPES: Final[list[type]] = [str, int, int, bytes, *_ENCODED_TYPES]
_REJECT_CODES: Final = {code.value: code for code in RejectCode}
_MAX_WORK: Final = 1e6
_MAX_VALUES: Final = 32
_MAX_TEXT: Final = 256


def payload_limit(record_bytes: int) -> int:
    """What the sections of an update may take so that its record stays within `record_bytes`."""
    return record_bytes - HEADER_ALLOWANCE


def check_client_id(client_id: str) -> str:
    """The id itself; raises ConfigError unless it is 1 to 128 printable characters and may name a folder."""
    if not isinstance(client_id, str):
        raise ConfigError(f"client id {client_id!r} is {type(client_id).__name__}: give a text, such as 'w-1'")
    if not 1 <= len(client_id) <= MAX_ID or not client_id.isprintable() or client_id in (".", ".."):
        raise ConfigError(f"client id {client_id!r} is not 1 to {MAX_ID} printable characters: choose another")
    return client_id


def is_cohort(text: object) -> bool:
    r"""Whether a text may name a group of devices: "" for none, or up to 64 printable characters.

    >>> is_cohort("android-14"), is_cohort(""), is_cohort("a\n"), is_cohort("x" * 65)
    (True, True, False, False)
    """
    return isinstance(text, str) and len(text) <= MAX_COHORT and (not text or text.isprintable())


def check_cohort(cohort: str) -> str:
    """The cohort itself; raises ConfigError unless it is at most 64 printable characters."""
    if not is_cohort(cohort):
        raise ConfigError(f"cohort {cohort!r} is not at most {MAX_COHORT} printable characters: choose another")
    return cohort


class Update(NamedTuple):
    """What a device sends: a compressed delta, what it started from, and how much work is in it.

    `base_hash` is the first eight bytes of the hash of the hidden model that it started from; `work` counts the
    normalised trainings contained, ≥ 1; `num_steps` the local steps.
    """

    task: str
    client_id: str
    incarnation: int
    sequence: int
    layout: int
    base_version: int
    base_hash: bytes
    num_examples: int
    num_steps: int
    work: float
    encoded: Encoded

    def to_bytes(self) -> bytes:
        """The record; raises ConfigError if a name is too long for the header."""
        header = [self.task, self.client_id, self.incarnation, self.sequence, self.layout, self.base_version]
        header += [self.base_hash, self.num_examples, self.num_steps, float(self.work), *_encoded_header(self.encoded)]
        return pack(FrameKind.UPDATE, header, self.encoded.sections)

    @classmethod
    def from_bytes(cls, data: Buffer, *, max_bytes: int | None = None, crc: int | None = None) -> "Update":
        """Read a record without decoding its payload, as `unpack` does; raises WireError (malformed, too_large)."""
        return cls.from_frame(unpack(data, expect=FrameKind.UPDATE, max_bytes=max_bytes, crc=crc))

    @classmethod
    def from_frame(cls, frame: Frame) -> "Update":
        """As `from_bytes`, of a frame already opened."""
        row = fields.typed(frame.header, _UPDATE_TYPES)
        task, client_id, incarnation, sequence, layout, version, base_hash, examples, steps, work, *encoded = row
        if not (
            (0 < len(task) <= MAX_TASK and task.isprintable() and 0 < len(client_id) <= MAX_ID)
            and (client_id.isprintable() and incarnation >= 1 and sequence >= 0 and layout >= 0)
            and (0 <= version <= COUNT and len(base_hash) == HASH_BYTES)
            and (1 <= examples <= COUNT and 1 <= steps <= COUNT and 1 <= work <= _MAX_WORK)
        ):
            raise fields.malformed("an element of the header is out of range")
        known = task, client_id, incarnation, sequence, layout, version, base_hash, examples, steps, work
        return cls(*known, _encoded(encoded, frame.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What advances the hidden model to `version`; `base_hash` names (eight bytes) the hidden model it is added to."""

    task: str
    layout: int
    version: int
    base_hash: bytes
    encoded: Encoded

    def to_bytes(self) -> bytes:
        """The frame, of any size; raises ConfigError if the task's name is too long for the header."""
        header = [self.task, self.layout, self.version, self.base_hash, *_encoded_header(self.encoded)]
        return pack(FrameKind.DELTA, header, self.encoded.sections)

    @classmethod
    def from_bytes(cls, data: Buffer) -> "Delta":
        """Read a frame without decoding its payload; raises WireError (malformed)."""
        frame = unpack(data, expect=FrameKind.DELTA)
        row = fields.typed(frame.header, _DELTA_TYPES)
        return cls(
            task=fields.name(row[0], MAX_TASK),
            layout=fields.integer(row[1], 0, U64),
            version=fields.integer(row[2], 0, COUNT),
            base_hash=fields.exact_bytes(row[3], HASH_BYTES),
            encoded=_encoded(row[4:], frame.body),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Which record was refused, where it lies, and why; `crc` is its `frame_crc`. Advisory: the chain decides."""

    code: RejectCode
    partition: int
    offset: int
    client_id: str
    crc: int

    def to_bytes(self) -> bytes:
        """The record."""
        return pack(FrameKind.REJECT, [self.code.value, self.partition, self.offset, self.client_id, self.crc])

    @classmethod
    def from_bytes(cls, data: Buffer) -> "Reject":
        """Read a record; raises WireError (malformed)."""
        row = fields.bare_row(unpack(data, expect=FrameKind.REJECT), 5)
        return cls(
            code=_reject_code(row[0]),
            partition=fields.integer(row[1], 0, 2**31 - 1),
            offset=fields.integer(row[2], 0, COUNT),
            client_id=fields.name(row[3], MAX_ID, least=0),
            crc=fields.integer(row[4], 0, 2**32 - 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What a device tells of itself; up to 32 named values, lossy by contract, read by no rule."""

    client_id: str
    task: str
    incarnation: int
    values: Mapping[str, Scalar]

    def to_bytes(self) -> bytes:
        """The record; raises ConfigError if the values are too many or too long."""
        try:
            _telemetry_values(dict(self.values))
        except WireError as error:
            raise ConfigError(f"telemetry cannot be sent, {error.reason}: send fewer or shorter values") from error
        return pack(FrameKind.TELEMETRY, [self.client_id, self.task, self.incarnation, dict(self.values)])

    @classmethod
    def from_bytes(cls, data: Buffer) -> "Telemetry":
        """Read a record; raises WireError (malformed)."""
        row = fields.bare_row(unpack(data, expect=FrameKind.TELEMETRY), 4)
        return cls(
            client_id=fields.name(row[0], MAX_ID),
            task=fields.name(row[1], MAX_TASK),
            incarnation=fields.integer(row[2], 0, U64),
            values=_telemetry_values(row[3]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """An operator's command, such as pause, resume or roll back, and its argument if it takes one."""

    command: str
    argument: Scalar | None = None

    def to_bytes(self) -> bytes:
        """The record."""
        return pack(FrameKind.CONTROL, [self.command, self.argument])

    @classmethod
    def from_bytes(cls, data: Buffer) -> "Control":
        """Read a record; raises WireError (malformed)."""
        row = fields.bare_row(unpack(data, expect=FrameKind.CONTROL), 2)
        argument = None if row[1] is None else fields.scalar(row[1], MAX_HEADER_BYTES)
        return cls(command=fields.name(row[0], MAX_ID), argument=argument)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where to enter the chain: the newest official keyframe record's offset in `commits`, height and hash."""

    offset: int
    height: int
    record_hash: bytes

    def to_bytes(self) -> bytes:
        """The record."""
        return pack(FrameKind.HEAD, [self.offset, self.height, self.record_hash])

    @classmethod
    def from_bytes(cls, data: Buffer) -> "Head":
        """Read a record; raises WireError (malformed)."""
        row = fields.bare_row(unpack(data, expect=FrameKind.HEAD), 3)
        return cls(
            offset=fields.integer(row[0], 0, COUNT),
            height=fields.integer(row[1], 0, COUNT),
            record_hash=fields.exact_bytes(row[2], 32),
        )


def _encoded_header(encoded: Encoded) -> list[object]:
    lengths = [len(section) for section in encoded.sections]
    return [int(encoded.codec), encoded.flags, encoded.size, encoded.k, lengths, list(encoded.raw_lengths)]


def _encoded(row: list[Any], body: memoryview) -> Encoded:
    codec, flags, size, k, section_lengths, raw_lengths = row
    if not (0 <= flags <= COUNT and 1 <= size <= COUNT and 0 <= k <= COUNT):
        raise fields.malformed("a codec's number is out of range")
    sections = split(body, fields.lengths(section_lengths))
    return Encoded(codec_of(codec), flags, size, k, sections, fields.lengths(raw_lengths))


def _reject_code(value: object) -> RejectCode:
    code = _REJECT_CODES.get(value) if type(value) is str else None
    if code is None:
        raise fields.malformed("the reject code is unknown")
    return code


def _telemetry_values(value: object) -> dict[str, Scalar]:
    if type(value) is not dict or len(value) > _MAX_VALUES:
        raise fields.malformed(f"at most {_MAX_VALUES} named values are expected")
    return {fields.name(key, MAX_ID): fields.scalar(item, _MAX_TEXT) for key, item in value.items()}
