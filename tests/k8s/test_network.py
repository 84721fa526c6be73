"""Who may speak to whom: everything is denied, and this is the whole list of what is allowed."""

from typing import Any

import pytest

from tests.k8s.manifests import OVERLAYS, pick, resources

Way = tuple[str, str, str]
"""From, to, port."""

NAMES = [("all", "kube-system/kube-dns", "53/UDP"), ("all", "kube-system/kube-dns", "53/TCP")]
LEASE = [("aggregator", "0.0.0.0/0", "443/TCP"), ("aggregator", "0.0.0.0/0", "6443/TCP")]
STRIMZI = [
    ("headwater", "kafka-kafka", "9093/TCP"),
    ("kafka", "kafka-kafka", "9090/TCP"),
    ("kafka", "kafka-kafka", "9091/TCP"),
    ("kafka", "0.0.0.0/0", "443/TCP"),
    ("kafka", "0.0.0.0/0", "6443/TCP"),
]
PROMETHEUS = [("monitoring/prometheus", "aggregator", "metrics/TCP")]
ALLOWED: dict[str, list[Way]] = {
    "dev": [*NAMES, *LEASE, *STRIMZI],
    "production": [*NAMES, *LEASE, *STRIMZI, *PROMETHEUS],
    "external-kafka": [*NAMES, *LEASE, ("headwater", "192.0.2.0/24", "9093/TCP"), *PROMETHEUS],
}


def ways(policy: dict[str, Any]) -> list[Way]:
    """What one policy allows."""
    spec, found = policy["spec"], list[Way]()
    for direction, peers in (("egress", "to"), ("ingress", "from")):
        for rule in spec.get(direction, []):
            for peer in rule[peers]:
                for port in rule["ports"]:
                    ends = (_who({"podSelector": spec["podSelector"]}), _who(peer))
                    here, there = ends if direction == "egress" else ends[::-1]
                    found.append((here, there, f"{port['port']}/{port['protocol']}"))
    return found


def _who(peer: dict[str, Any]) -> str:
    if "ipBlock" in peer:
        return str(peer["ipBlock"]["cidr"])
    labels = peer["podSelector"].get("matchLabels", {})
    order = (
        "app.kubernetes.io/component",
        "app.kubernetes.io/name",
        "k8s-app",
        "strimzi.io/name",
        "strimzi.io/cluster",
    )
    pod = next((labels[label] for label in order if label in labels), "all")
    space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    return f"{space}/{pod}" if space else pod


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_denied_but_this_list(overlay: str) -> None:
    policies = pick(resources(overlay), "NetworkPolicy")
    (deny,) = [p for p in policies if p["metadata"]["name"] == "default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert sorted(way for policy in policies for way in ways(policy)) == sorted(ALLOWED[overlay])


def test_kafka_lets_in_our_pods_only_and_on_the_port_that_they_know() -> None:
    found = resources("production")
    (listener,) = pick(found, "Kafka")[0]["spec"]["kafka"]["listeners"]
    assert listener["networkPolicyPeers"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "headwater"}}}]
    (connection,) = pick(found, "ConfigMap", "connection")
    assert connection["data"]["HEADWATER_BOOTSTRAP"] == f"kafka-kafka-bootstrap:{listener['port']}"


def test_a_policy_that_opens_a_port_to_everybody_is_seen() -> None:
    policy = pick(resources("production"), "NetworkPolicy", "prometheus-to-aggregator")[0]
    policy["spec"]["ingress"][0]["from"] = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    assert ways(policy) == [("0.0.0.0/0", "aggregator", "metrics/TCP")]
