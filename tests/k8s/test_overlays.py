"""Every overlay builds, and says of topics, access and images what the code says."""

import shutil
from pathlib import Path

import pytest
import yaml

from broker_topics.access import ACCESS, Role
from broker_topics.topics import topic_name, topic_specs
from tests.k8s.manifests import OVERLAYS, WITH_STRIMZI, kustomize, pick, pod_templates, resources
from tests.k8s.tools import ROOT


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_builds_into_one_namespace(overlay: str) -> None:
    found = resources(overlay)
    assert {r["metadata"].get("namespace") for r in found if r["kind"] != "Namespace"} == {"headwater"}
    names = [(r["kind"], r["metadata"]["name"]) for r in found]
    assert len(set(names)) == len(names)
    assert [name for name, _ in pod_templates(found)] == ["aggregator", "evaluator", "gateway", "task-create"]


@pytest.mark.parametrize(("overlay", "replication"), [("dev", 1), ("production", 3)])
def test_topics_are_those_of_the_table(overlay: str, replication: int) -> None:
    found = {
        r["spec"]["topicName"]: (r["spec"]["partitions"], r["spec"]["replicas"], r["spec"]["config"])
        for r in pick(resources(overlay), "KafkaTopic")
    }
    assert found == {
        spec.name: (spec.partitions, spec.replication, dict(spec.settings))
        for spec in topic_specs("watch", replication=replication)
    }


@pytest.mark.parametrize("overlay", WITH_STRIMZI)
def test_users_may_do_what_the_table_says_and_nothing_else(overlay: str) -> None:
    found = {}
    for user in pick(resources(overlay), "KafkaUser"):
        assert user["spec"]["authorization"]["type"] == "simple"
        for rule in user["spec"]["authorization"]["acls"]:
            assert rule.keys() == {"resource", "operations"}
            assert rule["resource"].keys() == {"type", "name"}, "literal, as nothing else is said"
            assert rule["resource"]["type"] == "topic"
            found[user["metadata"]["name"], rule["resource"]["name"]] = set(rule["operations"])
    assert found == {
        (role.value, topic_name("watch", topic)): {operation.value for operation in operations}
        for role, topics in ACCESS.items()
        for topic, operations in topics.items()
    }


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
