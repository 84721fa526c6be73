"""Two pieces of work at a time: what numpy and hashlib do to large vectors leaves the interpreter to others."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

LARGE = 1 << 18
"""Numbers of a model from which two threads move it sooner than one."""

_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="second")
_here = threading.local()


def together(first: Callable[[], A], second: Callable[[], B], *, worth_it: bool) -> tuple[A, B]:
    """What both give; `second` runs in another thread meanwhile where that is worth it, and this is not that one.

    An error of `first` is raised after `second` has ended: nothing goes on behind the caller's back.

    >>> together(lambda: 1, lambda: 2, worth_it=True)
    (1, 2)
    """
    if not worth_it or getattr(_here, "is_second", False):
        return first(), second()
    future = _pool.submit(_as_second, second)
    try:
        return first(), future.result()
    finally:
        future.exception()


def _as_second(work: Callable[[], B]) -> B:
    _here.is_second = True
    return work()
