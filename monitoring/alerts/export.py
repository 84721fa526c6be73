"""Writes the rules as a file for Prometheus."""

import json
from collections.abc import Iterator
from pathlib import Path

from monitoring.alerts.rules import Alert, Options, Record, Rule, groups

RULES_FILE = Path(__file__).parent / "headwater.rules.yml"
"""The rules with their default options, as `rules_yaml` writes them; a test compares."""

_HEAD = (
    "# Rules of Headwater for Prometheus 2.42 or newer. Generated: headwater alerts export; the code is in\n"
    "# monitoring/alerts. Every series carries the label `task`; one set of rules serves any number of tasks.\n"
)

_RESOURCE = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: headwater
spec:
"""


def rules_yaml(options: Options | None = None) -> str:
    """All groups as a rule file; equal options give equal bytes."""
    chosen = options or Options()
    lines = [_HEAD + "groups:"]
    for group in groups(chosen):
        interval = chosen.span("30s") if chosen.speed == 1.0 else "1s"
        lines += [f"  - name: {group.name}", f"    interval: {interval}", "    rules:"]
        lines += [line for rule in group.rules for line in _rule(rule, chosen)]
    return "\n".join(lines) + "\n"


def prometheus_rule(options: Options | None = None) -> str:
    """The same rules as a resource of the Prometheus operator."""
    head, _, rules = rules_yaml(options).partition("groups:\n")
    indented = "".join(f"  {line}" if line.strip() else line for line in f"groups:\n{rules}".splitlines(keepends=True))
    return f"{head}{_RESOURCE}{indented}"


def _rule(rule: Rule, options: Options) -> Iterator[str]:
    yield f"      - record: {rule.record}" if isinstance(rule, Record) else f"      - alert: {rule.name}"
    yield "        expr: |-"
    yield from (f"          {line}" for line in rule.expr.splitlines())
    if isinstance(rule, Alert):
        yield f"        for: {rule.wait}"
        yield from _mapping("labels", {"severity": rule.severity, **dict(rule.labels)})
        yield from _mapping("annotations", annotations(rule, options))
    elif rule.labels:
        yield from _mapping("labels", dict(rule.labels))


def annotations(alert: Alert, options: Options) -> dict[str, str]:
    """What whoever is called gets to read."""
    return {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{options.runbook_base}#{alert.name.lower()}",
    }


def _mapping(name: str, values: dict[str, str]) -> Iterator[str]:
    yield f"        {name}:"
    yield from (f"          {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
