"""Service levels as shares of errors over many windows, and one set of burn-rate alerts that reads them all."""

from dataclasses import dataclass

from monitoring.alerts.rules import Alert, Options, Record

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")

REGRESSION = 1.1
"""Held-out loss over its best of the last day that counts as a regression."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One service level: what share of what may go wrong."""

    slo: str
    budget: float
    promise: str


OBJECTIVES = (
    Objective("freshness", 0.01, "while updates arrive, the newest version is younger than T in 99 % of the time"),
    Objective("latency", 0.05, "95 % of applied updates are official within X of their append"),
    Objective("fetchability", 0.01, "99 % of fetches of the newest version's parts succeed"),
    Objective("quality", 0.05, f"held-out loss is within {REGRESSION:g} times the day's best in 95 % of the time"),
)


@dataclass(frozen=True, slots=True)
class Burn:
    """How fast the budget of thirty days may be spent before somebody is told; both windows must agree."""

    factor: float
    long: str
    short: str
    wait: str
    severity: str


BURNS = (
    Burn(14.4, "1h", "5m", "2m", "critical"),
    Burn(6.0, "6h", "30m", "15m", "critical"),
    Burn(3.0, "1d", "2h", "1h", "warning"),
    Burn(1.0, "3d", "6h", "3h", "warning"),
)


def service_levels(options: Options) -> list[Record]:
    """Budgets, whether each moment is bad, and shares of errors over every window; the label `slo` tells them apart."""
    return [
        *(
            Record(record="headwater:slo_budget:ratio", expr=f"vector({goal.budget})", labels=(("slo", goal.slo),))
            for goal in OBJECTIVES
        ),
        *_moments(options),
        *(rule for window in WINDOWS for rule in _over(window, options)),
    ]


def _moments(options: Options) -> list[Record]:
    best = f"min_over_time(headwater:evaluation_loss:avg10m[{options.span('1d')}])"
    return [
        Record(
            record="headwater:slo_bad:bool",
            expr="(headwater:version_age_while_updates_arrive:seconds > bool "
            f"{options.seconds(options.freshness_s):g})\nor on (task) (0 * headwater:version_age:seconds)",
            labels=(("slo", "freshness"),),
        ),
        Record(
            record="headwater:slo_bad:bool",
            expr=f"headwater:evaluation_loss:avg10m > bool ({REGRESSION:g} * {best})",
            labels=(("slo", "quality"),),
        ),
    ]


def _over(window: str, options: Options) -> list[Record]:
    span, name = options.span(window), f"headwater:slo_errors:ratio_{window}"
    within = f'headwater_update_age_seconds_bucket{{le="{options.latency_s:.1f}"}}'
    return [
        Record(
            record=name, expr=f'avg_over_time(headwater:slo_bad:bool{{slo="{slo}"}}[{span}])', labels=(("slo", slo),)
        )
        for slo in ("freshness", "quality")
    ] + [
        Record(
            record=name,
            expr=f"1 - sum by (task) (rate({within}[{span}]))\n"
            f"/ (sum by (task) (rate(headwater_update_age_seconds_count[{span}])) > 0)",
            labels=(("slo", "latency"),),
        ),
        Record(
            record=name,
            expr=f"sum by (task) (rate(headwater_fetch_probe_failures_total[{span}]))\n"
            f"/ (sum by (task) (rate(headwater_fetch_probes_total[{span}])) > 0)",
            labels=(("slo", "fetchability"),),
        ),
    ]


def burn_alerts(options: Options) -> list[Alert]:
    """One alert for each burn rate, over all service levels."""
    return [
        Alert(
            name="ErrorBudgetBurn",
            expr="\nand on (task, slo)\n".join(_burning(burn.factor, window) for window in (burn.long, burn.short)),
            wait=options.span(burn.wait),
            severity=burn.severity,
            labels=(("window", burn.long),),
            summary="Task {{ $labels.task }} spends its error budget for {{ $labels.slo }} too fast",
            description=f"Over {burn.long} and {burn.short} errors were at least {burn.factor:g} times what the "
            f"budget of thirty days allows: it would be gone in {30 / burn.factor:.3g} days. Share of errors over "
            f"{burn.long}: "
            "{{ $value | humanizePercentage }}.",
        )
        for burn in BURNS
    ]


def _burning(factor: float, window: str) -> str:
    limit = f"({factor:g} * headwater:slo_budget:ratio)"
    return f"headwater:slo_errors:ratio_{window} > on (slo) group_left () {limit}"
