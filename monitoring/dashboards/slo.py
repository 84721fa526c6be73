"""Service levels: how much of each error budget is spent, and how fast. Reads the recording rules of the alerts."""

from monitoring.dashboards.model import TASK, Dashboard, Good, Kind, Limit, Panel, Query, Row, Unit

_TASKS = f'task=~"{TASK}"'
_BUDGET = "on (slo) group_left () headwater:slo_budget:ratio"


def _errors(window: str) -> str:
    return f"headwater:slo_errors:ratio_{window}{{{_TASKS}}}"


def _good(window: str) -> Panel:
    return Panel(
        title=f"Good over {window} (high is good)",
        description="Share of the time, or of the updates, that kept the promise. Freshness and fetchability: 99 % is "
        "promised; latency and quality: 95 %.",
        unit=Unit.RATIO,
        queries=(Query(f"1 - {_errors(window)}", "{{slo}} {{task}}"),),
        kind=Kind.BARS,
        top=1,
    )


PROMISES = Row("Promises kept", (_good("1h"), _good("1d"), _good("3d")))

BURN = Row(
    "How fast the budget of thirty days is spent: 1 is just sustainable",
    (
        Panel(
            title="Burn over 5 minutes and 1 hour",
            description="Both above 14.4 pages somebody: at that rate two percent of the budget go in an hour.",
            unit=Unit.NUMBER,
            queries=(
                Query(f"{_errors('5m')} / {_BUDGET}", "{{slo}} 5m"),
                Query(f"{_errors('1h')} / {_BUDGET}", "{{slo}} 1h"),
            ),
        ),
        Panel(
            title="Burn over 30 minutes and 6 hours",
            description="Both above 6 pages somebody: the budget would be gone in five days.",
            unit=Unit.NUMBER,
            queries=(
                Query(f"{_errors('30m')} / {_BUDGET}", "{{slo}} 30m"),
                Query(f"{_errors('6h')} / {_BUDGET}", "{{slo}} 6h"),
            ),
        ),
        Panel(
            title="Burn over 1 and 3 days",
            description="Above 3 over a day, or above 1 over three days, somebody gets a ticket.",
            unit=Unit.NUMBER,
            queries=(
                Query(f"{_errors('1d')} / {_BUDGET}", "{{slo}} 1d"),
                Query(f"{_errors('3d')} / {_BUDGET}", "{{slo}} 3d"),
            ),
        ),
    ),
)

BEHIND = Row(
    "What stands behind them",
    (
        Panel(
            title="Age of the newest version (freshness)",
            description="Counts against freshness while updates arrive or wait and the task is not paused.",
            unit=Unit.SECONDS,
            queries=(Query(f"headwater:version_age:seconds{{{_TASKS}}}", "{{task}}"),),
            width=6,
        ),
        Panel(
            title="Append to official, p95 (latency)",
            description="The 95th percentile of the time from an update's append until it is in the model.",
            unit=Unit.SECONDS,
            queries=(Query(f"headwater:update_age:p95{{{_TASKS}}}", "{{task}}"),),
            width=6,
        ),
        Panel(
            title="Held-out loss (quality)",
            description="Mean of ten minutes. More than a tenth above the day's best counts against quality.",
            unit=Unit.NUMBER,
            queries=(Query(f"headwater:evaluation_loss:avg10m{{{_TASKS}}}", "{{task}}"),),
            width=6,
        ),
        Panel(
            title="Updates unaccounted for (zero is good)",
            description="Received less applied and refused. There is no budget for this one: any gap pages.",
            unit=Unit.COUNT,
            queries=(Query(f"max by (task) (abs(headwater_reconcile_gap_updates{{{_TASKS}}}))", "{{task}}"),),
            kind=Kind.STAT,
            width=6,
            limit=Limit(good=Good.LOW, warn=0.5, bad=1),
        ),
    ),
)

SLO = Dashboard(
    name="slo",
    title="Headwater: service levels",
    description="What is promised, how much of it was kept, how fast the error budget goes.",
    rows=(PROMISES, BURN, BEHIND),
)
