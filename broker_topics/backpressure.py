"""A bound on the bytes that are under way: callers wait in line, nothing is dropped."""

import asyncio
from collections import deque

MAX_BYTES_UNDER_WAY = 8 * 1024 * 1024
"""What one bus has under way unless told otherwise; more only fills memory, the link is full long before."""


class ByteBudget:
    """Lets in callers, first come first served, while at most `limit` bytes are under way.

    One caller is always let in, whatever its size, so that nothing waits for ever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.under_way = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def release(self, size: int) -> None:
        """Give back what `acquire` let in."""
        self.under_way -= size
        self._admit()

    async def acquire(self, size: int) -> None:
        """Wait for room for `size` bytes; every acquired byte must be released."""
        if not self._waiting and self._fits(size):
            self.under_way += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.under_way -= size
            self._admit()
            raise

    def _fits(self, size: int) -> bool:
        return self.under_way == 0 or self.under_way + size <= self.limit

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif self._fits(size):
                self._waiting.popleft()
                self.under_way += size
                turn.set_result(None)
            else:
                return
