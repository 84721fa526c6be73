"""Every overlay builds, and says of topics, access and images what the code says."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from broker_topics.access import ACCESS, Role
from broker_topics.topics import topic_specs
from tests.k8s.agreement import topic_faults, user_faults
from tests.k8s.manifests import OVERLAYS, WITH_STRIMZI, Resource, kustomize, pick, pod_templates, resources
from tests.k8s.tools import ROOT

Change = Callable[[Resource], object]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_builds_into_one_namespace(overlay: str) -> None:
    found = resources(overlay)
    assert {r["metadata"].get("namespace") for r in found if r["kind"] != "Namespace"} == {"headwater"}
    names = [(r["kind"], r["metadata"]["name"]) for r in found]
    assert len(set(names)) == len(names)
    assert [name for name, _ in pod_templates(found)] == ["aggregator", "evaluator", "gateway", "task-create"]


@pytest.mark.parametrize(("overlay", "replication"), [("dev", 1), ("production", 3)])
def test_topics_are_those_of_the_table(overlay: str, replication: int) -> None:
    assert topic_faults(resources(overlay), replication=replication) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda topic: topic.update(partitions=13), "fl.watch.updates partitions: 13 instead of 12"),
        (lambda topic: topic.update(replicas=1), "fl.watch.updates replicas: 1 instead of 3"),
        (
            lambda topic: topic["config"].update({"cleanup.policy": "compact"}),
            "fl.watch.updates cleanup.policy: compact instead of delete",
        ),
        (
            lambda topic: topic["config"].pop("min.insync.replicas"),
            "fl.watch.updates min.insync.replicas: nothing instead of 2",
        ),
        (
            lambda topic: topic["config"].update({"segment.ms": "1"}),
            "fl.watch.updates segment.ms: 1 instead of nothing",
        ),
    ],
)
def test_a_topic_with_one_fault_is_seen(change: Change, fault: str) -> None:
    found = resources("production")
    change(pick(found, "KafkaTopic", "updates")[0]["spec"])
    assert topic_faults(found, replication=3) == [fault]


def test_a_topic_that_is_missing_unknown_or_there_twice_is_seen() -> None:
    found = resources("production")
    (topic,) = pick(found, "KafkaTopic", "updates")
    assert topic_faults([*found, topic], replication=3) == ["fl.watch.updates is there twice"]
    topic["spec"]["topicName"] = "fl.watch.update"
    faults = topic_faults(found, replication=3)
    assert "fl.watch.update partitions: 12 instead of nothing" in faults
    assert "fl.watch.updates partitions: nothing instead of 12" in faults


@pytest.mark.parametrize("overlay", WITH_STRIMZI)
def test_users_may_do_what_the_table_says_and_nothing_else(overlay: str) -> None:
    assert user_faults(resources(overlay)) == []


def second_rule(user: Resource) -> None:
    """Another rule for a topic that has one."""
    rules = user["spec"]["authorization"]["acls"]
    rules.insert(0, {"resource": rules[0]["resource"], "operations": ["Read"]})


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (
            lambda user: user["spec"]["authorization"]["acls"][0].update(operations=["Read", "Write"]),
            ["device on topic fl.watch.updates: ['Read', 'Write'] instead of ['Write']"],
        ),
        (second_rule, ["device on topic fl.watch.updates: ['Read', 'Write'] instead of ['Write']"]),
        (
            lambda user: user["spec"]["authorization"]["acls"].pop(0),
            ["device on topic fl.watch.updates: nothing instead of ['Write']"],
        ),
        (
            lambda user: user["spec"]["authorization"]["acls"].append(
                {"resource": {"type": "topic", "name": "fl.watch.control"}, "operations": ["Write"]}
            ),
            ["device on topic fl.watch.control: ['Write'] instead of nothing"],
        ),
        (
            lambda user: user["spec"]["authorization"]["acls"][0]["resource"].update(patternType="prefix"),
            ["device has a rule that is not for one topic: "],
        ),
        (
            lambda user: user["spec"]["authorization"]["acls"][0].update(type="deny"),
            ["device has a rule that is not for one topic: "],
        ),
        (
            lambda user: user["spec"]["authorization"]["acls"].append(
                {"resource": {"type": "cluster"}, "operations": ["Alter"]}
            ),
            ["device has a rule that is not for one topic: ", "device on cluster None: ['Alter'] instead of nothing"],
        ),
        (lambda user: user["spec"]["authorization"].update(type="custom"), ["device has no rules of its own"]),
    ],
)
def test_a_user_with_one_right_too_many_or_too_few_is_seen(change: Change, faults: list[str]) -> None:
    found = resources("production")
    change(pick(found, "KafkaUser", "device")[0])
    seen = user_faults(found)
    assert len(seen) == len(faults)
    assert all(one.startswith(fault) for one, fault in zip(seen, faults, strict=True)), seen


def test_devices_write_updates_and_telemetry_and_read_commits_and_models() -> None:
    assert {topic.value: sorted(operations) for topic, operations in ACCESS[Role.DEVICE].items()} == {
        "updates": ["Write"],
        "telemetry": ["Write"],
        "commits": ["Read"],
        "models": ["Read"],
    }


def test_the_task_has_its_name_in_one_place(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    task = tmp_path / "k8s" / "overlays" / "production" / "task.yaml"
    task.write_text(task.read_text().replace("watch", "pumps"))
    built = kustomize(task.parent)
    assert "watch" not in built
    topics = {r["spec"]["topicName"] for r in pick(list(yaml.safe_load_all(built)), "KafkaTopic")}
    assert topics == {spec.name for spec in topic_specs("pumps", replication=3)}


def test_production_runs_images_by_digest_only() -> None:
    for _, template in pod_templates(resources("production")):
        for container in template["spec"]["containers"]:
            _, separator, digest = container["image"].partition("@sha256:")
            assert separator
            assert len(digest) == 64


def test_an_image_set_with_kustomize_reaches_every_pod(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "production" / "kustomization.yaml"
    text = overlay.read_text()
    assert text.count("0" * 64) == 2
    overlay.write_text(text.replace("0" * 64, "ab" * 32).replace("registry.example.com", "ghcr.example"))
    images = {
        container["image"]
        for _, template in pod_templates(list(yaml.safe_load_all(kustomize(overlay.parent))))
        for container in template["spec"]["containers"]
    }
    assert images == {f"ghcr.example/{name}@sha256:{'ab' * 32}" for name in ("headwater", "headwater-device")}


def test_with_certificates_no_pod_has_a_user_name_or_a_password() -> None:
    found = resources("production")
    (connection,) = pick(found, "ConfigMap", "connection")
    assert connection["data"] == {
        "HEADWATER_BOOTSTRAP": "kafka-kafka-bootstrap:9093",
        "HEADWATER_TLS_CA": "/etc/kafka/ca/ca.crt",
        "HEADWATER_TLS_CERTIFICATE": "/etc/kafka/user/user.crt",
        "HEADWATER_TLS_KEY": "/etc/kafka/user/user.key",
    }
    for name, template in pod_templates(found):
        names = [entry["name"] for entry in template["spec"]["containers"][0]["env"]]
        assert "TASK" in names, name
        assert "HEADWATER_USER" not in names, name
    assert {user["spec"]["authentication"]["type"] for user in pick(found, "KafkaUser")} == {"tls"}
    (kafka,) = pick(found, "Kafka")
    assert [listener["authentication"]["type"] for listener in kafka["spec"]["kafka"]["listeners"]] == ["tls"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_that_is_mounted_is_made_by_strimzi_or_named_in_the_docs(overlay: str) -> None:
    mounted = {
        volume["secret"]["secretName"]
        for _, template in pod_templates(resources(overlay))
        for volume in template["spec"]["volumes"]
        if "secret" in volume
    }
    assert mounted == {"kafka-cluster-ca-cert", *(role.value for role in Role)}
    if overlay in WITH_STRIMZI:
        assert {user["metadata"]["name"] for user in pick(resources(overlay), "KafkaUser")} == {*Role}
        assert [kafka["metadata"]["name"] for kafka in pick(resources(overlay), "Kafka")] == ["kafka"]
