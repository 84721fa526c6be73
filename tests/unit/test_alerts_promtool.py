"""Each alert fires when it should and stays silent when it should not: `promtool test rules` over series by hand."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from monitoring.alerts import RULES_FILE, Alert, Options, groups
from monitoring.alerts.export import annotations
from tests.prometheus import tool

ALERTS = {
    (rule.name, dict(rule.labels).get("window", "")): rule
    for group in groups()
    for rule in group.rules
    if isinstance(rule, Alert)
}
T = '{task="watch"}'


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series, a sample a minute, in promtool's notation; `says`: the value as templates print it, None for silence.

    windows: of burn rates, each that fires with the value that it says.
    """

    alert: str
    after: str
    series: Mapping[str, str]
    says: str | None
    labels: Mapping[str, str] = field(default_factory=lambda: {"task": "watch"})
    windows: Mapping[str, str] = field(default_factory=dict)


def healthy(**changed: str) -> dict[str, str]:
    """A fleet in which all is well; keys are metric names without prefix, `le` and the like by hand below."""
    base = {
        f"headwater_leader{T}": "1x400",
        f"headwater_updates_received_total{T}": "0+60x400",
        'headwater_updates_processed_total{task="watch",outcome="applied"}': "0+60x400",
        'headwater_rejects_total{task="watch",code="stale"}': "0x400",
        'headwater_rejects_total{task="watch",code="duplicate"}': "0+20x400",
        'headwater_consumer_lag_records{task="watch",partition="0"}': "0x400",
        f"headwater_consumer_lag_seconds{T}": "0x400",
        f"headwater_model_published_timestamp_seconds{T}": "1+60x400",
        f"headwater_paused{T}": "0x400",
    }
    return {**base, **changed}


DEAD = "1x60 _x400"

