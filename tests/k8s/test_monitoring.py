"""Prometheus is told where to scrape and which rules to follow: those that are tested."""

from monitoring.metrics import Metrics
from tests.k8s.manifests import pick, pod_templates, resources


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
