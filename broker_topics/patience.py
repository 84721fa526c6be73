"""What a process may wait for when it starts: a broker that is away, for a bounded while; or to be told to stop."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from broker_topics.errors import BusError

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0

T = TypeVar("T")


@dataclass(slots=True)
class Patience:
    """One outage at a start. Each failed attempt is followed by `after`, which waits, or raises once time is over.

    limit_s: how long the broker may be away, from the first failed attempt on; 0 raises at once.
    """

    limit_s: float
    _give_up_at: float | None = None
    _pause_s: float = field(default=_FIRST_PAUSE_S)

    async def after(self, error: BusError) -> None:
        """Wait a while before the next attempt; raises `error` itself when there is no time left for one."""
        now = asyncio.get_running_loop().time()
        if self._give_up_at is None:
            self._give_up_at = now + self.limit_s
        if now >= self._give_up_at:
            raise error
        await asyncio.sleep(min(self._pause_s, self._give_up_at - now))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns or raises; None when `stop` comes first, which ends it."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, stopping):
            one.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
