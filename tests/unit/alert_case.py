"""What a rule is tried with: series by hand, and what `promtool test rules` must then see fire."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from monitoring.alerts import RULES_FILE, Alert, Options, groups
from monitoring.alerts.export import annotations
from tests.prometheus import tool

Key = tuple[str, str, str]
"""An alert's name; of burn rates also the window and the service level."""

RULES = [rule for group in groups() for rule in group.rules]
ALERTS = {(rule.name, dict(rule.labels).get("window", "")): rule for rule in RULES if isinstance(rule, Alert)}


def held(rule_file: Path) -> list[Key]:
    """Every alert of a rule file; a burn rate once for each service level that has a budget there."""
    groups_read = yaml.safe_load(rule_file.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups_read for rule in group["rules"]]
    slos = [rule["labels"]["slo"] for rule in rules if rule.get("record") == "headwater:slo_budget:ratio"]
    alerts = [(rule["alert"], rule["labels"].get("window", "")) for rule in rules if "alert" in rule]
    return [(name, window, slo) for name, window in alerts for slo in (slos if window else [""])]


HELD = held(RULES_FILE)
T = '{task="watch"}'


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series in promtool's notation; `says`: the value as templates print it, None for silence.

    burns: by service level, each window that fires with the value that it says; a service level with none is silent.
    every: time between samples.
    """

    alert: str
    after: str
    series: Mapping[str, str]
    says: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: {"task": "watch"})
    burns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    every: str = "1m"

    def values(self) -> dict[Key, str]:
        """What fires, and the value that it says."""
        if self.says is not None:
            return {(self.alert, "", ""): self.says}
        return {(self.alert, window, slo): says for slo, fires in self.burns.items() for window, says in fires.items()}

    def silent(self) -> set[Key]:
        """What does not fire, of the alert and the service levels that the case is about."""
        return {key for key in HELD if key[0] == self.alert and key[2] in (self.burns or {""})} - set(self.values())


def healthy(**changed: str) -> dict[str, str]:
    """A fleet in which all is well; keys are metric names without prefix, `le` and the like by hand below."""
    base = {
        f"headwater_leader{T}": "1x500",
        f"headwater_updates_received_total{T}": "0+60x500",
        'headwater_updates_processed_total{task="watch",outcome="applied"}': "0+60x500",
        'headwater_rejects_total{task="watch",code="stale"}': "0x500",
        'headwater_rejects_total{task="watch",code="duplicate"}': "0+20x500",
        'headwater_consumer_lag_records{task="watch",partition="0"}': "0x500",
        f"headwater_consumer_lag_seconds{T}": "0x500",
        f"headwater_model_published_timestamp_seconds{T}": "1+60x500",
        f"headwater_paused{T}": "0x500",
    }
    return {**base, **changed}


def unit_test(case: Case) -> dict[str, object]:
    """One test of `promtool test rules`."""
    return {
        "interval": case.every,
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": case.after,
                "alertname": case.alert,
                "exp_alerts": [expected(case, key, value) for key, value in case.values().items()],
            }
        ],
    }


def expected(case: Case, key: Key, value: str) -> dict[str, dict[str, str]]:
    """An alert that fires, as promtool wants it described."""
    name, window, slo = key
    alert = ALERTS[name, window]
    labels = {**case.labels, **({"slo": slo} if slo else {}), "severity": alert.severity, **dict(alert.labels)}
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


def complaints(cases: Iterable[Case], folder: Path) -> str:
    """What promtool finds wrong with cases; empty if each is as expected."""
    found = ""
    for every, together in groupby(sorted(cases, key=lambda case: case.every), key=lambda case: case.every):
        test = {
            "rule_files": [str(RULES_FILE)],
            "evaluation_interval": every,
            "group_eval_order": [group.name for group in groups()],
            "tests": [unit_test(case) for case in together],
        }
        path = folder / f"test-{every}.yml"
        path.write_text(json.dumps(test), encoding="utf-8")  # JSON is YAML
        command = [tool("promtool"), "test", "rules", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        if done.returncode != 0:
            found += f"promtool ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return found
