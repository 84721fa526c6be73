"""Dashboards are written by code, ask only for what there is, and explain every panel."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from broker_topics.errors import BusError, ConfigError
from headwater.commands.dashboards import app
from headwater.preview.prometheus import Prometheus, Series
from monitoring.dashboards import DASHBOARDS, grafana_file
from monitoring.dashboards.model import Dashboard
from monitoring.dashboards.to_grafana import to_json
from tests.unit.dashboard_lint import Rule, complaints

Json = dict[str, Any]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: str(dashboard.name))
def test_the_file_for_grafana_is_what_the_tables_give(dashboard: Dashboard) -> None:
    assert grafana_file(dashboard).read_text() == to_json(dashboard), "run: python -m monitoring.dashboards"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: str(dashboard.name))
def test_there_is_nothing_to_complain_of(dashboard: Dashboard) -> None:
    assert complaints(json.loads(grafana_file(dashboard).read_text())) == []


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What spoils a copy of the fleet's dashboard, and what must be said of it; `panel`: the title of a panel."""

    rule: Rule
    panel: str
    spoil: Callable[[Json, Json], object]
    found: object


FLEET = "Headwater: fleet and stragglers"
DECIDED = "Updates decided"
STALENESS = "Staleness of updates"
HEARD = "Devices heard within the hour"
RATED = 'rate(headwater_rejects_total{task=~"$task"}[$__rate_interval])'


def asks(expr: str) -> Callable[[Json, Json], object]:
    """A fault: the panel's first query is another."""
    return lambda page, panel: panel["targets"][0].update(expr=expr)


