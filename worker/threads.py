"""Where slow work runs: training has a thread of its own, so that it never stands in the way of anything else."""

import asyncio
import queue
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


class OwnThread:
    """A `Runner` for long work: one thread, always the same one, which never keeps the process alive.

    The same one, because numeric libraries keep a pool of helpers for every thread that they meet.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Run it after what was given before."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def finish(outcome: Callable[[Any], None], value: object) -> None:
            if not future.done():
                outcome(value)

        def job() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                try:
                    result = function()
                except BaseException as error:
                    loop.call_soon_threadsafe(finish, future.set_exception, error)
                else:
                    loop.call_soon_threadsafe(finish, future.set_result, result)

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="headwater-training", daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return await future

    def close(self) -> None:
        """Let the thread end once it has nothing to do."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
