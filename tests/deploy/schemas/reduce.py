"""Makes the files here of definitions of custom resources: python tests/deploy/schemas/reduce.py SOURCE FILE…."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

KINDS = {"ScaledObject", "PodMonitor", "PrometheusRule", "KafkaTopic", "KafkaUser"}
ANYTHING = "x-kubernetes-preserve-unknown-fields"
NAMES_OF_THEIR_OWN = {"properties", "patternProperties", "$defs"}


def closed(schema: Any, *, names: bool = False) -> Any:
    """Without what only people and Kubernetes read; with no property but those that are listed.

    `names`: the keys of this object are names of properties.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {name: closed(each) for name, each in schema.items()}
    found = {
        key: closed(each, names=key in NAMES_OF_THEIR_OWN)
        for key, each in schema.items()
        if not key.startswith("x-kubernetes-") and key not in {"description", "example", "nullable", "default"}
    }
    if isinstance(found.get("pattern"), str):
        found["pattern"] = found["pattern"].replace("^(?i)", "(?i)^")  # where Python wants a flag
    if "properties" in found and not schema.get(ANYTHING):
        found.setdefault("additionalProperties", False)
    if schema.get("nullable") and "type" in found:
        found["type"] = [found["type"], "null"]
    return found


def main() -> None:
    """Write a file for each version of each kind that is stored or served."""
    source, *files = sys.argv[1:]
    for file in files:
        for definition in yaml.safe_load_all(Path(file).read_text(encoding="utf-8")):
            kind = definition["spec"]["names"]["kind"]
            if kind not in KINDS:
                continue
            [*_, version] = sorted(
                (each for each in definition["spec"]["versions"] if each["served"]), key=lambda each: each["storage"]
            )
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            made = {
                "apiVersion": f"{definition['spec']['group']}/{version['name']}",
                "kind": kind,
                "source": source,
                "license": "Apache-2.0",
                "schema": schema,
            }
            target = Path(__file__).with_name(f"{kind.lower()}.json")
            target.write_text(json.dumps(made, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
