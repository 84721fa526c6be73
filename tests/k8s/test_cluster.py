"""`make k8s-test` without a cluster says what is missing, with an exit status of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.k8s.tools import ROOT, too_old

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
