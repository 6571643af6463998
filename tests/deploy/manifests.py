"""The manifests as a cluster would get them: kustomize's own output, of the overlays and of some that are made here."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
PART_OF = {"app.kubernetes.io/part-of": "ashi"}

Object = dict[str, Any]

SCHEMAS = ROOT / "tests/deploy/schemas"
CRDS: Mapping[tuple[str, str], Object] = {
    (each["apiVersion"], each["kind"]): each
    for each in (json.loads(path.read_text(encoding="utf-8")) for path in SCHEMAS.glob("*.json"))
    if "kind" in each
}
"""The schemas of others' resources, closed: see the README beside them."""
VARIANTS: dict[str, Sequence[str]] = {
    "dev": ("overlays/dev",),
    "prod": ("overlays/prod",),
    "static-membership": ("base", "components/static-membership"),
    "keda-aggregate": ("base", "components/tls", "components/keda-aggregate"),
    "dev-login": ("overlays/dev", "components/tls"),
}
"""Each by what it is made of: an overlay, or the base with components."""


def kubectl() -> str:
    """The kubectl of the development dependencies, whose version is locked."""
    found = shutil.which("kubectl", path=sysconfig.get_path("scripts"))
    assert found is not None, "kubectl is missing beside python: make setup"
    return found


@functools.cache
def _render(variant: str) -> str:
    made_of = VARIANTS[variant]
    if len(made_of) == 1:
        return json.dumps(kustomized(KUBERNETES / made_of[0]))
    with tempfile.TemporaryDirectory() as folder:
        relative = [os.path.relpath(KUBERNETES / part, Path(folder).resolve()) for part in made_of]
        text = yaml.safe_dump({"resources": relative[:1], "components": relative[1:], "namespace": "ashi"})
        (Path(folder) / "kustomization.yaml").write_text(text)
        return json.dumps(kustomized(Path(folder).resolve()))


def kustomized(folder: Path) -> list[Object]:
    """What kustomize makes of a folder."""
    done = subprocess.run([kubectl(), "kustomize", folder], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # a warning, as of a field that is deprecated
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]


def rendered(variant: str) -> list[Object]:
    """The objects of one of `VARIANTS`, anew for each caller, who may change them."""
    found: list[Object] = json.loads(_render(variant))
    return found


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    [found] = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet or Job of Ashi's, with its one container."""

    manifest: Object

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def replicas(self) -> int | None:
        """None where another has the say."""
        found: int | None = self.manifest["spec"].get("replicas")
        return found

    @property
    def template(self) -> Object:
        found: Object = self.manifest["spec"]["template"]
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.template["metadata"]["labels"]
        return found

    @property
    def pod(self) -> Object:
        found: Object = self.template["spec"]
        return found

    @property
    def container(self) -> Object:
        [found] = [each for each in self.pod["containers"] if each["name"] == "ashi"]
        return dict(found)

    def environment(self, objects: Sequence[Object]) -> dict[str, str]:
        """All variables, those of its ConfigMap and its own; of a pod with the ordinal 0."""
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", ()):
            if "configMapRef" in source:
                found |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in self.container.get("env", ()):
            found[variable["name"]] = variable["value"] if "value" in variable else self._field(variable)
        return found

    def _field(self, variable: Object) -> str:
        if "secretKeyRef" in variable["valueFrom"]:
            return "a secret"
        path = variable["valueFrom"]["fieldRef"]["fieldPath"]
        known = {f"metadata.labels['{name}']": value for name, value in self.labels.items()}
        known |= {"metadata.labels['apps.kubernetes.io/pod-index']": "0", "metadata.name": f"{self.name}-0"}
        return known[path]

    def arguments(self, objects: Sequence[Object]) -> list[str]:
        """What the command `ashi` gets."""
        environment = self.environment(objects)

        def expanded(argument: str) -> str:
            return re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), argument)

        return [expanded(argument) for argument in self.container["args"]]


def workloads(objects: Sequence[Object], *kinds: str) -> list[Workload]:
    """Ashi's own; of all kinds unless some are named."""
    return [
        Workload(each)
        for each in of_kind(objects, *(kinds or ("Deployment", "StatefulSet", "Job")))
        if each["metadata"]["name"].startswith("ashi-")
    ]


def workers(objects: Sequence[Object]) -> list[Workload]:
    """Those that run until they are told to stop."""
    return workloads(objects, "Deployment", "StatefulSet")


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects something with these labels."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"]
        for each in selector.get("matchExpressions", ())
    )


def containers(objects: Sequence[Object]) -> Iterator[tuple[Workload, Object]]:
    for workload in workloads(objects):
        yield workload, workload.container


def program(path: Path) -> ModuleType:
    """A program of this repository that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
