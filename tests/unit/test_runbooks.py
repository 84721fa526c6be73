"""Whoever is called finds a section for the alert, with the same four parts, and queries that work."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from monitoring.alerts import Alert, Record, groups
from monitoring.metrics import Metrics
from tests.prometheus import tool
from tests.runbooks import PAGE, queries, sections

ALERTS = {rule.name for group in groups() for rule in group.rules if isinstance(rule, Alert)}
RECORDED = {rule.record for group in groups() for rule in group.rules if isinstance(rule, Record)}
SERVED = {sample.name for metric in Metrics().registry.collect() for sample in metric.samples}


def test_every_alert_has_its_section_and_no_section_is_left_over() -> None:
    assert set(sections()) == ALERTS


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_a_section_says_meaning_impact_diagnosis_and_mitigation(name: str) -> None:
    parts = re.findall(r"^\*\*(\w+)\.\*\*", sections()[name], flags=re.MULTILINE)
    assert parts == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert "```promql\n" in sections()[name]


def test_links_within_the_page_lead_to_sections() -> None:
    anchors = {name.lower() for name in ALERTS}
    assert set(re.findall(r"\]\(#([a-z]+)\)", PAGE.read_text(encoding="utf-8"))) <= anchors


def test_queries_read_series_that_exist() -> None:
    assert len(queries()) > 50
    for query in queries():
        names = set(re.findall(r"\b(?:headwater[_:][a-zA-Z0-9_:]+|process_[a-z_]+)", query))
        assert names <= SERVED | RECORDED, query


def test_promtool_can_parse_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"runbook:query:{number}", "expr": query} for number, query in enumerate(queries())]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "runbooks", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([tool("promtool"), "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
