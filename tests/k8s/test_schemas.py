"""Every resource is what its API takes, and checkov finds nothing in it; one fault of each kind is caught."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.k8s.manifests import OVERLAYS, Resource, needed, pick, resources, text_of
from tests.k8s.schemas import custom_faults
from tests.k8s.tools import CUSTOM, VALIDATORS

VERSIONS = ("1.34.0", "1.37.0")
"""The oldest and the newest Kubernetes that these manifests are checked for."""


def kubernetes_faults(text: str, folder: Path, version: str) -> list[str]:
    """What kubernetes-validate says of resources of Kubernetes' own kinds; it only warns of a kind it does not know."""
    file = folder / "resources.yaml"
    file.write_text(text)
    command = [needed(VALIDATORS / "bin" / "kubernetes-validate"), "-k", version, "--strict", "--quiet", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return lines or ([f"status {done.returncode}"] if done.returncode else [])


def own_kinds(found: list[Resource]) -> str:
    return yaml.safe_dump_all([r for r in found if r["kind"] not in CUSTOM])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_valid_for_kubernetes(overlay: str, version: str, tmp_path: Path) -> None:
    assert kubernetes_faults(own_kinds(resources(overlay)), tmp_path, version) == []


Change = Callable[[Resource], object]

KUBERNETES_FAULTS: list[tuple[str, Change]] = [
    ("Namespace", lambda r: r.update(apiVersion="v2")),
    ("ServiceAccount", lambda r: r.update(automountServiceAccountToken="yes")),
    ("Role", lambda r: r["rules"][0].update(verbs="get")),
    ("RoleBinding", lambda r: r.pop("roleRef")),
    ("ConfigMap", lambda r: r.update(data=["HEADWATER_TLS"])),
    ("Service", lambda r: r["spec"].update(selectors={})),
    ("Deployment", lambda r: r["spec"]["template"]["spec"]["containers"][0].update(livenessprobe={})),
    ("StatefulSet", lambda r: r["spec"].update(replicas="three")),
    ("Job", lambda r: r["spec"]["podFailurePolicy"]["rules"][0].pop("action")),
    ("PodDisruptionBudget", lambda r: r["spec"].update(maxUnavailable=[1])),
    ("NetworkPolicy", lambda r: r["spec"].update(podselector={})),
]


@pytest.mark.parametrize(("kind", "change"), KUBERNETES_FAULTS, ids=[kind for kind, _ in KUBERNETES_FAULTS])
def test_one_fault_in_a_kind_of_kubernetes_is_caught(kind: str, change: Change, tmp_path: Path) -> None:
    found = resources("production")
    faulty = pick(found, kind)[0]
    change(faulty)
    assert kubernetes_faults(yaml.safe_dump(faulty), tmp_path, VERSIONS[-1])


CUSTOM_FAULTS: list[tuple[str, Change]] = [
    ("Kafka", lambda r: r["spec"]["kafka"]["listeners"][0].update(port="9093")),
    ("Kafka", lambda r: r["spec"].update(zookeeper={"replicas": 3})),
    ("KafkaNodePool", lambda r: r["spec"].update(roles=["brokers"])),
    ("KafkaTopic", lambda r: r["spec"].update(partitions=0)),
    ("KafkaTopic", lambda r: r["spec"].update(replica=3)),
    ("KafkaUser", lambda r: r["spec"]["authorization"]["acls"][0].update(operations=["Reed"])),
    ("KafkaUser", lambda r: r["spec"]["authorization"]["acls"][0].update(operation="Read")),
    ("PodMonitor", lambda r: r["spec"].update(sampleLimit="5000")),
    ("PodMonitor", lambda r: r["spec"]["podMetricsEndpoints"][0].update(prot="metrics")),
    ("PrometheusRule", lambda r: r["spec"]["groups"][0]["rules"][0].pop("expr")),
    ("PrometheusRule", lambda r: r["spec"]["groups"][0]["rules"][0].update(fro="5m")),
]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_custom_resource_is_valid_for_its_operator(overlay: str) -> None:
    for file in CUSTOM.values():
        needed(file)
    found = resources(overlay)
    assert [fault for r in found if r["kind"] in CUSTOM for fault in custom_faults(r)] == []


@pytest.mark.parametrize(("kind", "change"), CUSTOM_FAULTS)
def test_one_fault_in_an_operator_s_kind_is_caught(kind: str, change: Change) -> None:
    needed(CUSTOM[kind])
    faulty = pick(resources("production"), kind)[0]
    change(faulty)
    assert custom_faults(faulty)


def test_every_kind_of_every_overlay_has_a_fault_that_must_be_caught() -> None:
    kinds = {r["kind"] for overlay in OVERLAYS for r in resources(overlay)}
    assert {kind for kind, _ in KUBERNETES_FAULTS} == kinds - CUSTOM.keys()
    assert {kind for kind, _ in CUSTOM_FAULTS} == kinds & CUSTOM.keys()
    assert {r["kind"] for r in resources("production")} == kinds, "where the faults are planted"


def checkov(text: str, folder: Path) -> dict[str, list[tuple[str, str]]]:
    """What checkov says: failed, skipped and passed checks, each with its resource."""
    file = folder / "resources.yaml"
    file.write_text(text)
    command = [needed(VALIDATORS / "bin" / "checkov"), "--skip-download", "--framework", "kubernetes", "-o", "json"]
    done = subprocess.run(
        [*command, "-f", file],
        env=os.environ | {"HOME": str(folder), "BC_SKIP_MAPPING": "TRUE", "ANSI_COLORS_DISABLED": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    results = json.loads(done.stdout)["results"]
    assert not results["parsing_errors"]
    return {
        kind: [(check["check_id"], check["resource"]) for check in results[f"{kind}_checks"]]
        for kind in ("failed", "skipped", "passed")
    }


SKIPPED = ["CKV_K8S_38", *["CKV_K8S_8"] * 2, *["CKV_K8S_9"] * 2]
SKIPPED_TAGS = [*["CKV_K8S_15"] * 4, *["CKV_K8S_43"] * 4]
"""One for each kind of pod, as the images of `dev` have a tag and are built on the spot."""


@pytest.mark.parametrize(
    ("overlay", "skipped"),
    [("dev", [*SKIPPED, *SKIPPED_TAGS]), ("production", SKIPPED), ("external-kafka", SKIPPED)],
)
def test_checkov_finds_nothing_but_what_is_justified_in_place(overlay: str, skipped: list[str], tmp_path: Path) -> None:
    found = checkov(text_of(overlay), tmp_path)
    assert found["failed"] == []
    assert len(found["passed"]) > 300
    assert sorted(check for check, _ in set(found["skipped"])) == sorted(skipped)
    reasons = re.findall(r"checkov\.io/skip\d: (\w+)=(.*)", text_of(overlay))
    assert sorted(check for check, _ in reasons) == sorted(skipped)
    assert all(len(reason.split()) >= 4 for _, reason in reasons)


def test_checkov_is_heard_when_a_pod_may_write_its_root(tmp_path: Path) -> None:
    (deployment,) = pick(resources("production"), "Deployment", "evaluator")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["securityContext"]["readOnlyRootFilesystem"] = False
    found = checkov(yaml.safe_dump(deployment), tmp_path)
    assert ("CKV_K8S_22", "Deployment.headwater.evaluator") in found["failed"]
