"""The aggregator's process: fetch, offer to the fold, step, commit; every effect in the order the chain demands."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aggregator.chain.cache import KeyframeCache
from aggregator.chain.committer import Committer
from aggregator.chain.keyframe import load_keyframe
from aggregator.chain.needed_parts import NeededParts
from aggregator.chain.sweep import KEEP_MS
from aggregator.chain.writer import ChainWriter
from aggregator.fold.state import FoldState
from aggregator.insight.catching_up import catch_up
from aggregator.insight.fetch_probe import FetchProbe
from aggregator.insight.log_lag import LogLag
from aggregator.insight.observer import Observer
from aggregator.insight.telemetry import TelemetryExporter
from aggregator.intake import Intake
from aggregator.leadership.lease import Election, at_once
from aggregator.restore.recovery import Accept
from aggregator.restore.restart import Restored
from aggregator.restore.standby import Standby
from aggregator.serving import Serving
from broker_topics.bus import Bus
from broker_topics.codecs import load_deferred
from broker_topics.commits_log import CommitsReader
from broker_topics.models_log import ModelsReader, PartMissingError
from broker_topics.topics import Topic, topic_name
from monitoring.health import Readiness
from monitoring.logs import get_logger
from monitoring.metrics import Metrics
from monitoring.page.history import History

log = get_logger("aggregator")


@dataclass(slots=True)
class Aggregator:
    """One writer of one task's chain. `run` returns when `stop` is set, and raises what ends the process.

    patience_s: how long a broker that is away is waited for before the state is restored.
    """

    bus: Bus
    task: str
    metrics: Metrics = field(default_factory=Metrics)
    readiness: Readiness = field(default_factory=Readiness)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    straggler_places: int = 1_000
    keep_parts_s: float = KEEP_MS / 1000
    now_s: Callable[[], float] = time.time
    identity: bytes | None = None
    accept: Accept = field(default_factory=Accept)
    patience_s: float = 0.0
    observer: Observer | None = None
    history: History | None = None
    cache: KeyframeCache | None = None
    election: Election = field(default_factory=at_once)

    def stragglers(self, k: int) -> list[dict[str, object]]:
        """The devices whose updates were latest since this process started; none before it was restored."""
        return self.observer.stragglers(k) if self.observer else []

    async def run(self) -> None:
        """Restore, follow the chain until this process is to lead, then serve until `stop`.

        Raises:  ConfigError, InputsLostError, LostRaceError, InvariantError: each ends the process with its own code.
        """
        elected = asyncio.Event()
        standby = Standby(
            self.bus,
            self.task,
            self.metrics,
            self.readiness,
            accept=self.accept,
            patience_s=self.patience_s,
            cache=self.cache,
        )
        try:
            await _until(self.stop, [self._contend(standby.warm, elected), self._serve(standby, elected)])
        finally:
            await self.election.release()

    async def _contend(self, warm: asyncio.Event, elected: asyncio.Event) -> None:
        """Ask to lead as soon as that could be done at once."""
        await warm.wait()
        await self.election.run(elected)

    async def _serve(self, standby: Standby, elected: asyncio.Event) -> None:
        await self._lead(await standby.run(elected))

    async def _lead(self, restored: Restored) -> None:
        self.metrics.replay_versions_total.inc(restored.replayed)
        log.info("restored", task=self.task, version=restored.fold.state.model.version, replayed=restored.replayed)
        writer = ChainWriter(self.bus, self.task, restored.commits, identity=self.identity)
        self.observer = observer = self._observer(restored, writer)
        log_lag = LogLag(partitions=len(restored.fold.state.vector) - 1)
        committer = await self._committer(restored, writer, observer, log_lag)
        intake = Intake(self.bus, self.task, tuple(restored.fold.state.vector), self.metrics, log_lag)
        telemetry = TelemetryExporter(self.bus, self.task, self.metrics, observer.audience.cohort_stated)
        probe = FetchProbe(self.bus, self.task, self.metrics, lambda: writer.last)
        serving = Serving(restored.fold, intake, committer, self.metrics, older=self._older, repair=restored.repair)
        self.metrics.leader.set(1)
        self.readiness.catching_up("sees what waits in the log")
        try:
            duties = [
                intake.run(),
                serving.run(),
                committer.publish(),
                committer.run(),
                committer.watch_log(),
                committer.needed.run(),
                telemetry.run(),
                probe.run(),
                observer.run(),
                catch_up(committer, restored.fold.state, self.readiness),
                _load_loops(writer.wrote, restored.fold.state.layout.size),
            ]
            await _until(self.stop, duties)
        finally:
            self.metrics.leader.set(0)
            await restored.commits.close()

    async def _committer(
        self, restored: Restored, writer: ChainWriter, observer: Observer, log_lag: LogLag
    ) -> Committer:
        return Committer(
            self.bus,
            self.task,
            writer,
            restored.keyframes,
            self.metrics,
            observer,
            log_lag,
            NeededParts(self.bus, self.task, list(restored.keyframes[-1].record.body.parts), restored.parts_end),
            restored.fold.state.settings.keyframe_every,
            retention_ms=await self._retention_ms(),
            now_s=self.now_s,
            since_keyframe=restored.steps,
            oldest_ms=restored.oldest_ms,
            keep_ms=int(self.keep_parts_s * 1000),
            cache=self.cache,
        )

    def _observer(self, restored: Restored, writer: ChainWriter) -> Observer:
        observer = Observer(self.metrics, restored.fold.state, self.straggler_places, self.now_s, self.history)
        observer.restored(
            writer.last,
            published_s=restored.published_ms / 1000,
            keyframe_s=restored.keyframes[-1].timestamp_ms / 1000,
        )
        return observer

    async def _older(self, version: int) -> FoldState | None:
        """The state of an older version, if it was a keyframe whose parts are still there."""
        commits, models = CommitsReader(self.bus, self.task), ModelsReader(self.bus, self.task)
        try:
            for official in await commits.to_the_end():
                record = official.record
                if record.body.keyframe and record.body.version == version:
                    with suppress(PartMissingError):
                        return await load_keyframe(models, record)
            return None
        finally:
            await commits.close()
            await models.close()

    async def _retention_ms(self) -> float:
        """How long the log keeps updates; for ever where it is not limited."""
        topic = topic_name(self.task, Topic.UPDATES)
        text = (await self.bus.describe([topic]))[topic].settings.get("retention.ms", "-1")
        return math.inf if int(text) < 0 else float(text)


async def _load_loops(wrote: asyncio.Event, size: int) -> None:
    """Load the compiled loops that the start did not wait for, once something is official."""
    await wrote.wait()
    await asyncio.to_thread(load_deferred, size)
    await asyncio.Event().wait()


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
