"""A real Prometheus scrapes a real fleet: every rule and every expression works on what is really served."""

import json
import time
from pathlib import Path

import pytest

from headwater.preview.draw import draw
from headwater.preview.prometheus import Prometheus
from monitoring.alerts import Alert, Options, Record, groups
from monitoring.dashboards import DASHBOARDS
from monitoring.dashboards.model import Dashboard
from monitoring.metrics import Metrics
from tests.kafka.live import FAST, Live
from tests.runbooks import queries

WAVERS = "the mean loss of ten minutes is one of ten seconds here: near its best a loss wavers by more than a tenth"
DISTORTED = {("ErrorBudgetBurn", "quality"): WAVERS}
"""Alerts, and the service level of those that have one, that a fleet may fire only because its clock is hurried."""

LED = "count_over_time((headwater_leader == 1)[60s:1s]) > 45"
"""True when an aggregator has led for longer than any alert waits that looks back on less than a day."""

FIRED = 'max_over_time(ALERTS{alertstate="firing"}[40s])'
"""Whatever fired at any moment since."""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_metric_is_scraped_and_carries_its_task(live: Live) -> None:
    prometheus = live.prometheus
    assert [value for _, value in prometheus.query('up{job="headwater"}')] == [1.0]
    for metric in Metrics().registry.collect():
        for name in {sample.name for sample in metric.samples}:
            found = prometheus.query(f'{name}{{job="headwater"}}')
            assert found, name
            assert {labels.get("task") for labels, _ in found} == {live.fleet.task}, name


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_rule_is_healthy_and_every_record_has_a_result(live: Live) -> None:
    prometheus = live.prometheus
    names = {rule.record for group in groups(FAST) for rule in group.rules if isinstance(rule, Record)}
    prometheus.until(lambda: all(prometheus.query(name) for name in names), f"each of {sorted(names)} has a result")
    rules = prometheus.rules()
    assert len(rules) == sum(len(group.rules) for group in groups(FAST))
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_expression_of_the_rules_as_they_are_shipped_can_be_evaluated(live: Live) -> None:
    for group in groups(Options()):
        for rule in group.rules:
            live.prometheus.query(rule.expr)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_healthy_fleet_fires_nothing(live: Live) -> None:
    known = {rule.name for group in groups() for rule in group.rules if isinstance(rule, Alert)}
    assert {name for name, _ in DISTORTED} < known
    watch = live.prometheus
    watch.until(lambda: watch.query(LED), "an aggregator has led for a while")
    fired = {(labels["alertname"], labels.get("slo", "")) for labels, _ in watch.query(FIRED)}
    assert fired <= set(DISTORTED), watch.query(FIRED)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_offsets_and_decisions_add_up_and_devices_can_fetch(live: Live) -> None:
    ask = live.prometheus.query
    assert [value for _, value in ask("headwater_reconcile_gap_updates")] == [0.0]
    assert [value for _, value in ask("headwater_fetch_probe_failures_total")] == [0.0]
    assert ask("headwater_updates_received_total")[0][1] > 5
    assert ask("headwater:version_age:seconds")[0][1] < 60


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("query", queries())
def test_every_query_of_the_runbooks_works(live: Live, query: str) -> None:
    found = live.prometheus.query(query)
    assert found or "> 0" in query or "kafka_" in query or "seconds_bucket{" in query, "it has no result"


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: str(dashboard.name))
def test_every_panel_of_a_dashboard_shows_data_and_becomes_a_picture(
    live: Live, dashboard: Dashboard, tmp_path: Path
) -> None:
    source = Prometheus(
        url=f"http://{live.prometheus.address}", task=live.fleet.task, end_s=time.time(), span_s=60, step_s=1, rate_s=20
    )
    path, empty = draw(dashboard, source, tmp_path)
    assert empty == []
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_stragglers_are_listed_from_the_broker_and_by_the_aggregator(live: Live) -> None:
    done = live.fleet.run_now("stragglers", "--by", "silence", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {row["client_id"] for row in told["stragglers"]} == {"w-0", "w-3", "w-6"}
    shown = live.fleet.run_now("stragglers")
    assert shown.returncode == 0, shown.stderr
    assert "w-3" in shown.stdout
    asked = live.fleet.run_now("stragglers", "--url", f"http://127.0.0.1:{live.port}", "--json")
    assert asked.returncode == 0, asked.stderr
    assert isinstance(json.loads(asked.stdout), list)
