"""Named points before and after each read and write of a role, at which a test ends the process as kill -9 does.

`HEADWATER_CRASH_AT=append:after:3` ends a role of the command line once its third append is in the log. Nothing is
armed unless a command asks for it with `arm`; where none is armed, a point costs a look into an empty list.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType

from broker_topics.errors import ConfigError

VARIABLE = "HEADWATER_CRASH_AT"


class Io(StrEnum):
    """What is read or written. Each has two points, `name:before` and `name:after`; the latter only if it succeeded."""

    # Whoever makes a task
    CREATE_TOPICS = "create_topics"
    # The aggregator starts
    READ_HEAD = "read_head"
    READ_COMMITS = "read_commits"
    READ_KEYFRAME = "read_keyframe"
    LOAD_CACHE = "load_cache"
    READ_ENDS = "read_ends"
    READ_INPUTS = "read_inputs"
    # The aggregator serves
    FETCH = "fetch"
    PART = "part"
    APPEND = "append"
    READ_BACK = "read_back"
    REJECT = "reject"
    HEAD = "head"
    SWEEP_READ = "sweep_read"
    TOMBSTONE = "tombstone"
    CACHE_STORE = "cache_store"
    WATCH = "watch"
    READ_TELEMETRY = "read_telemetry"
    PROBE_PARTS = "probe_parts"
    # The aggregator mends a log that lost something
    PUT_BACK = "put_back"
    FILL_UP = "fill_up"
    # A device's outbox: one store each, by what it makes durable; and the write inside its transaction
    OUTBOX_OPEN = "outbox_open"
    OUTBOX_WRITE = "outbox_write"
    STORE_TRAINING = "store_training"
    STORE_BEFORE_SEND = "store_before_send"
    STORE_OFFSET = "store_offset"
    STORE_SETTLED = "store_settled"
    STORE_GIVEN_BACK = "store_given_back"
    # A device and the log
    ENTER = "enter"
    FOLLOW = "follow"
    PRODUCE = "produce"
    SEND_TELEMETRY = "send_telemetry"

    @property
    def points(self) -> tuple[str, str]:
        """Its two points."""
        return f"{self}:before", f"{self}:after"


POINTS = tuple(point for io in Io for point in io.points)
"""Every point there is."""

Listener = Callable[[str], None]
_listeners: list[Listener] = []


class _Passing:
    __slots__ = ("_after", "_before")

    def __init__(self, io: Io) -> None:
        self._before, self._after = io.points

    def __enter__(self) -> None:
        for listener in _listeners:
            listener(self._before)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for listener in _listeners if kind is None else ():
            listener(self._after)


_PASSING = {io: _Passing(io) for io in Io}


def passing(io: Io) -> _Passing:
    """What stands around a read or write: it tells both points to whoever listens."""
    return _PASSING[io]


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Tell every point that is passed while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def arm(environ: Mapping[str, str]) -> str | None:
    """Let this process end by SIGKILL where the variable says; what it says, None if it is not set.

    Raises:  ConfigError: there is no such point.
    """
    text = environ.get(VARIABLE)
    if not text:
        return None
    point, _, count = text.rpartition(":")
    if point not in POINTS or not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"{VARIABLE} = {text!r} is no point:count such as append:after:3; leave it unset in real use")
    _listeners.append(_ends_at(point, int(count)))
    return text


def _ends_at(point: str, count: int) -> Listener:
    left = count

    def ends(passed: str) -> None:
        nonlocal left
        left -= passed == point
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return ends
