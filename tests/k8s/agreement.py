"""Where manifests differ from the code: topics, rights, alert rules, ports and probes; an empty list is agreement."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from broker_topics.access import ACCESS
from broker_topics.topics import topic_name, topic_specs
from headwater.sections import AggregatorSettings
from monitoring.alerts import RULES_FILE
from tests.k8s.manifests import Resource, environment, pick, pod_templates

PROBES = {"startupProbe": ("/startupz", 503), "livenessProbe": ("/livez", 200), "readinessProbe": ("/readyz", 503)}
"""Probe → its page, and what a server says there that has not restored its state: only the heartbeat is fine."""

LISTEN = "HEADWATER_AGGREGATOR_LISTEN_"


def topic_faults(found: list[Resource], *, replication: int) -> list[str]:
    """Topics against the table in topics.py."""
    names = [topic["spec"]["topicName"] for topic in pick(found, "KafkaTopic")]
    there, wanted = dict[str, object](), dict[str, object]()
    for topic in pick(found, "KafkaTopic"):
        spec = topic["spec"]
        facts = {"partitions": spec["partitions"], "replicas": spec["replicas"], **spec["config"]}
        there |= {f"{spec['topicName']} {key}": value for key, value in facts.items()}
    for row in topic_specs("watch", replication=replication):
        facts = {"partitions": row.partitions, "replicas": row.replication, **row.settings}
        wanted |= {f"{row.name} {key}": value for key, value in facts.items()}
    return [f"{name} is there twice" for name in _repeated(names)] + _differences(there, wanted)


def user_faults(found: list[Resource]) -> list[str]:
    """Users and their rights against the table in access.py."""
    faults, there = [], defaultdict[str, set[str]](set)
    for user in pick(found, "KafkaUser"):
        name, authorization = user["metadata"]["name"], user["spec"].get("authorization", {})
        if authorization.get("type") != "simple":
            faults.append(f"{name} has no rules of its own")
        for rule in authorization.get("acls", []):
            resource = rule["resource"]
            # A name is taken literally and a rule allows, as long as nothing else is said.
            if rule.keys() != {"resource", "operations"} or resource.keys() != {"type", "name"}:
                faults.append(f"{name} has a rule that is not for one topic: {rule}")
            there[f"{name} on {resource['type']} {resource.get('name')}"] |= set(rule["operations"])
    wanted = {
        f"{role.value} on topic {topic_name('watch', topic)}": sorted(operation.value for operation in operations)
        for role, topics in ACCESS.items()
        for topic, operations in topics.items()
    }
    return faults + _differences({who: sorted(operations) for who, operations in there.items()}, wanted)


def alert_faults(found: list[Resource]) -> list[str]:
    """The embedded rules, of which there must be some, against the file of the tested ones."""
    tested = yaml.safe_load(RULES_FILE.read_text())
    embedded = [r["spec"] for r in found if r["kind"] == "PrometheusRule"]
    if len(embedded) != 1:
        return [f"{len(embedded)} resources with rules"]
    faults = _differences(_rules(embedded[0]), _rules(tested))
    return faults or ([] if embedded == [tested] else ["the rules are in another order, repeated or grouped otherwise"])


def _rules(spec: Resource) -> dict[str, Any]:
    return {
        f"{group['name']} {rule.get('alert') or rule.get('record')} {rule.get('labels', {})}": rule
        for group in spec["groups"]
        for rule in group["rules"]
    }


def serving_faults(found: list[Resource], status_of: Callable[[str], int]) -> list[str]:
    """The aggregator's port and probes against its settings and its server.

    Args:    status_of: what a server that has not restored its state answers to a path.
    """
    template = dict(pod_templates(found))["aggregator"]
    (container,) = template["spec"]["containers"]
    variables, port = environment(found, template), AggregatorSettings().listen_port
    there: dict[str, Any] = {
        "ports": container["ports"],
        "listen port": variables.get(f"{LISTEN}PORT"),
        "listen host": variables.get(f"{LISTEN}HOST"),
    }
    wanted: dict[str, Any] = {
        "ports": [{"name": "metrics", "containerPort": port}],
        "listen port": str(port),
        "listen host": "0.0.0.0",
    }
    for probe, (page, status) in PROBES.items():
        asked = container.get(probe, {}).get("httpGet", {})
        there[probe] = (asked.get("port"), asked.get("path"), status_of(asked.get("path", "/")))
        wanted[probe] = ("metrics", page, status)
    return _differences(there, wanted)


def _repeated(names: list[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def _differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    return [
        f"{name}: {found.get(name, 'nothing')} instead of {wanted.get(name, 'nothing')}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
