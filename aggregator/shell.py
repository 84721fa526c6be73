"""The aggregator's process: fetch, offer to the fold, step, commit; every effect in the order the chain demands."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aggregator.committer import Committer, Pending
from aggregator.core import Admission, Fold
from aggregator.intake import Intake
from aggregator.observer import Observer
from aggregator.restart import restore
from aggregator.telemetry import TelemetryExporter
from aggregator.writer import ChainWriter
from broker_topics.bus import Bus, BusRecord
from broker_topics.record import Cause, RunKind
from broker_topics.topics import Topic, topic_name
from monitoring.health import Readiness
from monitoring.logs import get_logger
from monitoring.metrics import Metrics, stage

_MAX_INPUTS = 4_000
"""Inputs to a record at most, so that a storm of refusals never outgrows a record's body."""

_SLICE = 32
"""Updates that the fold takes in one go before it looks up: bounds how long a stop or a deadline waits."""

_IDLE_S = 30.0

log = get_logger("aggregator")


@dataclass(slots=True)
class Aggregator:
    """One writer of one task's chain. `run` returns when `stop` is set, and raises what ends the process."""

    bus: Bus
    task: str
    metrics: Metrics = field(default_factory=Metrics)
    readiness: Readiness = field(default_factory=Readiness)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    straggler_places: int = 1_000
    now_s: Callable[[], float] = time.time
    identity: bytes | None = None
    observer: Observer | None = None

    def stragglers(self, k: int) -> list[dict[str, object]]:
        """The devices whose updates were latest since this process started; none before it was restored."""
        return self.observer.stragglers(k) if self.observer else []

    async def run(self) -> None:
        """Restore, then serve until `stop`.

        Raises:  ConfigError, InputsLostError, LostRaceError, InvariantError: each ends the process with its own code.
        """
        log.info("restore_started", task=self.task)
        restored = await restore(self.bus, self.task)
        self.metrics.replay_versions_total.inc(restored.replayed)
        log.info("restored", task=self.task, version=restored.fold.state.model.version, replayed=restored.replayed)
        writer = ChainWriter(self.bus, self.task, restored.commits, identity=self.identity)
        self.observer = observer = Observer(self.metrics, restored.fold.state, self.straggler_places, self.now_s)
        retention_ms = await self._retention_ms()
        committer = Committer(
            self.bus,
            self.task,
            writer,
            restored.keyframes,
            self.metrics,
            observer,
            retention_ms=retention_ms,
            now_s=self.now_s,
            since_keyframe=restored.steps,
            oldest_ms=restored.oldest_ms,
        )
        intake = Intake(self.bus, self.task, tuple(restored.fold.state.vector), self.metrics)
        telemetry = TelemetryExporter(self.bus, self.task, self.metrics)
        serving = _Serving(restored.fold, intake, committer, self.metrics)
        self.metrics.leader.set(1)
        self.readiness.ready()
        try:
            duties = [
                intake.run(),
                serving.run(),
                committer.run(),
                committer.watch_log(),
                telemetry.run(),
                observer.run(),
            ]
            await _until(self.stop, duties)
        finally:
            self.metrics.leader.set(0)
            await restored.commits.close()

    async def _retention_ms(self) -> float:
        """How long the log keeps updates; for ever where it is not limited."""
        topic = topic_name(self.task, Topic.UPDATES)
        text = (await self.bus.describe([topic]))[topic].settings.get("retention.ms", "-1")
        return math.inf if int(text) < 0 else float(text)


@dataclass(slots=True)
class _Serving:
    """Feeds the fold from the queues and closes buffers when they are full or due."""

    fold: Fold
    intake: Intake
    committer: Committer
    metrics: Metrics
    admitted: list[tuple[Admission, int]] = field(default_factory=list)
    due: float | None = None

    async def run(self) -> None:
        while True:
            if not self.intake.control.empty():
                await self._commands(self.intake.control.get_nowait())
            elif not self.intake.updates.empty() and not self.fold.state.paused:
                await self._updates(self.intake.updates.get_nowait())
            else:
                await self._idle()
            if self.due is not None and asyncio.get_running_loop().time() >= self.due:
                await self._close(Cause.DEADLINE)

    async def _idle(self) -> None:
        """Wait for a batch, until the buffer is due, or a while."""
        self.intake.arrived.clear()
        waiting = not self.intake.control.empty() or (not self.intake.updates.empty() and not self.fold.state.paused)
        if waiting:
            return
        until = asyncio.get_running_loop().time() + _IDLE_S
        try:
            async with asyncio.timeout_at(until if self.due is None else min(until, self.due)):
                await self.intake.arrived.wait()
        except TimeoutError:
            if self.committer.keyframe_overdue and not self.fold.consumed:
                await self._close(Cause.DEADLINE)

    async def _updates(self, batch: list[BusRecord]) -> None:
        taken = 0
        while taken < len(batch):
            limit = self.fold.limit(self.committer.lag)
            taken = await asyncio.to_thread(self._offer, batch, taken, limit)
            if self.due is None and self.fold.consumed:
                self.due = asyncio.get_running_loop().time() + self.fold.state.settings.flush_deadline_s
            self.metrics.buffer_updates.set(self.fold.pending)
            if self.fold.pending >= limit or self.fold.consumed >= _MAX_INPUTS:
                await self._close(Cause.FULL)

    def _offer(self, batch: list[BusRecord], start: int, limit: int) -> int:
        """Offer records until the buffer is full; the index of the first one not taken."""
        stop = min(len(batch), start + _SLICE)
        for index in range(start, stop):
            if self.fold.pending >= limit or self.fold.consumed >= _MAX_INPUTS:
                return index
            self._one(batch[index])
        return stop

    def _one(self, record: BusRecord) -> None:
        partition, expected = record.partition, self.fold.state.vector[record.partition]
        if record.offset > expected:
            gap = record.offset - expected
            self.fold.void(partition=partition, first=expected, count=gap, kind=RunKind.CONTROL)
        if not record.readable:
            self.fold.void(partition=partition, first=record.offset, count=1, kind=RunKind.UNREADABLE)
            return
        with stage(self.metrics, "decode"):
            admission = self.fold.offer(
                partition=partition, offset=record.offset, key=record.key, data=record.value or b""
            )
        self.metrics.updates_received_total.inc()
        self.admitted.append((admission, record.timestamp_ms))

    async def _commands(self, batch: list[BusRecord]) -> None:
        """A command first flushes the buffer, then has a record of its own."""
        for record in batch:
            if self.fold.consumed:
                await self._close(Cause.CONTROL)
            self.fold.command(offset=record.offset, data=record.value or b"")
            await self._close(Cause.CONTROL)

    async def _close(self, cause: Cause) -> None:
        """Make the server step and hand it to the committer; waits while two records are under way."""
        await self.committer.room()
        with stage(self.metrics, "aggregate"):
            draft = await asyncio.to_thread(self.fold.step, cause)
        admitted, self.admitted, self.due = self.admitted, [], None
        self.metrics.buffer_updates.set(0)
        await self.committer.put(Pending(draft=draft, admitted=admitted), self.fold.state)


async def _until(stop: asyncio.Event, duties: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all duties until `stop`; the first error of one ends all and is raised as it is."""
    tasks: list[asyncio.Task[object]] = [asyncio.ensure_future(duty) for duty in duties]
    stopping: asyncio.Task[object] = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in [*tasks, stopping]:
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
