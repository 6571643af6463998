"""What `make manifests-dry-run` says of what a server answers; the server itself is that target's own matter."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from dry_run.__main__ import judged, namespaces
from dry_run.definitions import definition, structural
from dry_run.faults import FAULTS
from dry_run.server import Answer, Object, ServerError, built, program, version
from manifests import CRDS, KUBERNETES, VARIANTS, rendered
from test_manifests import validate

OK = http.client.OK
REFUSED = http.client.UNPROCESSABLE_ENTITY
CHART = ("Deployment", "ashi-chart")


class Server:
    """One that refuses what is planted, but for what it is told of; and warns, or refuses, of what it is told of."""

    def __init__(self, overlooks: str = "", answers: Mapping[tuple[str, str], Answer] | None = None) -> None:
        objects = rendered("prod")
        self.planted = [(fault.planted(objects), fault) for fault in FAULTS if fault.what != overlooks]
        self.answers = answers or {}

    def apply(self, manifest: Object, *, dry_run: bool = True) -> Answer:
        assert dry_run
        for planted, fault in self.planted:
            if planted == manifest:
                return Answer(REFUSED, f"it is invalid: {fault.says}")
        return self.answers.get((manifest["kind"], manifest["metadata"]["name"]), Answer(OK))


@pytest.fixture(scope="module")
def variants() -> dict[str, list[dict[str, Any]]]:
    kafka = {"kind": "StatefulSet", "metadata": {"name": "kafka", "namespace": "ashi"}}
    return {"prod": rendered("prod"), "again": [*rendered("prod"), kafka]}


@pytest.mark.processes
def test_it_passes_when_all_is_accepted_and_what_is_planted_is_not(
    variants: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(Server(), variants) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    every = sum(len(objects) for objects in variants.values())
    assert len(lines) == every + len(FAULTS)
    assert last.startswith(f"{every} of {every} objects accepted (prod, again), ")


@pytest.mark.processes
def test_one_that_is_refused_fails_it_with_the_servers_own_words(
    variants: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(Server(answers={CHART: Answer(REFUSED, "spec.replicas: it is odd")}), variants) == 1
    refused = [line for line in capsys.readouterr().out.splitlines() if "REFUSED: spec.replicas: it is odd" in line]
    assert [line.split()[:3] for line in refused] == [[variant, *CHART] for variant in variants]


@pytest.mark.processes
def test_a_warning_about_ours_fails_it_and_one_about_others_is_shown(
    variants: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    warned = Answer(OK, warnings=("would violate PodSecurity",))
    assert judged(Server(answers={("StatefulSet", "kafka"): warned}), variants) == 0
    assert "accepted, with a warning: would violate PodSecurity" in capsys.readouterr().out
    assert judged(Server(answers={CHART: warned}), variants) == 1


@pytest.mark.processes
@pytest.mark.parametrize("what", [fault.what for fault in FAULTS])
def test_a_planted_fault_that_is_accepted_fails_it(
    what: str, variants: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(Server(overlooks=what), variants) == 1
    [line] = [each for each in capsys.readouterr().out.splitlines() if "OVERLOOKED" in each]
    assert what in line


def test_every_component_is_in_something_that_is_sent() -> None:
    taken = "".join(str(made_of) for made_of in VARIANTS.values())
    taken += "".join(path.read_text(encoding="utf-8") for path in KUBERNETES.glob("*/*/kustomization.yaml"))
    taken += (KUBERNETES / "base/kustomization.yaml").read_text(encoding="utf-8")
    for component in (KUBERNETES / "components").iterdir():
        assert f"components/{component.name}" in taken


def test_namespaces_are_those_of_the_overlays_or_held_to_the_same_standard() -> None:
    dev = yaml.safe_load((KUBERNETES / "overlays/dev/namespace.yaml").read_text(encoding="utf-8"))
    dev["metadata"]["name"] = "ashi-dev"
    objects = [{"kind": "Service", "metadata": {"namespace": name}} for name in ("ashi-dev", "ashi")]
    without, made = namespaces([dev, *objects])
    assert made == dev
    assert without == {**dev, "metadata": {**dev["metadata"], "name": "ashi"}}


def test_definitions_are_as_kubernetes_has_them() -> None:
    for kept in CRDS.values():
        made = definition(kept)
        validate(made)
        [found] = made["spec"]["versions"]
        for schema in schemas(found["schema"]["openAPIV3Schema"]):
            assert isinstance(schema.get("type", ""), str)
            assert schema.get("additionalProperties") is not False
            assert "type" in schema or schema.keys() & {
                "x-kubernetes-int-or-string",
                "x-kubernetes-preserve-unknown-fields",
            }


def schemas(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """It and all within it."""
    within = [*schema.get("properties", {}).values()]
    within += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    return [schema, *(found for each in within for found in schemas(each))]


def test_a_schema_is_opened_where_it_took_anything() -> None:
    closed = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "config": {"type": "object"},
            "any": {},
            "names": {"type": "object", "additionalProperties": {"type": "string"}},
            "none": {"type": ["integer", "null"]},
            "port": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "type": {"type": "string"},
        },
    }
    assert structural(closed) == {
        "type": "object",
        "properties": {
            "config": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "any": {"x-kubernetes-preserve-unknown-fields": True},
            "names": {"type": "object", "additionalProperties": {"type": "string"}},
            "none": {"type": "integer", "nullable": True},
            "port": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True},
            "type": {"type": "string"},
        },
    }


def test_without_go_it_says_what_to_do(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="Install Go"):
        built(print, tmp_path)
    path = program(tmp_path)
    path.parent.mkdir(parents=True)
    path.touch()
    assert built(print, tmp_path) == path  # once it is there, Go is not asked for
    assert path.name.startswith(f"{version()}-")
