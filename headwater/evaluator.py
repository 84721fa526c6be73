"""Scores the served model on held-out data as it advances, and tells the fleet's operators through telemetry."""

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import Any

from aggregator.insight.telemetry import EVALUATOR
from broker_topics.bus import Bus
from broker_topics.commits_log import ChainLostError
from broker_topics.errors import BusError, ConfigError
from broker_topics.follow import Follower
from broker_topics.messages import Telemetry
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger
from worker.adapters import Adapter, adapter_for, check_layout

_POLL_S = 1.0
_RETRY_S = 1.0
_MAX_SCORES = 16
_MAX_NAME = 64
_TAKEN = frozenset({"version", "event", "level", "logger", "timestamp"})

Scores = Mapping[str, float]

log = get_logger("evaluator")


@dataclass(slots=True)
class Evaluator:
    """Follows a task like a device, and calls `evaluate(model)` with the served average of each version it meets.

    Versions that pass while one is being scored are skipped: the newest one is scored next.

    model: the user's model object; its numbers are overwritten. evaluate: returns named scores, for example
    `{"accuracy": 0.93, "loss": 0.21}`; runs in a thread. on_score: told of each version and its scores.
    """

    bus: Bus
    task: str
    model: Any
    evaluate: Callable[[Any], Scores]
    stop: asyncio.Event
    on_score: Callable[[int, Scores], None] | None = None
    min_interval_s: float = 0.0

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:  ConfigError: the model is not the task's, or the function returned no named numbers.
        """
        adapter = adapter_for(self.model)
        follower = Follower(self.bus, self.task)
        try:
            while not self.stop.is_set():
                try:
                    await self._enter(follower, adapter)
                    await self._follow(follower, adapter)
                except (ChainLostError, BusError) as error:
                    log.warning("broker_unreachable", reason=str(error))
                    await asyncio.sleep(_RETRY_S)
        finally:
            await follower.close()

    async def _enter(self, follower: Follower, adapter: Adapter) -> None:
        await follower.enter()
        check_layout(adapter.layout, follower.layout)

    async def _follow(self, follower: Follower, adapter: Adapter) -> None:
        scored = -1
        while not self.stop.is_set():
            if follower.model.version != scored:
                scored = follower.model.version
                await self._score(follower, adapter)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.min_interval_s):
                        await self.stop.wait()
            await follower.poll(timeout_s=_POLL_S)

    async def _score(self, follower: Follower, adapter: Adapter) -> None:
        version = follower.model.version
        adapter.load(follower.model.served)
        try:
            scores = await asyncio.to_thread(self.evaluate, self.model)
        except Exception as error:
            log.warning("evaluation_failed", version=version, reason=f"{type(error).__name__}: {error}")
            return
        numbers = numbers_of(scores)
        if self.on_score is not None:
            self.on_score(version, numbers)
        log.info("version_evaluated", version=version, **numbers)
        await self._report(version, numbers)

    async def _report(self, version: int, scores: Scores) -> None:
        finite = {name: score for name, score in scores.items() if math.isfinite(score)}
        values = {"version": version, **finite}
        report = Telemetry(client_id=EVALUATOR, task=self.task, incarnation=1, values=values)
        topic, key = topic_name(self.task, Topic.TELEMETRY), EVALUATOR.encode()
        with suppress(BusError):  # telemetry is lossy; the next version is scored and reported again
            partition = await self.bus.partition_for(topic, key)
            await self.bus.send(topic, key=key, value=report.to_bytes(), partition=partition)


def numbers_of(scores: object) -> dict[str, float]:
    """What an evaluation function returned, as named numbers of Python; they may be infinite or NaN.

    Raises:  ConfigError: it is something else.

    >>> import numpy as np
    >>> numbers_of({"accuracy": np.float32(0.5)})
    {'accuracy': 0.5}
    """
    if not isinstance(scores, Mapping) or len(scores) > _MAX_SCORES:
        raise ConfigError(
            f"the evaluation function returned {type(scores).__name__}: "
            f'return up to {_MAX_SCORES} named numbers, such as {{"accuracy": 0.93}}'
        )
    for name, score in scores.items():
        if not isinstance(name, str) or not name or len(name) > _MAX_NAME or name in _TAKEN:
            raise ConfigError(f"the evaluation function returned a score named {name!r}: choose another name")
        if not isinstance(score, Real):
            raise ConfigError(f"score {name} is {type(score).__name__}: give a number, such as float({name})")
    return {name: float(score) for name, score in scores.items()}
