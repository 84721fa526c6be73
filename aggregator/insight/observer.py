"""What operators see of the fleet: metrics of every official record and of the inputs that it decided on."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aggregator.fold.core import Admission
from aggregator.fold.rules import server_rule
from aggregator.fold.state import FoldState
from aggregator.insight.audience import Audience
from broker_topics.commits_log import Official
from broker_topics.parts import DELTA
from broker_topics.record import Record, RunKind
from monitoring.metrics import Metrics
from monitoring.page.history import History, Link

_REFRESH_S = 5.0
_REST = 50.0
"""How many times longer than a refresh takes the next one waits, however large the fleet."""

_AT_ONCE = 100


@dataclass(slots=True)
class Observer:
    """Counts what became official, and reconciles it with the offsets that the chain says were passed."""

    metrics: Metrics
    state: FoldState
    places: int = 1_000
    now_s: Callable[[], float] = time.time
    history: History | None = None
    audience: Audience = field(init=False)
    _taken_over_at: int = 0
    _accounted: int = 0

    def __post_init__(self) -> None:
        self.audience = Audience(self.metrics, self.state, self.places)

    def restored(self, record: Record, *, published_s: float, keyframe_s: float) -> None:
        """Show where the chain stood when this process took it up, and when its newest version and keyframe were made.

        The newest official record; unix seconds.
        """
        metrics = self.metrics
        metrics.model_version.set(record.body.version)
        metrics.chain_length.set(record.height)
        metrics.model_published_timestamp_seconds.set(published_s)
        metrics.keyframe_last_success_timestamp_seconds.set(keyframe_s)
        metrics.buffer_size_updates.set(server_rule(self.state.settings).buffer_size)
        self._show_state(record)
        self._taken_over_at = _passed(record)
        if self.history is not None:
            self.history.parameters = self.state.layout.size
            self.history.official(_link(record, published_s))

    async def official(self, official: Official, admitted: Sequence[tuple[Admission, int]]) -> None:
        """Count one official record and the inputs that it decided on; (admission, appended at, log's clock in ms).

        A few at a time: a record may decide on thousands, and the event loop has other duties.
        """
        now_s = self.now_s()
        self._record(official, now_s)
        self.audience.judge_recent()
        for start in range(0, len(admitted), _AT_ONCE):
            self._inputs(admitted[start : start + _AT_ONCE], now_s)
            await asyncio.sleep(0)
        gap = _passed(official.record) - self._taken_over_at - self._accounted
        self.metrics.reconcile_gap_updates.set(gap)
        if self.history is not None:
            self.history.official(_link(official.record, now_s))

    def _inputs(self, admitted: Sequence[tuple[Admission, int]], now_s: float) -> None:
        self._accounted += len(admitted)
        self.audience.decided([admission for admission, _ in admitted], now_s)
        if self.history is not None:
            for admission, _ in admitted:
                staleness = None if admission.refused else admission.staleness
                self.history.update(admission.client_id, staleness=staleness, at_s=now_s)
        refused = Counter(admission.decision.code for admission, _ in admitted if admission.decision.code)
        self.metrics.updates_processed_total.labels(outcome="refused").inc(refused.total())
        for code, count in refused.items():
            self.metrics.rejects_total.labels(code=code).inc(count)
        self._applied([(admission, appended_ms) for admission, appended_ms in admitted if not admission.refused], now_s)

    def _applied(self, applied: Sequence[tuple[Admission, int]], now_s: float) -> None:
        metrics, model_bytes = self.metrics, 4 * self.state.layout.size
        metrics.updates_processed_total.labels(outcome="applied").inc(len(applied))
        metrics.update_age_seconds.observe_all([max(0.0, now_s - appended_ms / 1000) for _, appended_ms in applied])
        metrics.update_staleness_versions.observe_all([admission.staleness for admission, _ in applied])
        metrics.update_norm.observe_all([admission.norm for admission, _ in applied])
        metrics.compression_ratio.observe_all([model_bytes / max(1, admission.bytes) for admission, _ in applied])
        sizes = defaultdict[str, list[int]](list)
        for admission, _ in applied:
            sizes[admission.codec].append(admission.bytes)
        for codec, of_codec in sizes.items():
            metrics.update_bytes.labels(codec=codec).observe_all(of_codec)

    def _record(self, official: Official, now_s: float) -> None:
        body, metrics = official.record.body, self.metrics
        metrics.model_version.set(body.version)
        metrics.chain_length.set(official.record.height)
        self._show_state(official.record)
        if body.steps:
            metrics.model_published_timestamp_seconds.set(now_s)
        for run in body.runs:
            if run.kind is not RunKind.DATA:
                metrics.void_offsets_total.labels(kind=run.kind).inc(run.count)
                self._accounted += run.count if run.partition < len(body.vector) - 1 else 0
        for part in body.parts:
            kind = "delta" if part.name == DELTA else "keyframe"
            metrics.bytes_published_total.labels(kind=kind).inc(part.size)
        metrics.bytes_published_total.labels(kind="record").inc(len(official.record.data))

    def _show_state(self, record: Record) -> None:
        self.metrics.staleness_limit_versions.set(record.body.max_staleness)
        self.metrics.paused.set(self.state.paused)

    async def run(self) -> None:
        """Bring the gauges of fairness up to date every few seconds, for ever."""
        loop = asyncio.get_running_loop()
        pause_s = _REFRESH_S
        while True:
            await asyncio.sleep(pause_s)
            begin, now_s = loop.time(), self.now_s()
            devices = self.audience.forget(now_s)
            await asyncio.to_thread(self.audience.refresh, devices, now_s)
            pause_s = max(_REFRESH_S, _REST * (loop.time() - begin))

    def stragglers(self, k: int) -> list[dict[str, object]]:
        """The devices whose updates were latest, worst first; may be called from another thread."""
        return self.audience.stragglers(k)


def _passed(record: Record) -> int:
    """Offsets of the updates topic that the chain has passed up to a record."""
    return sum(record.body.vector[:-1])


def _link(record: Record, at_s: float) -> Link:
    body = record.body
    accepted = sum(decision.accepted for decision in body.decisions)
    return Link(
        height=record.height,
        version=body.version,
        hash=record.hash.hex(),
        parent=record.parent.hex(),
        cause=body.cause,
        accepted=accepted,
        refused=len(body.decisions) - accepted,
        keyframe=body.keyframe,
        passed=_passed(record),
        at_s=at_s,
    )
