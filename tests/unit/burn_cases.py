"""How fast error budgets are spent: five speeds for four service levels at once, and what begins, ends or lasts."""

from collections.abc import Callable, Mapping

from tests.unit.alert_case import Case, T, healthy

LATENCY_WITHIN = 'headwater_update_age_seconds_bucket{task="watch",le="60.0"}'
LATENCY_ALL = f"headwater_update_age_seconds_count{T}"
PROBES = f"headwater_fetch_probes_total{T}"
PROBE_FAILURES = f"headwater_fetch_probe_failures_total{T}"
PUBLISHED = f"headwater_model_published_timestamp_seconds{T}"
LOSS = f"headwater_evaluation_loss{T}"


def burn(after: str, series: Mapping[str, str], *, every: str = "1m", **slos: Mapping[str, str]) -> Case:
    """The windows whose alerts fire, with the share of errors that they say, for each service level."""
    return Case(alert="ErrorBudgetBurn", after=after, series=series, burns=slos, every=every)


def each_minute(value: Callable[[int], float]) -> str:
    """Samples of more than five hours."""
    return " ".join(f"{value(minute):g}" for minute in range(310))


def speed(*, within: int, failures: int, stale_every: int, jump_every: int) -> dict[str, str]:
    """A fleet that spends its budgets evenly.

    within: updates that are official in time, of 200 each minute; 5 % may be late.
    failures: of 200 fetches each minute; 1 % may fail.
    stale_every: minutes, in the last of which the newest version is too old; it may be so in 1 % of the time.
    jump_every: minutes, in the last of which the loss jumps, which the mean of ten minutes feels; 5 % of the time may.
    """
    return healthy(
        **{
            LATENCY_WITHIN: f"0+{within}x500",
            LATENCY_ALL: "0+200x500",
            PROBES: "0+200x500",
            PROBE_FAILURES: f"0+{failures}x500",
            PUBLISHED: each_minute(lambda t: 60 * t + 1 - (400 if t % stale_every == stale_every - 1 else 0)),
            LOSS: each_minute(lambda t: 50.0 if t > 15 and t % jump_every == jump_every - 1 else 0.5),
        }
    )


SPEEDS = [
    # Half as much as lasts for thirty days; then two, four, eight and sixteen times as much.
    burn(
        "5h",
        speed(within=195, failures=1, stale_every=200, jump_every=200),
        latency={},
        fetchability={},
        freshness={},
        quality={},
    ),
    burn(
        "5h",
        speed(within=180, failures=4, stale_every=50, jump_every=80),
        latency={"3d": "10%"},
        fetchability={"3d": "2%"},
        freshness={"3d": "1.993%"},
        quality={"3d": "10.96%"},
    ),
    burn(
        "5h",
        speed(within=160, failures=8, stale_every=25, jump_every=55),
        latency={"3d": "20%", "1d": "20%"},
        fetchability={"3d": "4%", "1d": "4%"},
        freshness={"3d": "3.987%", "1d": "3.987%"},
        quality={"3d": "18.27%", "1d": "18.27%"},
    ),
    burn(
        "5h",
        speed(within=120, failures=16, stale_every=12, jump_every=25),
        latency={"3d": "40%", "1d": "40%", "6h": "40%"},
        fetchability={"3d": "8%", "1d": "8%", "6h": "8%"},
        freshness={"3d": "8.306%", "1d": "8.306%", "6h": "8.306%"},
        quality={"3d": "40.86%", "1d": "40.86%", "6h": "40.86%"},
    ),
    burn(
        "5h",
        speed(within=40, failures=32, stale_every=6, jump_every=9),
        latency={"3d": "80%", "1d": "80%", "6h": "80%", "1h": "80%"},
        fetchability={"3d": "16%", "1d": "16%", "6h": "16%", "1h": "16%"},
        freshness={"3d": "16.33%", "1d": "16.33%", "6h": "16.33%", "1h": "16.39%"},
        quality={"3d": "94.35%", "1d": "94.35%", "6h": "94.35%", "1h": "100%"},
    ),
]

ALL_IS_LATE = {LATENCY_WITHIN: "0x500", LATENCY_ALL: "0+60x500"}
A_QUARTER_CANNOT_BE_FETCHED = {PROBES: "0+4x500", PROBE_FAILURES: "0+1x500"}
A_LATE_HOUR = healthy(**{LATENCY_WITHIN: "0x60 0+60x440", LATENCY_ALL: "0+60x500"})
STANDSTILL_AFTER_AN_HOUR = {PUBLISHED: "1+60x60 3600x440"}

CASES = [
    *SPEEDS,
    # The hour's budget of latency burns at twenty times its rate, 100 % of errors over 5 %. An alert waits its time.
    burn("1m", healthy(**ALL_IS_LATE, **A_QUARTER_CANNOT_BE_FETCHED), latency={}, fetchability={}),
    burn(
        "2h",
        healthy(**ALL_IS_LATE, **A_QUARTER_CANNOT_BE_FETCHED),
        latency={"1h": "100%", "6h": "100%", "1d": "100%"},
        fetchability={"1h": "25%", "6h": "25%", "1d": "25%"},
    ),
    burn(
        "2h",
        healthy(**STANDSTILL_AFTER_AN_HOUR, **{LOSS: "0.5x60 0.9x440"}),
        freshness={"1h": "90.16%", "6h": "45.45%"},
        quality={"1h": "96.72%", "6h": "48.76%"},
    ),
    # All was late for an hour, but is no longer: one short window after the other stops its alert.
    burn("70m", A_LATE_HOUR, latency={"6h": "87.14%", "1d": "87.14%"}),
    burn("100m", A_LATE_HOUR, latency={"1d": "61%"}),
    burn("190m", A_LATE_HOUR, latency={"3d": "32.11%"}),
    burn("8h", A_LATE_HOUR, latency={}),
    # Two days and a half are well, then for twelve hours 40 % are late: each long window remembers as much as it says.
    burn(
        "72h",
        {LATENCY_WITHIN: "0+1000x240 240600+600x59", LATENCY_ALL: "0+1000x300"},
        every="15m",
        latency={"6h": "40%", "1d": "20%", "3d": "6.667%"},
    ),
    # Nor does it count against freshness if an operator pauses the task, nor against quality if the loss rises by 4 %.
    burn(
        "4h",
        healthy(**STANDSTILL_AFTER_AN_HOUR, **{f"headwater_paused{T}": "0x60 1x440", LOSS: "0.5x60 0.52x440"}),
        freshness={},
        quality={},
    ),
]
