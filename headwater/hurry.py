"""A quick start for a process that a whole fleet waits for."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hurried() -> Iterator[None]:
    """Import without the garbage collector, and logs without the colours that structlog would import for a terminal.

    Together a third of what importing the aggregator costs.
    """
    there = gc.isenabled()
    gc.disable()
    try:
        _import_structlog_plain()
        yield
    finally:
        if there:
            gc.enable()


def _import_structlog_plain() -> None:
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
