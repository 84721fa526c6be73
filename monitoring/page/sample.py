"""Reads from the metrics what the fleet page shows, and says in words how the fleet is."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry

from monitoring.definitions import PREFIX

_NAMES = (
    "updates_processed_total",
    "rejects_total",
    "update_bytes",
    "update_staleness_versions",
    "clients_active",
    "model_version",
    "model_published_timestamp_seconds",
    "chain_length",
    "evaluation_accuracy",
    "evaluation_loss",
    "evaluation_model_version",
    "evaluation_timestamp_seconds",
    "consumer_lag_records",
    "retention_headroom_seconds",
    "keyframe_last_success_timestamp_seconds",
    "buffer_updates",
    "leader",
    "paused",
)
_STALLED_S = 60.0
_HEARTBEAT_S = 5.0

Level = Literal["good", "idle", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the fleet is: `word` for the eye, `sentence` for whoever wants to know."""

    level: Level
    word: str
    sentence: str


@dataclass(slots=True)
class Sample:
    """The values of the metrics at one instant, by name without prefix and by the one label that matters."""

    values: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def get(self, name: str, label: str = "") -> float | None:
        """One value; None where there is none, or it is not known yet."""
        value = self.values.get((name, label))
        return value if value is not None and math.isfinite(value) else None

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(value for (known, _), value in self.values.items() if known == name)

    def by_label(self, name: str) -> dict[str, float]:
        """The values of one name by label."""
        return {label: value for (known, label), value in self.values.items() if known == name}


def read(registry: CollectorRegistry) -> Sample:
    """Sample what the page shows; names that this release does not have are left out."""
    values: dict[tuple[str, str], float] = {}
    for metric in registry.restricted_registry(_known()).collect():
        for sample in metric.samples:
            labels = [text for name, text in sample.labels.items() if name != "task"]
            key = sample.name.removeprefix(PREFIX), labels[-1] if labels else ""
            values[key] = values.get(key, 0.0) + sample.value
    return Sample(values)


def _known() -> list[str]:
    # A registry ignores names that it does not know.
    return [f"{PREFIX}{name}{suffix}" for name in _NAMES for suffix in ("", "_bucket", "_sum")]


def staleness_bars(sample: Sample, *, at_most: int = 10) -> list[tuple[str, int]]:
    """Accepted updates by staleness: (range in versions, count), the tail taken together.

    >>> bounds = {"0.0": 1.0, "1.0": 1.0, "2.0": 4.0, "3.0": 4.0, "5.0": 6.0, "+Inf": 6.0}
    >>> staleness_bars(Sample({("update_staleness_versions_bucket", le): n for le, n in bounds.items()}))
    [('0', 1), ('1', 0), ('2', 3), ('3', 0), ('4–5', 2)]
    """
    counts = sample.by_label("update_staleness_versions_bucket")
    rows, below, last = [], 0.0, -1
    for bound, upto in sorted((float(le), count) for le, count in counts.items()):
        name = _range(last + 1, bound)
        rows.append((name, round(upto - below)))
        below, last = upto, int(bound) if math.isfinite(bound) else last
    while rows and not rows[-1][1]:
        rows.pop()
    if len(rows) > at_most:
        rest = rows[at_most - 1 :]
        first = rest[0][0].split("–")[0].rstrip("+")
        rows = [*rows[: at_most - 1], (f"{first}+", sum(count for _, count in rest))]
    return rows


def _range(low: int, bound: float) -> str:
    if not math.isfinite(bound):
        return f"{low}+"
    return str(low) if int(bound) == low else f"{low}–{int(bound)}"


def judge(sample: Sample, *, started: bool, reason: str, heartbeat_age_s: float, now_s: float) -> Verdict:
    """How the fleet is, from what the process knows of itself."""
    if heartbeat_age_s > _HEARTBEAT_S:
        return Verdict("bad", "Stuck", f"The aggregator's event loop has stood still for {heartbeat_age_s:.0f} s.")
    if not started:
        return Verdict("warn", "Restoring", f"The aggregator rebuilds its state from the log ({reason}).")
    if sample.get("paused"):
        return Verdict("warn", "Paused", "An operator paused this task; devices train on and keep their work.")
    lag, newest_s = sample.total("consumer_lag_records"), sample.get("model_published_timestamp_seconds") or 0.0
    quiet_s = now_s - newest_s if newest_s else 0.0
    if lag > 0 and quiet_s > _STALLED_S:
        waits = f"{lag:.0f} updates wait in the log, and no new version for {quiet_s:.0f} s."
        return Verdict("bad", "Behind", waits)
    heard = round(sample.get("clients_active", "5m") or 0)
    if not newest_s or quiet_s > _STALLED_S:
        return Verdict("idle", "Idle", "Nothing waits in the log. The next update is welcome whenever it comes.")
    version = round(sample.get("model_version") or 0)
    fleet = f"{_devices(heard)} heard within five minutes." if heard else "devices are being met."
    return Verdict("good", "Learning", f"Version {version} is {max(0.0, quiet_s):.0f} s old, {fleet}")


def _devices(count: int) -> str:
    return f"{count:,} device{'' if count == 1 else 's'}"


def finite(values: Iterable[float | None]) -> tuple[float | None, ...]:
    """Numbers as JSON takes them: what is not finite becomes None."""
    return tuple(value if value is not None and math.isfinite(value) else None for value in values)
