"""`make k8s-test`: without a cluster it says so; against a stand-in of one it tries everything and hears every fault.

A real API server is no part of the tests; what one was found to do, the stand-in does too.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.k8s import try_cluster
from tests.k8s.api_server import api_server
from tests.k8s.cluster import Cluster
from tests.k8s.manifests import needed
from tests.k8s.tools import KUSTOMIZE, ROOT, too_old
from tests.kafka.support import GaveUpError

DEAD = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.mark.parametrize(
    ("config", "words"), [(None, "no Kubernetes cluster: set KUBECONFIG"), (DEAD, "does not answer")]
)
def test_without_a_cluster_it_says_so_and_ends_with_77(config: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "config"
    if config:
        file.write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "tests.k8s.try_cluster"],
        cwd=ROOT,
        env=os.environ | {"KUBECONFIG": str(file)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 77, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_go_that_cannot_compile_kustomize_is_known() -> None:
    versions = ("go1.19.8", "go1.22.12", "go1.23", "go1.26.8-custom", "devel go1.27")
    assert [version for version in versions if too_old(version)] == ["go1.19.8", "go1.22.12"]


@pytest.fixture
def _without_election(monkeypatch: pytest.MonkeyPatch) -> None:
    needed(KUSTOMIZE)
    monkeypatch.setattr(sys, "argv", ["try_cluster", "--no-election"])


@pytest.mark.usefixtures("_without_election")
def test_every_resource_and_every_pod_is_tried_in_a_namespace_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with api_server(tmp_path) as (api, config):
        monkeypatch.setenv("KUBECONFIG", str(config))
        assert try_cluster.main() == 0
    printed = capsys.readouterr().out
    assert "0 faults" in printed
    assert "dev: not tried, as their operators are not installed here: Kafka, KafkaNodePool, KafkaTopic" in printed
    assert api.dry_runs.count("Deployment aggregator") == 3
    assert api.dry_runs.count("Pod dry-run") == 12
    (namespace,) = [path for path in api.stored if path.startswith("/api/v1/namespaces/") and path.count("/") == 4]
    assert api.deleted == [namespace]
    assert {resource["kind"] for resource in api.stored.values()} == {"Namespace", *try_cluster.FIRST}
    assert {path.split("/namespaces/")[1].split("/")[0] for path in api.stored} == {namespace.rpartition("/")[2]}


@pytest.mark.usefixtures("_without_election")
def test_a_cluster_that_lets_faults_pass_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with api_server(tmp_path, lax=True) as (_, config):
        monkeypatch.setenv("KUBECONFIG", str(config))
        assert try_cluster.main() == 1
    printed = capsys.readouterr().out
    assert "WRONG  a Deployment with a pod that runs as root was taken without a warning" in printed
    assert "4 faults" in printed


async def test_what_never_comes_is_told_with_the_log_as_it_is_then() -> None:
    log: list[str] = []

    def led() -> bool:
        log.append("lease_unreachable: forbidden")
        return False

    with pytest.raises(GaveUpError, match="the second one leads\nlease_unreachable: forbidden"):
        await try_cluster.until(led, "the second one leads", lambda: "\n".join(log), within_s=0.0)


def test_a_token_of_a_service_account_makes_a_configuration_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_server(tmp_path) as (_, config):
        monkeypatch.setenv("KUBECONFIG", str(config))
        cluster = Cluster()
        token = cluster.token("aggregator", "n")
        assert token == "token-for-/api/v1/namespaces/n/serviceaccounts/aggregator/token"
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "other", token, "n")))
        assert Cluster().config.namespace == "n"
        assert cluster.holder("aggregator", "n") == ""
