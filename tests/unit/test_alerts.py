"""The rules are one file made from code; each alert tells whoever is called what to read, and reads what exists."""

import re
import subprocess
from pathlib import Path

import pytest

from headwater.cli import run
from monitoring.alerts import RULES_FILE, Alert, Options, Record, groups, rules_yaml
from monitoring.metrics import Metrics
from tests.prometheus import tool

REQUIRED = {
    *("ModelStale", "AggregatorDown", "ChainRaceLost", "LagGrowing", "RetentionHeadroomLow"),
    *("UpdatesLostToRetention", "KeyframeFailing", "RejectRatioHigh", "StragglerShareHigh"),
    *("SlowDevicesForgotten", "EventLoopBlocked", "ReconcileGap", "BrokerUnderMinISR", "OutboxGrowing"),
    "ErrorBudgetBurn",
}

RULES = [rule for group in groups() for rule in group.rules]
ALERTS = [rule for rule in RULES if isinstance(rule, Alert)]
RECORDS = [rule for rule in RULES if isinstance(rule, Record)]
FOREIGN = {"kafka_server_replicamanager_underminisrpartitioncount"}
"""Series that another exporter brings: Kafka's own, through the JMX agent."""


def known_series() -> set[str]:
    """Every name that the aggregator serves, samples of histograms included."""
    return {sample.name for metric in Metrics().registry.collect() for sample in metric.samples}


def series_in(expr: str) -> set[str]:
    """Every name of ours, or of Kafka's, that an expression reads."""
    return set(re.findall(r"\b(?:headwater[_:][a-z0-9_:]+|kafka_[a-z_]+)", expr))


def test_the_file_is_what_the_code_makes() -> None:
    assert RULES_FILE.read_text(encoding="utf-8") == rules_yaml(), (
        "run: headwater alerts export -o monitoring/alerts/headwater.rules.yml"
    )


def test_every_alert_of_the_design_is_there_and_no_other() -> None:
    assert {alert.name for alert in ALERTS} == REQUIRED


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_what_how_bad_and_where_to_read_on(alert: Alert) -> None:
    assert alert.severity in {"critical", "warning"}
    assert alert.summary
    assert not alert.summary.endswith(".")
    assert alert.description.endswith(".")
    assert f'runbook_url: "docs/runbooks.md#{alert.name.lower()}"' in rules_yaml()


def test_a_rule_reads_only_series_that_the_aggregator_serves_or_an_earlier_rule_records() -> None:
    known = known_series() | FOREIGN
    for rule in RULES:
        assert series_in(rule.expr) <= known, rule
        if isinstance(rule, Record):
            known.add(rule.record)


def test_every_recording_rule_keeps_the_task_or_has_none() -> None:
    for rule in RECORDS:
        assert re.search(r"by \(task|headwater:", rule.expr) or rule.expr.startswith("vector("), rule.record


@pytest.mark.parametrize("options", [Options(), Options(speed=60, runbook_base="https://git.example/r.md")])
def test_promtool_accepts_the_rules(options: Options, tmp_path: Path) -> None:
    path = tmp_path / "headwater.yml"
    path.write_text(rules_yaml(options), encoding="utf-8")
    done = subprocess.run([tool("promtool"), "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_the_address_of_the_runbooks_is_the_operators() -> None:
    text = rules_yaml(Options(runbook_base="https://git.example/runbooks.md"))
    assert 'runbook_url: "https://git.example/runbooks.md#modelstale"' in text
    assert "docs/runbooks.md" not in text


def test_a_drill_divides_every_duration_but_no_share() -> None:
    text = rules_yaml(Options(speed=60))
    assert "> 5\n" in text  # five minutes of staleness
    assert "headwater:updates_refused:ratio5m > 0.1" in text
    assert not re.search(r"\[\d+[hd]\]", text)


def test_the_command_writes_the_same_file(tmp_path: Path) -> None:
    assert run(["alerts", "export", "-o", str(tmp_path / "rules.yml")]) == 0
    assert (tmp_path / "rules.yml").read_text(encoding="utf-8") == rules_yaml()


def test_a_latency_that_no_bucket_knows_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["alerts", "export", "--latency-s", "45"]) == 2
    assert "which are 0.01, 0.025" in capsys.readouterr().err


def test_the_list_names_every_alert(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["alerts", "list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == REQUIRED
