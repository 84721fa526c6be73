"""Prometheus is told where to scrape and which rules to follow: those that are tested."""

from pathlib import Path

import pytest
import yaml

from broker_topics.local.agent import RULES_FILE as AGENT_RULES
from headwater.cli import run
from monitoring.alerts import RULES_FILE
from monitoring.dashboards import DASHBOARDS, grafana_file
from monitoring.metrics import Metrics
from tests.k8s.agreement import alert_faults
from tests.k8s.manifests import OVERLAYS, pick, pod_templates, resources
from tests.k8s.tools import ROOT

COMPONENTS = ROOT / "k8s" / "components"


def test_the_aggregator_is_scraped_on_its_named_port_and_far_below_the_limit() -> None:
    found = resources("production")
    spec = pick(found, "PodMonitor", "aggregator")[0]["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    aggregator = dict(pod_templates(found))["aggregator"]
    assert spec["selector"]["matchLabels"].items() <= aggregator["metadata"]["labels"].items()
    ports = [port["name"] for port in aggregator["spec"]["containers"][0]["ports"]]
    assert (endpoint["port"], endpoint["path"]) == (ports[0], "/metrics")
    # Every series exists from the start: the number does not grow with the fleet.
    samples = sum(len(metric.samples) for metric in Metrics().registry.collect())
    assert 200 < samples < spec["sampleLimit"] / 2


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay != "dev"])
def test_the_rules_in_the_cluster_are_the_tested_ones(overlay: str) -> None:
    assert alert_faults(resources(overlay)) == []


def test_the_overlay_for_development_knows_no_kind_of_the_prometheus_operator() -> None:
    assert not [r for r in resources("dev") if r["kind"] in ("PrometheusRule", "PodMonitor")]


RECORD, ALERT = "headwater-records headwater:leaders:count ", "headwater-alerts AggregatorDown "


@pytest.mark.parametrize(
    ("change", "begins"),
    [
        (lambda spec: spec["groups"][-1]["rules"][0].update(expr="up == 0"), [ALERT]),
        (lambda spec: spec["groups"][-1]["rules"][0].pop("for"), [ALERT]),
        (lambda spec: spec["groups"][-1]["rules"][0].update(annotations={}), [ALERT]),
        (lambda spec: spec["groups"][-1]["rules"].pop(0), [ALERT]),
        (lambda spec: spec["groups"][0]["rules"].pop(0), [RECORD]),
        (lambda spec: spec["groups"][-1]["rules"].append({"alert": "New", "expr": "1"}), ["headwater-alerts New "]),
        (lambda spec: spec["groups"][-1].update(interval="1h"), ["the rules are "]),
        (lambda spec: spec["groups"][-1]["rules"].reverse(), ["the rules are "]),
    ],
)
def test_one_fault_in_a_rule_of_the_cluster_is_seen(change, begins) -> None:  # type: ignore[no-untyped-def]
    found = resources("production")
    change(pick(found, "PrometheusRule")[0]["spec"])
    seen = alert_faults(found)
    assert len(seen) == len(begins)
    assert all(one.startswith(begin) for one, begin in zip(seen, begins, strict=True)), seen


def test_a_cluster_without_rules_is_seen() -> None:
    assert alert_faults(resources("dev")) == ["0 resources with rules"]


def test_the_tested_rules_are_more_than_ten_alerts() -> None:
    tested = yaml.safe_load(RULES_FILE.read_text())
    assert len([rule for group in tested["groups"] for rule in group["rules"] if "alert" in rule]) > 10


def test_the_file_with_the_rules_is_what_the_command_writes(tmp_path: Path) -> None:
    file = tmp_path / "rule.yaml"
    assert run(["alerts", "export", "--kubernetes", "-o", str(file)]) == 0
    assert (COMPONENTS / "monitoring" / "prometheus-rule.yaml").read_text() == file.read_text(), (
        "run: headwater alerts export --kubernetes -o k8s/components/monitoring/prometheus-rule.yaml"
    )


def test_grafana_in_the_cluster_gets_the_tested_dashboards() -> None:
    tested = {grafana_file(dashboard).name: grafana_file(dashboard).read_text() for dashboard in DASHBOARDS}
    for overlay in OVERLAYS:
        found = [r for r in resources(overlay) if r["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
        assert [r["data"] for r in found] == ([] if overlay == "dev" else [tested]), (
            "run: headwater dashboards export --out k8s/components/monitoring/dashboards"
        )


def test_brokers_name_their_metrics_as_the_local_broker_does() -> None:
    found = resources("production")
    (kafka,) = pick(found, "Kafka")
    reference = kafka["spec"]["kafka"]["metricsConfig"]["valueFrom"]["configMapKeyRef"]
    (config,) = [r for r in found if r["metadata"]["name"] == reference["name"]]
    assert config["data"][reference["key"]] == AGENT_RULES.read_text()
    (pool,) = pick(found, "KafkaNodePool", "broker")
    monitor = pick(found, "PodMonitor", "kafka")[0]["spec"]["selector"]["matchLabels"]
    assert monitor["strimzi.io/cluster"] == pool["metadata"]["labels"]["strimzi.io/cluster"]
