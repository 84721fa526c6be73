"""Runs containers of the manifests as processes of this machine: their arguments, variables and files, nothing else."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.k8s.manifests import REFERENCE, Resource, environment

REPOSITORY = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Command:
    """What to start, where, and with which variables."""

    arguments: list[str]
    folder: Path
    variables: dict[str, str]


def command_of(
    found: list[Resource],
    template: Resource,
    *,
    pod: str,
    root: Path,
    secrets: Mapping[str, Mapping[str, str]],
    changed: Mapping[str, str],
) -> Command:
    """The pod's container, with its volumes as folders below `root`.

    Args:    secrets: name → file → content. changed: variables that this machine needs otherwise.
    """
    (container,) = template["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    places = {}
    for mount in container["volumeMounts"]:
        # A claim of a StatefulSet stands in no list of the pod's volumes.
        volume = volumes.get(mount["name"], {"emptyDir": {}})
        places[mount["mountPath"]] = _fill(root / pod / mount["name"], volume, found, secrets)
    values = environment(found, template)
    for name, value in values.items():
        if value.startswith(REFERENCE):
            values[name] = {"metadata.name": pod, "limits.cpu": "1"}[value.removeprefix(REFERENCE)]
        else:
            values[name] = _placed(value, places)
    values |= {name: value for name, value in changed.items() if name in values}
    arguments = [argument.replace("$(TASK)", values["TASK"]) for argument in container["args"]]
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **values}
    folder = Path(_placed(container.get("workingDir", "/tmp"), places))
    return Command([sys.executable, "-m", "headwater", *arguments], folder, own)


def _placed(value: str, places: Mapping[str, Path]) -> str:
    for mount, folder in places.items():
        if value == mount or value.startswith(f"{mount}/"):
            return str(folder) + value.removeprefix(mount)
    return value


def _fill(
    folder: Path, volume: Mapping[str, Any], found: list[Resource], secrets: Mapping[str, Mapping[str, str]]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files: Mapping[str, str] = {}
    if "secret" in volume:
        files = secrets[volume["secret"]["secretName"]]
    elif "configMap" in volume:
        name = volume["configMap"]["name"]
        (files,) = (r["data"] for r in found if r["kind"] == "ConfigMap" and r["metadata"]["name"] == name)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder
