"""The definitions of others' resources (CustomResourceDefinition), of the closed schemas that the tests keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


def structural(schema: Mapping[str, Any]) -> Schema:
    """A schema of tests/deploy/schemas/reduce.py in the form that Kubernetes takes.

    There every object is closed to begin with, and one that takes anything must say so; null is a word of its own.
    """
    made: Schema = {key: _within(key, each) for key, each in schema.items()}
    if made.get("additionalProperties") is False:
        del made["additionalProperties"]
    if isinstance(made.get("type"), list):
        [made["type"]] = [each for each in made["type"] if each != "null"]
        made["nullable"] = True
    if made.get("anyOf") == INT_OR_STRING:
        made["x-kubernetes-int-or-string"] = True
    elif made.get("type", "object") == "object" and not made.keys() & {"properties", "additionalProperties"}:
        made["x-kubernetes-preserve-unknown-fields"] = True
    return made


def _within(key: str, found: Any) -> Any:
    if key == "properties":
        return {name: structural(each) for name, each in found.items()}
    if key in {"items", "additionalProperties"} and isinstance(found, dict):
        return structural(found)
    return found


def definition(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What makes an API server take objects of a kind; `kept` is a file of tests/deploy/schemas."""
    group, version = kept["apiVersion"].split("/")
    plural = f"{kept['kind'].lower()}s"
    schema = structural(kept["schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # which the server knows, and takes no word about
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kept["kind"], "plural": plural},
            "scope": "Namespaced",
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
