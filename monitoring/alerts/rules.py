"""What a rule is, and every group of them; all times can be scaled, so that tests watch real alerts in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker_topics.errors import ConfigError

RUNBOOKS = "docs/runbooks.md"
"""Where runbooks are found unless an operator names an address; a path in the repository."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHORTEST_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator may choose.

    runbook_base: address of the runbooks page; `#` and the alert's name are appended.
    freshness_s: T, the age that a version may reach while updates arrive.
    latency_s: X, the time from append to official that 95 % of applied updates must meet; a bucket's bound.
    speed: divides every duration; 1 but for tests and drills.
    """

    runbook_base: str = RUNBOOKS
    freshness_s: float = 300.0
    latency_s: float = 60.0
    speed: float = 1.0

    def span(self, text: str) -> str:
        """A duration of PromQL such as `5m`, divided by `speed`; at least five seconds, which `rate` needs.

        >>> Options().span("5m"), Options(speed=30).span("30m"), Options(speed=60).span("2m")
        ('5m', '60s', '5s')
        """
        if self.speed == 1.0:
            return text
        return f"{max(_SHORTEST_S, round(self.seconds(int(text[:-1]) * _UNITS_S[text[-1]])))}s"

    def seconds(self, seconds: float) -> float:
        """A threshold in seconds, divided by `speed`."""
        return seconds / self.speed

    def __post_init__(self) -> None:
        if not (self.freshness_s > 0 and self.speed > 0):
            raise ConfigError("the freshness of alerts must be more than 0 seconds: choose for example 300")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A recording rule: a series that is computed once and read by alerts and dashboards."""

    record: str
    expr: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alerting rule; it fires when `expr` has had a result for `wait`.

    severity: critical wakes somebody up, warning is for office hours.
    """

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    description: str
    labels: tuple[tuple[str, str], ...] = ()


Rule = Record | Alert


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that Prometheus evaluates together, in order."""

    name: str
    rules: Sequence[Rule]


def groups(options: Options | None = None) -> tuple[Group, ...]:
    """Every group, in the order in which one may read another's series."""
    from monitoring.alerts.alerting import alerts
    from monitoring.alerts.recording import records
    from monitoring.alerts.service_levels import burn_alerts, service_levels

    chosen = options or Options()
    return (
        Group("headwater-records", records(chosen)),
        Group("headwater-service-levels", [*service_levels(chosen), *burn_alerts(chosen)]),
        Group("headwater-alerts", alerts(chosen)),
    )
