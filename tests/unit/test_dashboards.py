"""Dashboards are written by code, ask only for what there is, and explain every panel."""

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from broker_topics.errors import BusError, ConfigError
from headwater.commands.dashboards import app
from headwater.preview.prometheus import Prometheus, Series
from monitoring.alerts import Record, groups
from monitoring.dashboards import DASHBOARDS, grafana_file
from monitoring.dashboards.model import Dashboard, Panel
from monitoring.dashboards.to_grafana import to_json
from monitoring.metrics import Metrics

PANELS = [pytest.param(panel, id=f"{each.name}: {panel.title}") for each in DASHBOARDS for panel in each.panels()]
SERVED = {sample.name for metric in Metrics(task="t").registry.collect() for sample in metric.samples}
RECORDED = {rule.record for group in groups() for rule in group.rules if isinstance(rule, Record)}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: str(dashboard.name))
def test_the_file_for_grafana_is_what_the_tables_give(dashboard: Dashboard) -> None:
    assert grafana_file(dashboard).read_text() == to_json(dashboard), "run: python -m monitoring.dashboards"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: str(dashboard.name))
def test_grafana_asks_the_chosen_prometheus_and_no_panel_hides_another(dashboard: Dashboard) -> None:
    page = json.loads(grafana_file(dashboard).read_text())
    assert [variable["name"] for variable in page["templating"]["list"]] == ["datasource", "task"]
    numbers = [panel["id"] for panel in page["panels"]]
    assert sorted(set(numbers)) == numbers == list(range(1, len(numbers) + 1))
    cells: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        if panel["type"] != "row":
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= own


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_title_a_reason_and_queries_of_the_chosen_task(panel: Panel) -> None:
    assert panel.title[0].isupper()
    assert panel.description.endswith(".")
    assert len(panel.description) > 30
    assert panel.queries
    for query in panel.queries:
        assert "$task" in query.expr or query.expr.startswith(("max(kafka", "min(kafka", "sum(kafka", "max by", "jvm"))


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_only_for_metrics_and_records_that_exist(panel: Panel) -> None:
    for query in panel.queries:
        names = set(re.findall(r"\bheadwater[_:][a-z0-9_:]+", query.expr))
        assert names <= SERVED | RECORDED, names - SERVED - RECORDED


@pytest.mark.parametrize("panel", PANELS)
def test_counters_are_shown_as_rates_over_grafana_s_own_window(panel: Panel) -> None:
    for query in panel.queries:
        windows = re.findall(r"\[([^\]]+)\]", query.expr.replace("[.]", ""))
        assert set(windows) <= {"$__rate_interval"}
        for name in re.findall(r"\b\w+(?:_total|_bucket)\b(?=[{\[])", query.expr):
            assert re.search(rf"(?:rate|increase)\({name}", query.expr), name


def test_the_fault_of_a_counter_without_a_rate_would_be_seen() -> None:
    broken = "sum(headwater_updates_received_total{})"
    (name,) = re.findall(r"\b\w+(?:_total|_bucket)\b(?=[{\[])", broken)
    assert not re.search(rf"(?:rate|increase)\({name}", broken)


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
