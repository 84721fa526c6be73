"""Where slow work runs: a training has a thread of its own, so that it never stands in the way of anything else."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Runner(Protocol):
    """Runs a function outside the event loop and waits for what it returns or raises."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Start it now."""


def in_pool(function: Callable[[], T]) -> Awaitable[T]:
    """Run something short in the loop's own pool of threads."""
    return asyncio.to_thread(function)


async def in_own_thread(function: Callable[[], T]) -> T:
    """Run something long in a new thread, which does not keep the process alive once nobody waits for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(outcome: Callable[[Any], None], value: object) -> None:
        if not future.done():
            outcome(value)

    def work() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            try:
                result = function()
            except BaseException as error:
                loop.call_soon_threadsafe(finish, future.set_exception, error)
            else:
                loop.call_soon_threadsafe(finish, future.set_result, result)

    threading.Thread(target=work, name="headwater-training", daemon=True).start()
    return await future
