"""`make manifests-dry-run`: a real kube-apiserver says of every object whether it would take it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dry_run.definitions import definition
from dry_run.faults import FAULTS
from dry_run.server import ApiServer, Cluster, ServerError, built, serving
from manifests import CRDS, VARIANTS, Object, rendered

from rig.long_run import say

STANDARD = {"pod-security.kubernetes.io/warn": "restricted"}
"""Of namespaces that no overlay makes: Kubernetes' strictest, which pods of Ashi keep to."""
PLANTED_IN = "prod"


def namespaces(objects: Iterable[Object]) -> list[Object]:
    """Those that the objects are in, as an overlay makes them, or as somebody has made them before."""
    objects = list(objects)
    made = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Namespace"}
    needed = sorted({each["metadata"]["namespace"] for each in objects if "namespace" in each["metadata"]})
    return [
        made.get(name) or {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": STANDARD}}
        for name in needed
    ]


def refused(cluster: Cluster, variant: str, objects: Sequence[Object]) -> int:
    """How many of them are. A line for each; a warning about one of Ashi's own is a refusal."""
    count = 0
    for each in objects:
        answer = cluster.apply(each)
        name = each["metadata"]["name"]
        says = "; ".join((*((answer.message,) if answer.message else ()), *answer.warnings))
        if not answer.accepted or (answer.warnings and name.startswith("ashi")):
            count += 1
            verdict = f"REFUSED: {says}" if not answer.accepted else f"REFUSED for a warning: {says}"
        else:
            verdict = f"accepted, with a warning: {says}" if says else "accepted"
        say(f"{variant:<18} {each['kind']:<20} {name:<40} {verdict}")
    return count


def overlooked(cluster: Cluster, objects: Sequence[Object]) -> int:
    """How many of the planted faults are not found."""
    count = 0
    for fault in FAULTS:
        answer = cluster.apply(fault.planted(objects))
        says = "; ".join((answer.message, *answer.warnings)).strip("; ")
        found = fault.says in says
        count += not found
        verdict = "refused" if found else f"OVERLOOKED (expected: {fault.says})"
        say(f"{'planted':<18} {fault.kind:<20} {fault.name:<40} {verdict}: {fault.what}: {says or 'accepted'}")
    return count


def judged(cluster: Cluster, variants: Mapping[str, Sequence[Object]]) -> int:
    """An exit status: 0 when every object is accepted and every planted fault is found. Says why where it is not."""
    planted = overlooked(cluster, variants[PLANTED_IN])
    wrong = sum(refused(cluster, variant, objects) for variant, objects in variants.items())
    every = sum(len(objects) for objects in variants.values())
    say(
        f"{every - wrong} of {every} objects accepted ({', '.join(variants)}), "
        f"{len(FAULTS) - planted} of {len(FAULTS)} planted faults refused"
    )
    return 1 if planted or wrong else 0


def prepare(server: ApiServer, objects: Sequence[Object]) -> None:
    """Make others' kinds and the namespaces for good: without them nothing of them can be tried. Raises ServerError."""
    for kept in CRDS.values():
        server.define(definition(kept))
    for namespace in namespaces(objects):
        answer = server.apply(namespace, dry_run=False)
        if not answer.accepted:
            raise ServerError(f"the namespace {namespace['metadata']['name']} was refused: {answer.message}")


def main() -> int:
    variants = {variant: rendered(variant) for variant in VARIANTS}
    try:
        path = built(say)
        with tempfile.TemporaryDirectory(prefix="ashi-dry-run-") as folder, serving(path, Path(folder)) as server:
            _, found, _ = server.ask("GET", "/version")
            say(f"kube-apiserver {found['gitVersion']} on port {server.port}, with an etcd of its own")
            prepare(server, [each for objects in variants.values() for each in objects])
            return judged(server, variants)
    except (ServerError, AssertionError) as error:
        sys.stderr.write(f"manifests-dry-run: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
