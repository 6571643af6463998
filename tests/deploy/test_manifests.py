"""The manifests are what kustomize makes of them, as their schemas allow; what is generated is as its sources say."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import CRDS, KUBERNETES, ROOT, VARIANTS, Object, kustomized, named, of_kind, rendered

VERSIONS = ("1.28", "1.32", "1.36")
"""Of Kubernetes: the first that docs/deploy.md asks for, and later ones."""


def validate(manifest: Object, version: str = VERSIONS[-1]) -> None:
    """Raises what tells of a field that there is not, a value that is wrong, or a kind that nobody knows."""
    schema = CRDS.get((manifest["apiVersion"], manifest["kind"]))
    if schema is None:
        kubernetes_validate.validate(manifest, version, strict=True)
    else:
        jsonschema.validate(manifest, schema["schema"], jsonschema.Draft202012Validator)


@pytest.mark.processes
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_as_its_schema_allows(variant: str, version: str) -> None:
    objects = rendered(variant)
    assert len(objects) > 20
    for manifest in objects:
        validate(manifest, version)


def test_the_oldest_kubernetes_is_the_one_that_the_docs_name() -> None:
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    assert f"Needs Kubernetes {VERSIONS[0]} " in page


@pytest.mark.processes
def test_all_kinds_of_the_others_resources_are_among_them() -> None:
    kinds = {(each["apiVersion"], each["kind"]) for variant in VARIANTS for each in rendered(variant)}
    assert CRDS.keys() <= kinds


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["Deployment", "NetworkPolicy", *sorted(kind for _, kind in CRDS)])
def test_a_field_that_there_is_not_is_found(kind: str) -> None:
    [manifest, *_] = of_kind(rendered("prod"), kind)
    validate(manifest)
    for path in places(manifest["spec"]):
        planted = copy.deepcopy(manifest)
        at = planted["spec"]
        for step in path:
            at = at[step]
        if set(path) & {"config", "metadata", "matchLabels", "labels", "annotations", "nodeSelector"}:
            continue  # whoever writes chooses the names there
        if path[-1:] in (("limits",), ("requests",)):
            continue
        at["notAField"] = 1
        with pytest.raises(Exception, match="notAField"):
            validate(planted)


def places(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all objects within an object."""
    if isinstance(found, dict):
        return [path, *(place for key, value in found.items() for place in places(value, (*path, key)))]
    if isinstance(found, list):
        return [place for index, value in enumerate(found) for place in places(value, (*path, index))]
    return []


@pytest.mark.processes
def test_a_workload_of_your_own_gets_what_all_have(tmp_path: Path) -> None:
    """As docs/deploy.md says: a copy of the strategy beside the overlay, and the component once more."""
    strategy = named(rendered("prod"), "Deployment", "ashi-strategy-ma-cross")
    own = yaml.safe_load((KUBERNETES / "base/strategies.yaml").read_text().replace("ma-cross", "breakout"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))
    relative = Path(os.path.relpath(KUBERNETES, tmp_path.resolve()))
    overlay = yaml.safe_load((KUBERNETES / "overlays/prod/kustomization.yaml").read_text())
    overlay["resources"] = [str(relative / "base"), "mine.yaml"]
    again = [str(relative / "components/pod")]
    overlay["components"] = again + [str(relative / "overlays/prod" / each) for each in overlay["components"]]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    objects = kustomized(tmp_path.resolve())
    made = named(objects, "Deployment", "ashi-strategy-breakout")
    assert json.loads(json.dumps(made).replace("breakout", "ma-cross")) == strategy
    # What was there is as it was: the component changes nothing the second time.
    others = [each for each in objects if each is not made]
    key = lambda each: (each["kind"], each["metadata"]["name"])  # noqa: E731
    assert sorted(others, key=key) == sorted(rendered("prod"), key=key)
