"""An event loop whose clock jumps to the next timer: hours of protocol time in seconds, the same way every time."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_MOST_TURNS = 100_000
"""Turns of the loop without time passing that no honest work needs."""


class _NoWaiting(selectors.BaseSelector):
    """Never waits and never has anything ready; tells the loop how long it would have slept."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        self._jump = jump

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return {}

    def select(self, timeout: float | None = None) -> list[Any]:
        self._jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when nobody can run; work for threads is done at once, in place."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._turns = 0
        super().__init__(_NoWaiting(self._jump))

    def time(self) -> float:
        return self.now_s

    def run_in_executor(  # type: ignore[override]  # a variadic signature that nobody needs here
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:
            future.set_exception(error)
        return future

    def _jump(self, timeout: float | None) -> None:
        if timeout is None:
            raise RuntimeError("everybody waits for ever: a deadlock")
        self._turns = 0 if timeout else self._turns + 1
        if self._turns > _MOST_TURNS:
            raise RuntimeError("somebody works for ever while no time passes: a busy loop")
        self.now_s += timeout


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        for _ in range(3):  # what is cancelled may begin something to wind down
            left = asyncio.all_tasks(loop)
            if not left:
                break
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
