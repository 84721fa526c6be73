"""What a dashboard is, apart from who draws it: rows of panels, each with queries, a unit and a reason to look."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

RATE = "$__rate_interval"
"""Grafana's word for a window that is never shorter than four scrapes; whoever draws otherwise replaces it."""

TASK = "$task"
"""The variable that chooses a task; it may hold several as alternatives of a regular expression."""


class Kind(StrEnum):
    """How a panel shows its queries."""

    LINES = "lines"
    STACKED = "stacked"
    STAT = "stat"
    BARS = "bars"
    HEATMAP = "heatmap"


class Unit(StrEnum):
    """Grafana's name of a unit."""

    COUNT = "short"
    PER_SECOND = "cps"
    RATIO = "percentunit"
    NUMBER = "none"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    SECONDS = "s"
    MILLISECONDS = "ms"


class Good(StrEnum):
    """Which way a number should lie; colours follow from it, and the title says it in words too."""

    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression, and how its series are called (`{{label}}` is filled in)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Beyond `warn` a number wants a look, beyond `bad` somebody must act; `good` says on which side it should be."""

    good: Good
    warn: float
    bad: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture. `description` says what it means and what to do when it looks odd; `width` is of 24."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Kind = Kind.LINES
    width: int = 8
    limit: Limit | None = None
    top: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One page. `name` is its file and, after `headwater-`, its address in Grafana."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    def panels(self) -> Iterator[Panel]:
        """Every panel, from the top."""
        for row in self.rows:
            yield from row.panels


def of_task(metric: str, **labels: str) -> str:
    """The series of one metric of the chosen tasks.

    >>> of_task("updates_received_total")
    'headwater_updates_received_total{task=~"$task"}'
    >>> of_task("rejects_total", code="stale")
    'headwater_rejects_total{task=~"$task",code="stale"}'
    """
    chosen = [f'task=~"{TASK}"', *(f'{name}="{value}"' for name, value in labels.items())]
    return f"headwater_{metric}{{{','.join(chosen)}}}"


def rate(series: str, by: str = "") -> str:
    """How fast counters grow, summed, by one label or over all.

    >>> rate('x{a="1"}', by="code")
    'sum by (code) (rate(x{a="1"}[$__rate_interval]))'
    """
    grown = f"(rate({series}[{RATE}]))"
    return f"sum by ({by}) {grown}" if by else f"sum{grown}"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram over the window.

    >>> quantile(0.95, "train_seconds").split("(rate")[0]
    'histogram_quantile(0.95, sum by (le) '
    """
    buckets = of_task(f"{metric}_bucket")
    return f"histogram_quantile({share}, {rate(buckets, by=f'le, {by}' if by else 'le')})"


def quantiles(metric: str, *shares: float) -> tuple[Query, ...]:
    """Several quantiles of one histogram, called p50 and so on."""
    return tuple(Query(quantile(share, metric), f"p{100 * share:g}") for share in shares)