CASES = [
    # The process ends after an hour; two minutes later somebody is called, and still is after half a day.
    Case(alert="AggregatorDown", after="61m", series=healthy(**{f"headwater_leader{T}": "1x60 0x400"}), says=None),
    Case(alert="AggregatorDown", after="64m", series=healthy(**{f"headwater_leader{T}": "1x60 0x400"}), says=""),
    Case(alert="AggregatorDown", after="2h", series=healthy(**{f"headwater_leader{T}": "1x60 0x400"}), says=""),
    Case(alert="AggregatorDown", after="70m", series=healthy(), says=None),
    # A standby that never led beside a leader is no reason.
    Case(
        alert="AggregatorDown",
        after="70m",
        series=healthy(**{'headwater_leader{task="watch",instance="standby"}': "0x400"}),
        says=None,
    ),
    # Nothing was ever scraped.
    Case(alert="AggregatorDown", after="10m", series={"up": "1x60"}, says="", labels={}),
    # Versions stop after an hour while updates arrive.
    Case(
        alert="ModelStale",
        after="72m",
        series=healthy(**{f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400"}),
        says="12m 0s",
    ),
    Case(
        alert="ModelStale",
        after="66m",
        series=healthy(**{f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400"}),
        says=None,
    ),
    # The same, but no update arrives: a quiet fleet is no fault; nor is a pause that an operator asked for.
    Case(
        alert="ModelStale",
        after="90m",
        series=healthy(
            **{
                f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400",
                f"headwater_updates_received_total{T}": "0+60x60 3600x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="ModelStale",
        after="90m",
        series=healthy(
            **{
                f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400",
                f"headwater_paused{T}": "1x400",
            }
        ),
        says=None,
    ),
    # The process is gone, and every series with it.
    Case(
        alert="ModelStale",
        after="72m",
        series=dict.fromkeys(healthy(), DEAD)
        | {
            f"headwater_model_published_timestamp_seconds{T}": "1+60x60 _x400",
        },
        says="11m 59s",
    ),
    Case(
        alert="ChainRaceLost",
        after="32m",
        series=healthy(**{f"headwater_chain_lost_races_total{T}": "0x29 1x400"}),
        says="",
    ),
    Case(
        alert="ChainRaceLost",
        after="60m",
        series=healthy(**{f"headwater_chain_lost_races_total{T}": "0x29 1x400"}),
        says=None,
    ),
    Case(
        alert="ChainRaceLost",
        after="10m",
        series=healthy(**{'headwater_leader{task="watch",instance="b"}': "1x400"}),
        says="",
    ),
    Case(
        alert="LagGrowing",
        after="2h",
        series=healthy(
            **{
                'headwater_consumer_lag_records{task="watch",partition="0"}': "0+50x400",
                f"headwater_consumer_lag_seconds{T}": "0+30x400",
            }
        ),
        says="1h 0m 0s",
    ),
    # A backlog that shrinks is being dealt with.
    Case(
        alert="LagGrowing",
        after="2h",
        series=healthy(
            **{
                'headwater_consumer_lag_records{task="watch",partition="0"}': "40000-50x400",
                f"headwater_consumer_lag_seconds{T}": "3600x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="RetentionHeadroomLow",
        after="60m",
        series=healthy(
            **{
                f"headwater_retention_headroom_seconds{T}": "100000x400",
                f"headwater_retention_seconds{T}": "400000x400",
            }
        ),
        says="25%",
    ),
    Case(
        alert="RetentionHeadroomLow",
        after="60m",
        series=healthy(
            **{
                f"headwater_retention_headroom_seconds{T}": "300000x400",
                f"headwater_retention_seconds{T}": "400000x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="UpdatesLostToRetention",
        after="5m",
        series=healthy(**{'headwater_void_offsets_total{task="watch",kind="lost"}': "0x2 7x100"}),
        says="",
    ),
    Case(
        alert="UpdatesLostToRetention",
        after="5m",
        series=healthy(
            **{
                'headwater_void_offsets_total{task="watch",kind="lost"}': "0x100",
                'headwater_void_offsets_total{task="watch",kind="control"}': "0+1x100",
                f"headwater_retention_headroom_seconds{T}": "1x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="KeyframeFailing",
        after="30m",
        series=healthy(**{f"headwater_keyframe_failures_total{T}": "0+3x400"}),
        says="",
    ),
    Case(
        alert="KeyframeFailing",
        after="30m",
        series=healthy(**{f"headwater_keyframe_failures_total{T}": "0x12 1x400"}),
        says=None,
    ),
    Case(
        alert="RejectRatioHigh",
        after="30m",
        series=healthy(**{'headwater_rejects_total{task="watch",code="stale"}': "0+20x400"}),
        says="25%",
    ),
    # Duplicates are resends after a lost answer, however many.
    Case(alert="RejectRatioHigh", after="30m", series=healthy(), says=None),
    Case(
        alert="StragglerShareHigh",
        after="60m",
        series=healthy(**{f"headwater_straggler_share{T}": "0.3x400"}),
        says="30%",
    ),
    Case(
        alert="StragglerShareHigh",
        after="60m",
        series=healthy(**{f"headwater_straggler_share{T}": "0.05x20 0.3x5 0.05x400"}),
        says=None,
    ),
    Case(
        alert="SlowDevicesForgotten",
        after="60m",
        series=healthy(**{'headwater_silent_share{task="watch",speed="slowest_tenth"}': "0.8x400"}),
        says="",
    ),
    Case(
        alert="SlowDevicesForgotten",
        after="60m",
        series=healthy(
            **{
                'headwater_weight_share{task="watch",speed="slowest_tenth"}': "0.02x400",
                'headwater_data_share{task="watch",speed="slowest_tenth"}': "0.1x400",
            }
        ),
        says="",
    ),
    # Fast devices may come and go; slow ones that are rarely heard but count in full are what fairness is for.
    Case(
        alert="SlowDevicesForgotten",
        after="60m",
        series=healthy(
            **{
                'headwater_silent_share{task="watch",speed="fastest_tenth"}': "1x400",
                'headwater_silent_share{task="watch",speed="slowest_tenth"}': "0.1x400",
                'headwater_participation_share{task="watch",speed="slowest_tenth"}': "0.01x400",
                'headwater_weight_share{task="watch",speed="slowest_tenth"}': "0.09x400",
                'headwater_data_share{task="watch",speed="slowest_tenth"}': "0.1x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="EventLoopBlocked",
        after="30m",
        series=healthy(
            **{
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="0.25"}': "0+0x400",
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="0.5"}': "0+100x400",
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="+Inf"}': "0+100x400",
            }
        ),
        says="497.5ms",
    ),
    Case(
        alert="EventLoopBlocked",
        after="30m",
        series=healthy(
            **{
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="0.015"}': "0+100x400",
                'headwater_event_loop_lag_seconds_bucket{task="watch",le="+Inf"}': "0+100x400",
            }
        ),
        says=None,
    ),
    Case(
        alert="ReconcileGap", after="5m", series=healthy(**{f"headwater_reconcile_gap_updates{T}": "-2x60"}), says="2"
    ),
    Case(
        alert="ReconcileGap", after="5m", series=healthy(**{f"headwater_reconcile_gap_updates{T}": "0x60"}), says=None
    ),
    Case(
        alert="BrokerUnderMinISR",
        after="5m",
        series={'kafka_server_replicamanager_underminisrpartitioncount{job="kafka",instance="a"}': "3x60"},
        says="3",
        labels={"job": "kafka"},
    ),
    Case(
        alert="BrokerUnderMinISR",
        after="5m",
        series={'kafka_server_replicamanager_underminisrpartitioncount{job="kafka",instance="a"}': "0x60"},
        says=None,
        labels={"job": "kafka"},
    ),
    Case(
        alert="OutboxGrowing",
        after="60m",
        series=healthy(
            **{
                'headwater_outbox_age_seconds_bucket{task="watch",le="300"}': "0+50x400",
                'headwater_outbox_age_seconds_bucket{task="watch",le="3600"}': "0+100x400",
                'headwater_outbox_age_seconds_bucket{task="watch",le="+Inf"}': "0+100x400",
            }
        ),
        says="49m 0s",
    ),
    Case(
        alert="OutboxGrowing",
        after="60m",
        series=healthy(
            **{
                'headwater_outbox_age_seconds_bucket{task="watch",le="10"}': "0+100x400",
                'headwater_outbox_age_seconds_bucket{task="watch",le="+Inf"}': "0+100x400",
            }
        ),
        says=None,
    ),
    # Everything is late: the hour's budget burns at twenty times its rate, 100 % of errors over 5 %.
    Case(
        alert="ErrorBudgetBurn",
        after="2h",
        series=healthy(
            **{
                'headwater_update_age_seconds_bucket{task="watch",le="60.0"}': "0x400",
                f"headwater_update_age_seconds_count{T}": "0+60x400",
            }
        ),
        says="100%",
        windows={"1h": "100%", "6h": "100%", "1d": "100%"},
        labels={"task": "watch", "slo": "latency"},
    ),
    # It was so for an hour, but is no longer: the short window stops the alert.
    Case(
        alert="ErrorBudgetBurn",
        after="70m",
        series=healthy(
            **{
                'headwater_update_age_seconds_bucket{task="watch",le="60.0"}': "0x60 0+60x400",
                f"headwater_update_age_seconds_count{T}": "0+60x400",
            }
        ),
        says=None,
        windows={"6h": "87.14%", "1d": "87.14%"},
        labels={"task": "watch", "slo": "latency"},
    ),
    Case(
        alert="ErrorBudgetBurn",
        after="2h",
        series=healthy(
            **{f"headwater_fetch_probes_total{T}": "0+4x400", f"headwater_fetch_probe_failures_total{T}": "0+1x400"}
        ),
        says="25%",
        windows={"1h": "25%", "6h": "25%", "1d": "25%"},
        labels={"task": "watch", "slo": "fetchability"},
    ),
    Case(
        alert="ErrorBudgetBurn",
        after="2h",
        series=healthy(**{f"headwater_model_published_timestamp_seconds{T}": "1+60x60 3600x400"}),
        says="100%",
        windows={"1h": "90.16%", "6h": "45.45%"},
        labels={"task": "watch", "slo": "freshness"},
    ),
    Case(
        alert="ErrorBudgetBurn",
        after="2h",
        series=healthy(**{f"headwater_evaluation_loss{T}": "0.5x60 0.9x400"}),
        says="100%",
        windows={"1h": "96.72%", "6h": "48.76%"},
        labels={"task": "watch", "slo": "quality"},
    ),
    Case(
        alert="ErrorBudgetBurn",
        after="2h",
        series=healthy(**{f"headwater_evaluation_loss{T}": "0.5x60 0.52x400"}),
        says=None,
        labels={"task": "watch", "slo": "quality"},
    ),
]


def unit_test(case: Case) -> dict[str, object]:
    """One test of `promtool test rules`."""
    values = case.windows or ({} if case.says is None else {"": case.says})
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": case.after,
                "alertname": case.alert,
                "exp_alerts": [expected(case, ALERTS[case.alert, window], value) for window, value in values.items()],
            }
        ],
    }


def expected(case: Case, alert: Alert, value: str) -> dict[str, dict[str, str]]:
    """An alert that fires, as promtool wants it described."""
    labels = {**case.labels, "severity": alert.severity, **dict(alert.labels)}
    texts = annotations(alert, Options()).items()
    return {
        "exp_labels": labels,
        "exp_annotations": {name: rendered(text, labels, value) for name, text in texts},
    }


def rendered(text: str, labels: Mapping[str, str], value: str) -> str:
    """An annotation as Prometheus fills it in."""
    for name in ("task", "slo"):
        text = text.replace(f"{{{{ $labels.{name} }}}}", labels.get(name, ""))
    for form in ("{{ $value }}", "{{ $value | humanizeDuration }}", "{{ $value | humanizePercentage }}"):
        text = text.replace(form, value)
    return text


def promtool(cases: list[Case], folder: Path) -> "subprocess.CompletedProcess[str]":
    test = {
        "rule_files": [str(RULES_FILE)],
        "evaluation_interval": "1m",
        "group_eval_order": [group.name for group in groups()],
        "tests": [unit_test(case) for case in cases],
    }
    path = folder / "test.yml"
    path.write_text(json.dumps(test), encoding="utf-8")  # JSON is YAML
    return subprocess.run(
        [tool("promtool"), "test", "rules", path], capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize("name", sorted({case.alert for case in CASES}))
def test_the_alert_fires_when_it_should_and_only_then(name: str, tmp_path: Path) -> None:
    done = promtool([case for case in CASES if case.alert == name], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    names = {name for name, _ in ALERTS}
    assert {case.alert for case in CASES if case.says is not None} == names
    assert {case.alert for case in CASES if case.says is None} == names


def test_a_case_that_expects_the_wrong_thing_is_found_out(tmp_path: Path) -> None:
    silent = next(case for case in CASES if case.says is None)
    assert promtool([Case(alert=silent.alert, after=silent.after, series=silent.series, says="")], tmp_path).returncode