FAULTS = {
    "no task to choose": Fault(
        rule=Rule.VARIABLES,
        panel=FLEET,
        spoil=lambda page, panel: page["templating"]["list"].pop(),
        found=[("datasource", "datasource", "prometheus")],
    ),
    "another kind of datasource": Fault(
        rule=Rule.VARIABLES,
        panel=FLEET,
        spoil=lambda page, panel: page["templating"]["list"][0].update(query="loki"),
        found=[("datasource", "datasource", "loki"), ("task", "query", "")],
    ),
    "tasks of a fixed datasource": Fault(
        rule=Rule.DATASOURCE,
        panel=FLEET,
        spoil=lambda page, panel: page["templating"]["list"][1]["datasource"].update(uid="P1"),
        found={"type": "prometheus", "uid": "P1"},
    ),
    "a panel of a fixed datasource": Fault(
        rule=Rule.DATASOURCE,
        panel=DECIDED,
        spoil=lambda page, panel: panel["datasource"].update(uid="P1"),
        found={"type": "prometheus", "uid": "P1"},
    ),
    "a query without a datasource": Fault(
        rule=Rule.DATASOURCE,
        panel=DECIDED,
        spoil=lambda page, panel: panel["targets"][0].pop("datasource"),
        found=None,
    ),
    "a number twice": Fault(rule=Rule.NUMBERS, panel=DECIDED, spoil=lambda page, panel: panel.update(id=1), found=1),
    "a panel over another": Fault(
        rule=Rule.PLACE,
        panel=DECIDED,
        spoil=lambda page, panel: panel["gridPos"].update(x=3),
        found={"h": 4, "w": 4, "x": 3, "y": 1},
    ),
    "a panel beyond the edge": Fault(
        rule=Rule.PLACE,
        panel=DECIDED,
        spoil=lambda page, panel: panel["gridPos"].update(x=22, y=1000),
        found={"h": 4, "w": 4, "x": 22, "y": 1000},
    ),
    "a panel without a title": Fault(
        rule=Rule.TITLE, panel=DECIDED, spoil=lambda page, panel: panel.pop("title"), found=""
    ),
    "a title in small letters": Fault(
        rule=Rule.TITLE, panel=DECIDED, spoil=lambda page, panel: panel.update(title="decided"), found="decided"
    ),
    "a heading without a title": Fault(
        rule=Rule.TITLE, panel="At a glance", spoil=lambda page, panel: panel.update(title=""), found=""
    ),
    "a panel without a description": Fault(
        rule=Rule.DESCRIPTION, panel=DECIDED, spoil=lambda page, panel: panel.pop("description"), found=""
    ),
    "a description that says nothing": Fault(
        rule=Rule.DESCRIPTION,
        panel=DECIDED,
        spoil=lambda page, panel: panel.update(description="Updates."),
        found="Updates.",
    ),
    "a dashboard without a description": Fault(
        rule=Rule.DESCRIPTION, panel=FLEET, spoil=lambda page, panel: page.pop("description"), found=None
    ),
    "a panel without a unit": Fault(
        rule=Rule.UNIT,
        panel=DECIDED,
        spoil=lambda page, panel: panel["fieldConfig"]["defaults"].pop("unit"),
        found=None,
    ),
    "a heat map without a unit": Fault(
        rule=Rule.UNIT, panel=STALENESS, spoil=lambda page, panel: panel["options"]["yAxis"].pop("unit"), found=None
    ),
    "a heat map whose unit is of no axis": Fault(
        rule=Rule.UNIT,
        panel=STALENESS,
        spoil=lambda page, panel: (
            panel["options"].pop("yAxis"),
            panel.update(fieldConfig={"defaults": {"unit": "none"}}),
        ),
        found=None,
    ),
    "a panel without a query": Fault(
        rule=Rule.QUERY, panel=DECIDED, spoil=lambda page, panel: panel["targets"].clear(), found=[]
    ),
    "an empty query": Fault(rule=Rule.QUERY, panel=DECIDED, spoil=asks(""), found=""),
    "every task": Fault(
        rule=Rule.TASK, panel=HEARD, spoil=asks("max by (task) (headwater_leader)"), found="headwater_leader"
    ),
    "every job": Fault(rule=Rule.TASK, panel=HEARD, spoil=asks("sum(up)"), found="sum(up)"),
    "a metric that nobody serves": Fault(
        rule=Rule.EXISTS, panel=HEARD, spoil=asks('headwater_leaders{task=~"$task"}'), found="headwater_leaders"
    ),
    "a window of one's own": Fault(
        rule=Rule.WINDOW,
        panel=DECIDED,
        spoil=asks('sum(rate(headwater_rejects_total{task=~"$task"}[5m]))'),
        found="5m",
    ),
    "a counter": Fault(
        rule=Rule.COUNTER,
        panel=DECIDED,
        spoil=asks('sum(headwater_rejects_total{task=~"$task"})'),
        found="headwater_rejects_total",
    ),
    "a counter without braces": Fault(
        rule=Rule.COUNTER,
        panel=DECIDED,
        spoil=asks('sum(kafka_x_total) + max(headwater_leader{task=~"$task"})'),
        found="kafka_x_total",
    ),
    "a counter once rated, once not": Fault(
        rule=Rule.COUNTER,
        panel=DECIDED,
        spoil=asks(f'sum({RATED}) / sum(headwater_rejects_total{{task=~"$task"}})'),
        found="headwater_rejects_total",
    ),
    "buckets": Fault(
        rule=Rule.COUNTER,
        panel=DECIDED,
        spoil=asks('histogram_quantile(0.5, headwater_update_norm_bucket{task=~"$task"})'),
        found="headwater_update_norm_bucket",
    ),
    "a histogram's count": Fault(
        rule=Rule.COUNTER,
        panel=DECIDED,
        spoil=asks('headwater_update_norm_count{task=~"$task"}'),
        found="headwater_update_norm_count",
    ),
    "a histogram's sum through a function for gauges": Fault(
        rule=Rule.COUNTER,
        panel=DECIDED,
        spoil=asks('delta(headwater_update_norm_sum{task=~"$task"}[$__rate_interval])'),
        found="headwater_update_norm_sum",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_complained_of_and_nothing_else(fault: Fault) -> None:
    page = json.loads(grafana_file(next(each for each in DASHBOARDS if each.title == FLEET)).read_text())
    panel = next((panel for panel in page["panels"] if panel["title"] == fault.panel), page)
    fault.spoil(page, panel)
    assert complaints(page) == [(fault.rule, panel.get("title", ""), fault.found)]


def test_each_rule_has_a_fault_that_breaks_it() -> None:
    assert {fault.rule for fault in FAULTS.values()} == set(Rule)


@pytest.mark.parametrize("growth", ["rate", "irate", "increase"])
def test_growth_of_a_counter_is_no_fault(growth: str) -> None:
    page = json.loads(grafana_file(DASHBOARDS[0]).read_text())
    page["panels"][1]["targets"][0]["expr"] = f"sum by (code) ({RATED.replace('rate(', f'{growth}( ', 1)})"
    assert complaints(page) == []


def test_export_writes_what_grafana_imports(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", "--out", str(tmp_path / "new" / "folder")])
    assert done.exit_code == 0
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "new" / "folder").iterdir()}
    assert sorted(written) == sorted(
        ["headwater-aggregator.json", "headwater-fleet.json", "headwater-kafka.json", "headwater-slo.json"]
    )
    assert {page["uid"] for page in written.values()} == {name.removesuffix(".json") for name in written}


class Answers(BaseHTTPRequestHandler):
    """Says whatever the test put into `body`, and remembers what was asked."""

    body = b""
    status = 200
    asked: list[bytes] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def answers() -> Iterator[type[Answers]]:
    class Own(Answers):
        asked: list[bytes] = []  # noqa: RUF012

    server = HTTPServer(("127.0.0.1", 0), Own)
    Own.server_version = f"127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    yield Own
    server.shutdown()
    server.server_close()


def source(address: str) -> Prometheus:
    return Prometheus(url=address, task="watch", end_s=1000, span_s=60, step_s=1, rate_s=10)


def test_variables_are_filled_in_and_values_that_are_not_finite_left_out(answers: type[Answers]) -> None:
    answers.body = json.dumps(
        {
            "status": "success",
            "data": {
                "result": [
                    {"metric": {"code": "stale"}, "values": [[1, "2.5"], [2, "NaN"], [3, "+Inf"]]},
                    {"metric": {"code": "norm"}, "values": [[1, "NaN"]]},
                ]
            },
        }
    ).encode()
    found = source(f"http://{answers.server_version}").ask('rate(x{task=~"$task"}[$__rate_interval])')
    assert found == [Series({"code": "stale"}, (1.0,), (2.5,))]
    assert b"query=rate%28x%7Btask%3D~%22watch%22%7D%5B10s%5D%29" in answers.asked[0]


def test_a_refused_expression_is_told_in_prometheus_own_words(answers: type[Answers]) -> None:
    answers.status, answers.body = 400, b'{"status": "error", "error": "unexpected end of input"}'
    with pytest.raises(ConfigError, match=r"refuses 'sum\('.*unexpected end of input"):
        source(f"http://{answers.server_version}").ask("sum(")


def test_what_is_no_prometheus_is_told_from_one_that_does_not_answer(answers: type[Answers]) -> None:
    answers.body = b"<html>hello</html>"
    with pytest.raises(ConfigError, match="is no Prometheus"):
        source(f"http://{answers.server_version}").ask("up")
    with pytest.raises(BusError, match=r"no Prometheus answers at http://127\.0\.0\.1:9"):
        source("http://127.0.0.1:9").ask("up")
    with pytest.raises(ConfigError, match="give its address"):
        source("file:///etc/passwd").ask("up")
