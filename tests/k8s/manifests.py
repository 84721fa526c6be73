"""The overlays as kustomize builds them, each built once a process."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.tools import KUSTOMIZE, ROOT

OVERLAYS = ("dev", "production", "external-kafka")
WITH_STRIMZI = ("dev", "production")
TEMPLATED = ("Deployment", "StatefulSet", "DaemonSet", "Job")

Resource = dict[str, Any]

REFERENCE = "kubernetes fills in "
"""Begins a variable's value that Kubernetes itself knows; what follows is where from."""


def needed(tool: Path) -> Path:
    """The tool's path; skips the test with the way to get it where it is missing (in CI that counts as a failure)."""
    if not tool.exists():
        pytest.skip(f"{tool.name} is missing: run `make k8s-tools` (needs Go 1.23 or newer)")
    return tool


def kustomize(folder: Path) -> str:
    """What kustomize makes of a folder; an error of kustomize's fails the test with its words."""
    done = subprocess.run([needed(KUSTOMIZE), "build", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a warning of kustomize's"
    return done.stdout


@cache
def text_of(overlay: str) -> str:
    """An overlay's YAML."""
    return kustomize(ROOT / "k8s" / "overlays" / overlay)


def resources(overlay: str) -> list[Resource]:
    """An overlay's resources, for the caller to change as it likes."""
    return list(yaml.load_all(text_of(overlay), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def pick(found: list[Resource], kind: str, name: str = "") -> list[Resource]:
    """Those of a kind, or the one of a name (generated names begin with it)."""
    chosen = [r for r in found if r["kind"] == kind and (not name or _plain(r["metadata"]["name"], kind) == name)]
    assert chosen, f"there is no {kind} {name}"
    return chosen


def _plain(name: str, kind: str) -> str:
    return name.rpartition("-")[0] or name if kind == "ConfigMap" else name


def pod_templates(found: list[Resource]) -> Iterator[tuple[str, Resource]]:
    """Name and pod template of everything that makes pods of ours."""
    for resource in found:
        if resource["kind"] in TEMPLATED:
            yield resource["metadata"]["name"], resource["spec"]["template"]


def environment(found: list[Resource], template: Resource) -> dict[str, str]:
    """The variables that the container gets; `REFERENCE` stands before what Kubernetes would fill in."""
    (container,) = template["spec"]["containers"]
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        values |= _config_map(found, source["configMapRef"]["name"])
    for entry in container["env"]:
        source = entry.get("valueFrom", {})
        if "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            values[entry["name"]] = _config_map(found, reference["name"])[reference["key"]]
        elif source:
            (place,) = (path for kind in source.values() for path in kind.values())
            values[entry["name"]] = REFERENCE + place
        else:
            values[entry["name"]] = entry["value"]
    return values


def _config_map(found: list[Resource], name: str) -> dict[str, str]:
    (data,) = (r["data"] for r in found if r["kind"] == "ConfigMap" and r["metadata"]["name"] == name)
    return dict(data)


def container_images() -> set[str]:
    """Every image name of the base, before an overlay says where it lies."""
    files = (ROOT / "k8s" / "base").glob("*.yaml")
    found = [r for file in files for r in yaml.safe_load_all(file.read_text()) if r["kind"] in TEMPLATED]
    return {box["image"] for _, template in pod_templates(found) for box in template["spec"]["containers"]}
