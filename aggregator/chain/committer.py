"""Takes drafts through publish, append, read back, and does what may only be done once a version is official.

Two stages, so that the parts of a record travel while its parent is still being read back: nothing is appended before
its parent is official, and parts that no record names cost only bytes.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aggregator.chain.cache import KeyframeCache, remember
from aggregator.chain.keyframe import keyframe_parts
from aggregator.chain.needed_parts import NeededParts
from aggregator.chain.pending import Pending
from aggregator.chain.rejects import rejects
from aggregator.chain.sweep import KEEP_MS, Sweeper
from aggregator.chain.writer import ChainWriter
from aggregator.fold.state import FoldState
from aggregator.insight.log_lag import LogLag
from aggregator.insight.observer import Observer
from aggregator.restore.inputs import check_partitions, end_vector
from broker_topics.bus import Bus
from broker_topics.commits_log import Official
from broker_topics.crash_points import Io, passing
from broker_topics.entry import head_of
from broker_topics.errors import BusError, ConfigError, LostRaceError
from broker_topics.messages import Reject
from broker_topics.record import PartRef
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger
from monitoring.metrics import Metrics
from monitoring.stages import stage

_UNDER_WAY = 3
"""Records between step and official: one being appended, and the two that the fold may be ahead."""

_KEYFRAME_AGAIN_S = 2.0
"""Pause after a keyframe that the broker refused; records go on without one."""

_IDLE_S = 0.5
_LAG_S = 1.0

log = get_logger("aggregator")


@dataclass(slots=True)
class Committer:
    """Commits drafts in order, one at a time; the fold may be at most two records ahead of the one being appended.

    since_keyframe, oldest_ms: steps since the newest keyframe and the log's time of the oldest input in them. A restart
    hands on what it replayed: or a process that never lives long would never write a keyframe.
    begun: whether this process has put a draft of its own.
    """

    bus: Bus
    task: str
    writer: ChainWriter
    keyframes: Sequence[Official]
    metrics: Metrics
    observer: Observer
    log_lag: LogLag
    needed: NeededParts
    keyframe_every: int
    retention_ms: float = math.inf
    now_s: Callable[[], float] = time.time
    since_keyframe: int = 0
    oldest_ms: float = math.inf
    keep_ms: int = KEEP_MS
    cache: KeyframeCache | None = None
    ends: Sequence[int] = ()
    begun: bool = False
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    _lost_races: int = 0
    _again_at_s: float = 0.0
    _log_seen: tuple[float, float] | None = None
    _queue: "asyncio.Queue[Pending]" = field(default_factory=asyncio.Queue)
    _published: "asyncio.Queue[tuple[Pending, tuple[PartRef, ...]]]" = field(default_factory=asyncio.Queue)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_UNDER_WAY))
    _still: asyncio.Event = field(default_factory=asyncio.Event)
    _sweeper: Sweeper = field(init=False)

    def __post_init__(self) -> None:
        self._still.set()
        self._lost_races = self.writer.lost_races
        self.writer.models.head = head_of(self.keyframes[-1]) if self.keyframes else None
        self.metrics.retention_seconds.set(self.retention_ms / 1000)
        self._sweeper = Sweeper(self.bus, self.task, self.writer.models, list(self.keyframes), self.keep_ms)

    async def room(self) -> None:
        """Wait until the fold may step, to call before each `put`.

        Not while two records wait behind the one being appended, nor while a keyframe is read from its vectors.
        """
        await self._places.acquire()
        await self._still.wait()

    async def put(self, pending: Pending, state: FoldState) -> None:
        """Queue a draft; where a keyframe is due, the fold's vectors are read until it is published."""
        self.since_keyframe += len(pending.draft.body.steps)
        appended = [appended_ms for _, appended_ms in pending.admitted]
        self.oldest_ms = min([self.oldest_ms, *appended])
        if appended:
            self._saw(max(appended))
        # A new leader's first record is one that the fleet need not wait for, if it says anything else.
        in_haste, self.begun = bool(pending.draft.body.runs) and not self.begun, True
        due = self._due(self.keyframe_every * 3 // 2 if in_haste else self.keyframe_every)
        if pending.draft.body.replaces_model or due:
            self._still.clear()
            pending.before = (self.since_keyframe, self.oldest_ms, self._missing)
            self.since_keyframe, self.oldest_ms = 0, math.inf
            self.needed.lost = self._sweeper.keyframe_needed = False
            pending.keyframe, pending.vectors = await asyncio.to_thread(keyframe_parts, state), state.vectors()
        self._queue.put_nowait(pending)

    @property
    def keyframe_due(self) -> bool:
        """Whether one must be written, also where nothing else is to be said."""
        return self._due(self.keyframe_every)

    def _due(self, steps: int) -> bool:
        """Whether so many steps were made since the last one, newcomers miss parts that the log lost, or inputs that
        only replay still knows have reached a quarter of the retention time; not right after one was refused.
        """
        overdue = self._log_ms() - self.oldest_ms > self.retention_ms / 4
        return (self.since_keyframe >= steps or self._missing or overdue) and self._may_try

    @property
    def _missing(self) -> bool:
        return self.needed.lost or self._sweeper.keyframe_needed

    @property
    def _may_try(self) -> bool:
        """Whether no keyframe was refused a moment ago."""
        return asyncio.get_running_loop().time() >= self._again_at_s

    def _saw(self, log_ms: float) -> None:
        """Note the log's time stamp of a record."""
        latest = log_ms if self._log_seen is None else max(log_ms, self._log_ms())
        self._log_seen = (latest, asyncio.get_running_loop().time())

    def _log_ms(self) -> float:
        """Now on the log's own clock, as far as records tell it: this machine's may be a year off, or jump."""
        if self._log_seen is None:
            return self.now_s() * 1000
        log_ms, at_s = self._log_seen
        return log_ms + (asyncio.get_running_loop().time() - at_s) * 1000

    async def run(self) -> None:
        """Commit for ever; raises LostRaceError when another writer's record comes first."""
        while True:
            try:
                async with asyncio.timeout(_IDLE_S):
                    pending, parts = await self._published.get()
            except TimeoutError:
                await self._watch()
                continue
            await self._commit(pending, parts)

    async def publish(self) -> None:
        """Put the parts of every draft into the log, for ever, while records before it are being appended."""
        height = self.writer.next_height
        while True:
            pending = await self._queue.get()
            is_keyframe = pending.keyframe is not None
            with stage(self.metrics, "publish"):
                kept = remember(self.cache, pending.draft.body, pending.vectors)
                parts, _ = await asyncio.gather(self._parts_of(height, pending), kept)
            if is_keyframe:
                self._still.set()
            if pending.draft.body.runs or pending.keyframe:
                height += 1
                self._published.put_nowait((pending, parts))
            else:
                self._places.release()  # it was to be a keyframe, which the broker refused, and says nothing else

    async def _parts_of(self, height: int, pending: Pending) -> tuple[PartRef, ...]:
        """Publish a draft's parts. One whose keyframe the broker refuses goes on without, and a later one tries again.

        Raises:  ConfigError: the broker refuses what the record cannot be without.
        """
        if pending.keyframe is None:
            return await self.writer.publish(height, pending.draft.delta, None)
        failures = self.metrics.keyframe_failures_total
        self.metrics.keyframe_attempts_total.inc()
        try:
            return await self.writer.publish(height, pending.draft.delta, pending.keyframe, failures.inc)
        except ConfigError as error:
            failures.inc()
            if pending.draft.body.replaces_model:
                raise
            log.error("keyframe_failed", reason=str(error))
        pending.keyframe = None
        steps, oldest_ms, self.needed.lost = pending.before
        self.since_keyframe += steps
        self.oldest_ms = min(self.oldest_ms, oldest_ms)
        self._again_at_s = asyncio.get_running_loop().time() + _KEYFRAME_AGAIN_S
        return await self.writer.publish(height, pending.draft.delta, None)

    async def watch_log(self) -> None:
        """Keep `ends`, where the log of inputs ends, up to date; raises ConfigError when partitions were added."""
        while True:
            try:
                ends = await end_vector(self.bus, self.task)
                vector = self.writer.last.body.vector
                check_partitions(vector, ends)
                self.ends = ends
                self.looked.set()
                await self.needed.look()
                waiting = [max(0, end - next_) for end, next_ in zip(ends, vector, strict=True)]
                for partition, count in enumerate(waiting[:-1]):
                    self.metrics.consumer_lag_records.labels(partition=partition).set(count)
                self._show_ages(self.log_lag.oldest_ms(vector))
            except BusError as error:
                log.warning("broker_unreachable", reason=str(error))
            await asyncio.sleep(_LAG_S)

    def _show_ages(self, waiting_ms: float) -> None:
        """How long the oldest update waits, and how soon retention would take one that replay or the fold still needs.

        Args:    waiting_ms: when the log took in the oldest update that no official record has consumed.
        """
        now_ms = self.now_s() * 1000
        self.metrics.consumer_lag_seconds.set(max(0.0, now_ms - waiting_ms) / 1000)
        age_ms = max(0.0, now_ms - min(waiting_ms, self.oldest_ms))
        self.metrics.retention_headroom_seconds.set((self.retention_ms - age_ms) / 1000)

    def _count_lost_races(self) -> None:
        """Whoever lost ends soon after: who won is the one that can be asked."""
        seen = self.writer.lost_races
        self.metrics.chain_lost_races_total.inc(seen - self._lost_races)
        self._lost_races = seen

    async def _watch(self) -> None:
        try:
            await self.writer.watch()
            self._count_lost_races()
        except BusError as error:
            log.warning("broker_unreachable", reason=str(error))

    async def _commit(self, pending: Pending, parts: tuple[PartRef, ...]) -> None:
        self.metrics.chain_appends_total.inc()
        with stage(self.metrics, "commit"):
            official = await self._append(pending, parts)
        self._places.release()
        self._saw(official.timestamp_ms)
        self.needed.official(official)
        self._count_lost_races()
        if pending.draft.delta is not None:
            self.metrics.server_step_norm.observe(pending.draft.norm)
        await self.observer.official(official, pending.admitted)
        await self._after(pending, official)

    async def _append(self, pending: Pending, parts: tuple[PartRef, ...]) -> Official:
        try:
            return await self.writer.append(pending.body(parts))
        except LostRaceError:
            self.metrics.chain_lost_races_total.inc()
            raise

    async def _after(self, pending: Pending, official: Official) -> None:
        """Advisory writes: a crash before or within them loses nothing that the chain does not say."""
        told = rejects((admission for admission, _ in pending.admitted), official.record.body)
        await asyncio.gather(*(self._reject(reject) for reject in told))
        if not official.record.body.keyframe:
            return
        record = official.record
        log.info("keyframe_official", height=record.height, version=record.body.version)
        try:
            await self.writer.models.write_head(head_of(official))
            self.metrics.keyframe_last_success_timestamp_seconds.set(self.now_s())
            with stage(self.metrics, "snapshot"):
                await self._sweeper.keyframe(official)
        except BusError as error:
            self.metrics.keyframe_failures_total.inc()
            log.warning("keyframe_failed", reason=str(error))

    async def _reject(self, reject: Reject) -> None:
        topic, key = topic_name(self.task, Topic.REJECTS), reject.client_id.encode()
        data = reject.to_bytes()
        try:
            partition = await self.bus.partition_for(topic, key)
            with passing(Io.REJECT):
                await self.bus.send(topic, key=key, value=data, partition=partition)
            self.metrics.bytes_published_total.labels(kind="reject").inc(len(data))
        except BusError as error:
            log.warning("reject_write_failed", reason=str(error))
