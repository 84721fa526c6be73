"""Exact checks of header elements that came over the wire; each raises WireError (malformed) with the reason."""

import math
from typing import Any, Final, TypeAlias

from broker_topics.errors import RejectCode, WireError
from broker_topics.frames import Frame

Scalar: TypeAlias = str | int | float
"""A value that a person reads: a text or a finite number."""

U64: Final = 2**64 - 1
COUNT: Final = 2**53
"""The most that a counter may say: exact in every language's numbers."""

_MAX_SECTIONS: Final = 8


def row_of(header: list[object], count: int) -> list[object]:
    """The header itself, of exactly `count` elements."""
    if len(header) != count:
        raise malformed(f"the header has {len(header)} elements, {count} are expected")
    return header


def bare_row(frame: Frame, count: int) -> list[object]:
    """The header of a frame that has no payload."""
    if len(frame.body):
        raise malformed("bytes trail the header")
    return row_of(frame.header, count)


def typed(header: list[object], types: list[type]) -> list[Any]:
    """The header itself, its elements of exactly these types: one comparison, as updates are read by the thousand."""
    if list(map(type, header)) != types:
        raise malformed("an element of the header is missing, one too many, or of a wrong type")
    return header


def lengths(value: list[Any]) -> tuple[int, ...]:
    """Byte counts of sections."""
    if len(value) > _MAX_SECTIONS:
        raise malformed("there are too many sections")
    for length in value:
        if type(length) is not int or length < 0:
            raise malformed("a section's length is no byte count")
    return tuple(value)


def integer(value: object, least: int, most: int) -> int:
    """An int (never a bool) within the bounds, both included."""
    if type(value) is not int or not least <= value <= most:
        raise malformed("an integer is out of range or no integer")
    return value


def exact_bytes(value: object, count: int) -> bytes:
    """Exactly `count` bytes."""
    if type(value) is not bytes or len(value) != count:
        raise malformed(f"{count} bytes are expected")
    return value


def name(value: object, most: int, *, least: int = 1) -> str:
    """A printable text of `least` to `most` characters."""
    if type(value) is not str or not least <= len(value) <= most or not value.isprintable():
        raise malformed(f"a name of {least} to {most} printable characters is expected")
    return value


def scalar(value: object, most: int) -> Scalar:
    """A text of at most `most` characters or a finite number that MessagePack can hold."""
    if type(value) is str and len(value) <= most:
        return value
    if type(value) is int and -(2**63) <= value <= U64:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise malformed("a text or a finite number is expected")


def malformed(reason: str) -> WireError:
    """The error of a header that no peer of ours writes."""
    return WireError(RejectCode.MALFORMED, reason)
