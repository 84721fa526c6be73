"""Custom resources against their operators' definitions, as strictly as an API server with strict field validation."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.k8s.tools import CUSTOM

Schema = dict[str, Any]


@cache
def _validator(file: Path, version: str) -> Draft202012Validator:
    definition = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == version)
    return Draft202012Validator(_closed(schema, root=True))


def _closed(schema: Schema, *, root: bool = False) -> Schema:
    """The same schema, refusing fields that it does not name; `metadata` is Kubernetes' own."""
    closed: Schema = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties"):
            closed[key] = {name: _closed(child) for name, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            closed[key] = _closed(value)
        elif key in ("oneOf", "anyOf", "allOf", "not"):
            closed[key] = value
        else:
            closed[key] = value
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if root:
        closed["properties"]["metadata"] = {"type": "object"}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
        closed["type"] = ["integer", "string"]
    return closed


def custom_faults(resource: dict[str, Any]) -> list[str]:
    """What is wrong with a resource of an operator's kind: `path: reason`, empty if nothing is."""
    _, _, version = resource["apiVersion"].rpartition("/")
    errors = _validator(CUSTOM[resource["kind"]], version).iter_errors(resource)
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors)
