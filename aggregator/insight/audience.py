"""What is known of each device since this process started: how often it is heard, how late, and of which cohort.

None of it ever enters a decision. A cohort is what a device says of itself through telemetry; nobody checks it, so it
may name a count and nothing more.
"""

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aggregator.fold.outcome import Admission
from aggregator.fold.state import FoldState
from broker_topics.errors import RejectCode
from monitoring.fleet import Heard, export, fairness, silent_shares
from monitoring.metrics import Metrics, Window
from monitoring.topk import SpaceSaving

_RECENT = 2_000
_ENOUGH = 20
_USUAL_RATE = 0.3
_STATED = 100_000
_WINDOWS: Mapping[Window, float] = {"5m": 300.0, "1h": 3600.0, "1d": 86_400.0}


@dataclass(slots=True)
class Device:
    """One device since this process started; `usual` is the running mean of its staleness in versions."""

    updates: int = 0
    refused: int = 0
    weight: float = 0.0
    last_s: float = 0.0
    usual: float = 0.0
    late: bool = False
    """Whether its newest update was refused as stale."""


@dataclass(slots=True)
class Audience:
    """A few numbers a device, none of which is ever a label.

    late_from: the 95th percentile of recent staleness, versions; whoever is usually beyond is a straggler.
    """

    metrics: Metrics
    state: FoldState
    places: int = 1_000
    late_from: float = math.inf
    _devices: dict[str, Device] = field(default_factory=dict)
    _recent: "deque[int]" = field(default_factory=lambda: deque(maxlen=_RECENT))
    _stated: "OrderedDict[str, str]" = field(default_factory=OrderedDict)
    _latest: SpaceSaving = field(init=False)

    def __post_init__(self) -> None:
        self._latest = SpaceSaving(capacity=self.places)

    def cohort_stated(self, client_id: str, cohort: str) -> None:
        """Remember what a device said of itself; those who said it long ago are forgotten first."""
        self._stated[client_id] = self.metrics.cohorts.label(cohort)
        self._stated.move_to_end(client_id)
        if len(self._stated) > _STATED:
            self._stated.popitem(last=False)

    def cohort(self, client_id: str) -> str:
        """The label value for a device: `other` until its telemetry was read."""
        return self._stated.get(client_id) or self.metrics.cohorts.label("")

    def judge_recent(self) -> None:
        """Bring `late_from` up to date; once a record is enough."""
        if len(self._recent) >= _ENOUGH:
            self.late_from = float(np.percentile(self._recent, 95))

    def decided(self, admissions: Sequence[Admission], now_s: float) -> None:
        """Updates entered the model or stayed out, in this order; a cohort's series is written once for all."""
        updates, refused, weights = Counter[str](), Counter[str](), defaultdict[str, float](float)
        for admission in admissions:
            cohort = self.cohort(admission.client_id)
            updates[cohort] += 1
            if admission.refused:
                refused[cohort] += 1
                self._refused(admission, now_s)
            else:
                weights[cohort] += admission.decision.weight * admission.work
                self._applied(admission, now_s)
        for cohort, count in updates.items():
            self.metrics.cohort_updates_total.labels(cohort=cohort).inc(count)
        for cohort, count in refused.items():
            self.metrics.cohort_updates_refused_total.labels(cohort=cohort).inc(count)
        for cohort, weight in weights.items():
            self.metrics.cohort_weight_total.labels(cohort=cohort).inc(weight)

    def _applied(self, admission: Admission, now_s: float) -> None:
        self._recent.append(admission.staleness)
        device = self._device(admission.client_id, now_s)
        device.usual += _USUAL_RATE * (admission.staleness - device.usual) if device.updates else admission.staleness
        device.updates += 1
        device.weight += admission.decision.weight * admission.work
        device.late = False
        if admission.staleness > self.late_from:
            self._latest.add(admission.client_id, float(admission.staleness))

    def _refused(self, admission: Admission, now_s: float) -> None:
        """Only who was established as its sender is remembered for it."""
        if not admission.client_id:
            return
        device = self._device(admission.client_id, now_s)
        device.refused += 1
        device.late = admission.decision.code is RejectCode.STALE
        if device.late:
            self._latest.add(admission.client_id, float(self.state.max_staleness))

    def _device(self, client_id: str, now_s: float) -> Device:
        device = self._devices.get(client_id)
        if device is None:
            device = self._devices[client_id] = Device()
        device.last_s = now_s
        return device

    def forget(self, now_s: float) -> list[tuple[str, Device]]:
        """Drop devices that were silent for more than a day; those that stay, as they are now."""
        for client_id in [name for name, device in self._devices.items() if now_s - device.last_s >= _WINDOWS["1d"]]:
            del self._devices[client_id]
        return list(self._devices.items())

    def refresh(self, devices: list[tuple[str, Device]], now_s: float) -> None:
        """Set the gauges of fairness and silence; may run in a thread of its own, as a large fleet takes a while."""
        ledger, population = self.state.ledger, self.state.fairness.population
        known = [(device, ledger.get(name)) for name, device in devices]
        rows = [
            (d.updates, d.weight, entry.habit.share, entry.habit.gap or population)
            for d, entry in known
            if entry is not None and entry.habit is not None
        ]
        updates, weights, shares, gaps = np.array(rows, dtype=np.float64).reshape(-1, 4).T
        export(self.metrics, fairness(Heard(updates=updates, weights=weights, shares=shares, gaps=gaps)))
        self._export_silence(population)
        for window, seconds in _WINDOWS.items():
            active = sum(now_s - device.last_s < seconds for _, device in devices)
            self.metrics.clients_active.labels(window=window).set(active)
        late = sum(device.late or device.usual > self.late_from for _, device in devices)
        self.metrics.straggler_share.set(late / len(devices) if devices else 0.0)
        self._export_cohorts(devices, now_s)

    def _export_silence(self, population: float) -> None:
        habits = [entry.habit for entry in self.state.ledger.entries() if entry.habit is not None]
        gaps = np.array([habit.gap or population for habit in habits], dtype=np.float64)
        silence = self.state.fairness.arrivals - np.array([habit.last_arrival for habit in habits], dtype=np.float64)
        for speed, share in silent_shares(gaps=gaps, silence=silence).items():
            self.metrics.silent_share.labels(speed=speed).set(share)

    def _export_cohorts(self, devices: list[tuple[str, Device]], now_s: float) -> None:
        active = dict.fromkeys(self.metrics.cohort_clients_active.values(), 0)
        for name, device in devices:
            if now_s - device.last_s < _WINDOWS["1h"]:
                active[self.cohort(name)] = active.get(self.cohort(name), 0) + 1
        for cohort, count in active.items():
            self.metrics.cohort_clients_active.labels(cohort=cohort).set(count)

    def stragglers(self, k: int) -> list[dict[str, object]]:
        """The devices whose updates were latest, worst first; may be called from another thread."""
        rows: list[dict[str, object]] = []
        for heavy in self._latest.top(k):
            device = self._devices.get(heavy.key, Device())
            rows.append(
                {
                    "client_id": heavy.key,
                    "cohort": self.cohort(heavy.key),
                    "late_versions_total": heavy.weight,
                    "at_most_too_high_by": heavy.error,
                    "usual_staleness_versions": round(device.usual, 2),
                    "refused_as_stale_now": device.late,
                    "updates_applied": device.updates,
                    "updates_refused": device.refused,
                    "last_heard_timestamp_seconds": device.last_s,
                }
            )
        return rows
