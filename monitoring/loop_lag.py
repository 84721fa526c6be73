"""Measures how long the event loop was blocked, and beats the heart that liveness listens to."""

import asyncio
import math
import time
from collections import deque
from types import TracebackType
from typing import Self

from monitoring.logs import get_logger
from monitoring.metrics import Metrics

BUDGET_S = 0.015
"""The event loop should never be blocked for longer."""

_WINDOW = 20_000
"""Ticks remembered for the percentiles: 100 s at the usual interval."""

_QUIET_S = 10.0
"""Pause between two warnings: a loop that is often late must not be slowed further by its own log."""

_log = get_logger("event_loop")


class EventLoopLag:
    """A task that wakes every `interval_s` and notes how late it was.

    A block that begins between two ticks is seen shortened by at most `interval_s`. Use it as an async context
    manager. A lag above the budget is logged, at most once in ten seconds. `p99_s`, `max_s` and `age_s` may be read
    from any thread.
    """

    def __init__(self, metrics: Metrics, *, interval_s: float = 0.005) -> None:
        self._metrics = metrics
        self._interval_s = interval_s
        self._lags_s: deque[float] = deque(maxlen=_WINDOW)
        self._last_tick_s = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._worst_s = 0.0
        self._quiet_until_s = 0.0
        self.max_s = 0.0
        """Longest lag since the start."""

    async def __aenter__(self) -> Self:
        self._last_tick_s = time.monotonic()
        self._task = asyncio.create_task(self._tick(), name="event-loop-lag")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def p99_s(self) -> float:
        """99th percentile of the remembered ticks; 0 before the first."""
        return self.quantile_s(0.99)

    def quantile_s(self, share: float) -> float:
        """The lag that `share` of the remembered ticks did not exceed, 0 <= share <= 1; 0 before the first tick."""
        lags_s = sorted(self._lags_s.copy())
        return lags_s[max(0, math.ceil(share * len(lags_s)) - 1)] if lags_s else 0.0

    def age_s(self) -> float:
        """Seconds since the loop last ran this task: what liveness is judged by."""
        return time.monotonic() - self._last_tick_s

    async def _tick(self) -> None:
        while True:
            due_s = time.monotonic() + self._interval_s
            await asyncio.sleep(self._interval_s)
            now_s = self._last_tick_s = time.monotonic()
            lag_s = max(0.0, now_s - due_s)
            self._note(lag_s, now_s)

    def _note(self, lag_s: float, now_s: float) -> None:
        self._lags_s.append(lag_s)
        self.max_s = max(self.max_s, lag_s)
        self._metrics.event_loop_lag_seconds.observe(lag_s)
        self._worst_s = max(self._worst_s, lag_s)
        if self._worst_s > BUDGET_S and now_s >= self._quiet_until_s:
            _log.warning("event_loop_blocked", longest_s=round(self._worst_s, 4), budget_s=BUDGET_S)
            self._worst_s, self._quiet_until_s = 0.0, now_s + _QUIET_S
