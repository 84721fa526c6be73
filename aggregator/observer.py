"""What operators see of the fleet: metrics of every official record, and how fairly the devices are heard."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aggregator.core import Admission
from aggregator.state import FoldState
from broker_topics.entry import Official
from broker_topics.errors import RejectCode
from broker_topics.parts import DELTA
from broker_topics.record import Record, RunKind
from monitoring.fleet import export, fairness
from monitoring.metrics import Metrics, Window
from monitoring.topk import SpaceSaving

_REFRESH_S = 5.0
_RECENT = 2_000
_ENOUGH = 20
_AT_ONCE = 64
_WINDOWS: Mapping[Window, float] = {"5m": 300.0, "1h": 3600.0, "1d": 86_400.0}


@dataclass(slots=True)
class _Heard:
    """One device since this process started."""

    updates: int = 0
    weight: float = 0.0
    last_s: float = 0.0
    straggled_s: float = -math.inf


@dataclass(slots=True)
class Observer:
    """Counts what became official; keeps a few numbers a device, none of which is ever a label.

    late_from: the 95th percentile of recent staleness, versions; whoever lies beyond is a straggler.
    """

    metrics: Metrics
    state: FoldState
    places: int = 1_000
    now_s: Callable[[], float] = time.time
    late_from: float = math.inf
    _heard: dict[str, _Heard] = field(default_factory=dict)
    _staleness: "deque[int]" = field(default_factory=lambda: deque(maxlen=_RECENT))
    _stragglers: SpaceSaving = field(init=False)

    def __post_init__(self) -> None:
        self._stragglers = SpaceSaving(capacity=self.places)

    async def official(self, official: Official, admitted: Sequence[tuple[Admission, int]]) -> None:
        """Count one official record and the inputs that it decided on; (admission, appended at, log's clock in ms).

        A few at a time: a record may decide on thousands, and the event loop has other duties.
        """
        now_s = self.now_s()
        self._record(official, now_s)
        if len(self._staleness) >= _ENOUGH:
            self.late_from = float(np.percentile(self._staleness, 95))
        for start in range(0, len(admitted), _AT_ONCE):
            for admission, appended_ms in admitted[start : start + _AT_ONCE]:
                self._input(admission, appended_ms, now_s)
            await asyncio.sleep(0)

    def _input(self, admission: Admission, appended_ms: int, now_s: float) -> None:
        self.metrics.update_age_seconds.observe(max(0.0, now_s - appended_ms / 1000))
        if admission.refused:
            self._refused(admission, now_s)
        else:
            self._applied(admission, now_s)

    def restored(self, record: Record) -> None:
        """Show where the chain stood when this process took it up."""
        self.metrics.model_version.set(record.body.version)
        self.metrics.chain_length.set(record.height)

    def _applied(self, admission: Admission, now_s: float) -> None:
        metrics = self.metrics
        metrics.updates_processed_total.labels(outcome="applied").inc()
        metrics.update_staleness_versions.observe(admission.staleness)
        metrics.update_norm.observe(admission.norm)
        metrics.update_bytes.labels(codec=admission.codec).observe(admission.bytes)
        metrics.compression_ratio.observe(4 * self.state.layout.size / max(1, admission.bytes))
        self._staleness.append(admission.staleness)
        heard = self._heard.setdefault(admission.client_id, _Heard())
        heard.updates += 1
        heard.weight += admission.decision.weight * admission.work
        heard.last_s = now_s
        if admission.staleness > self.late_from:
            self._straggled(admission.client_id, heard, now_s, admission.staleness)

    def _refused(self, admission: Admission, now_s: float) -> None:
        code = admission.decision.code or RejectCode.MALFORMED
        self.metrics.updates_processed_total.labels(outcome="refused").inc()
        self.metrics.rejects_total.labels(code=code).inc()
        if code is RejectCode.STALE:
            heard = self._heard.setdefault(admission.client_id, _Heard(last_s=now_s))
            self._straggled(admission.client_id, heard, now_s, self.state.max_staleness)

    def _straggled(self, client_id: str, heard: _Heard, now_s: float, staleness: int) -> None:
        heard.straggled_s = now_s
        self._stragglers.add(client_id, float(staleness))

    def _record(self, official: Official, now_s: float) -> None:
        body, metrics = official.record.body, self.metrics
        metrics.model_version.set(body.version)
        metrics.chain_length.set(official.record.height)
        if body.steps:
            metrics.model_published_timestamp_seconds.set(now_s)
        for run in body.runs:
            if run.kind is not RunKind.DATA:
                metrics.void_offsets_total.labels(kind=run.kind).inc(run.count)
        for part in body.parts:
            kind = "delta" if part.name == DELTA else "keyframe"
            metrics.bytes_published_total.labels(kind=kind).inc(part.size)
        metrics.bytes_published_total.labels(kind="record").inc(len(official.record.data))

    async def run(self) -> None:
        """Bring the gauges of fairness up to date every few seconds, for ever."""
        while True:
            await asyncio.sleep(_REFRESH_S)
            self.refresh(self.now_s())

    def refresh(self, now_s: float) -> None:
        """Compare how devices are heard with how they should count; forget those silent for more than a day."""
        self._heard = {name: heard for name, heard in self._heard.items() if now_s - heard.last_s < _WINDOWS["1d"]}
        known = [(heard, self.state.ledger.get(name)) for name, heard in self._heard.items()]
        rows = [(h.updates, h.weight, e.habit.share, e.habit.gap) for h, e in known if e is not None and e.habit]
        updates, weights, shares, gaps = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        export(self.metrics, fairness(updates=updates, weights=weights, shares=shares, gaps=gaps))
        for window, seconds in _WINDOWS.items():
            active = sum(now_s - heard.last_s < seconds for heard in self._heard.values())
            self.metrics.clients_active.labels(window=window).set(active)
        late = sum(now_s - heard.straggled_s < _WINDOWS["1h"] for heard in self._heard.values())
        self.metrics.straggler_share.set(late / len(self._heard) if self._heard else 0.0)

    def stragglers(self, k: int) -> list[dict[str, object]]:
        """The devices whose updates were latest, worst first; may be called from another thread."""
        rows: list[dict[str, object]] = []
        for heavy in self._stragglers.top(k):
            heard = self._heard.get(heavy.key, _Heard())
            rows.append(
                {
                    "client_id": heavy.key,
                    "late_versions_total": heavy.weight,
                    "at_most_too_high_by": heavy.error,
                    "updates_applied": heard.updates,
                    "last_heard_timestamp_seconds": heard.last_s,
                }
            )
        return rows
