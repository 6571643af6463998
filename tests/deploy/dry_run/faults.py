"""What is planted, to see the server refuse it: a check that finds nothing may be one that looks at nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests import Object, named

Change = Callable[[Any], object]


@dataclass(frozen=True)
class Fault:
    """A change of one of the objects of the overlay prod."""

    what: str
    kind: str
    name: str
    change: Change
    says: str
    """What stands in the server's answer, or in its warning."""

    def planted(self, objects: Sequence[Object]) -> Object:
        made = copy.deepcopy(named(objects, self.kind, self.name))
        self.change(made)
        return made


def _container(workload: Mapping[str, Any]) -> Any:
    [found] = [each for each in workload["spec"]["template"]["spec"]["containers"] if each["name"] == "ashi"]
    return found


FAULTS = (
    Fault(
        "a field that there is not",
        "Deployment",
        "ashi-chart",
        lambda made: _container(made).update(readOnlyRootFileSystem=True),
        "field not declared in schema",
    ),
    Fault(
        "a port that is a word",
        "Service",
        "ashi-chart",
        lambda made: made["spec"]["ports"][0].update(port="eighty"),
        "port",
    ),
    Fault(
        "a port that there cannot be",
        "Deployment",
        "ashi-chart",
        lambda made: _container(made)["ports"][0].update(containerPort=70_000),
        "must be between 1 and 65535",
    ),
    Fault(
        "a label with a value that none may have",
        "StatefulSet",
        "ashi-aggregate",
        lambda made: made["metadata"]["labels"].update({"app.kubernetes.io/part-of": "ashi, of course"}),
        "a valid label must",
    ),
    Fault(
        "a selector that does not select its own pods",
        "StatefulSet",
        "ashi-aggregate",
        lambda made: made["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/name": "another"}),
        "`selector` does not match template `labels`",
    ),
    Fault(
        "a folder that is mounted and is not there",
        "Deployment",
        "ashi-sink-postgres",
        lambda made: _container(made)["volumeMounts"].append({"name": "nowhere", "mountPath": "/nowhere"}),
        'Not found: "nowhere"',
    ),
    Fault(
        "more memory asked for than allowed",
        "Deployment",
        "ashi-sink-postgres",
        lambda made: _container(made)["resources"]["requests"].update(memory="100Gi"),
        "must be less than or equal to memory limit",
    ),
    Fault(
        "a pod that may have rights",
        "StatefulSet",
        "ashi-aggregate",
        lambda made: _container(made)["securityContext"].update(allowPrivilegeEscalation=True),
        "violate PodSecurity",
    ),
    Fault(
        "partitions as a word, of Strimzi's",
        "KafkaTopic",
        "trades",
        lambda made: made["spec"].update(partitions="eight"),
        "partitions",
    ),
    Fault(
        "a field that there is not, of KEDA's",
        "ScaledObject",
        "ashi-sink-postgres",
        lambda made: made["spec"].update(minReplicas=2),
        "field not declared in schema",
    ),
    Fault(
        "a field that there is not, of the Prometheus operator's",
        "PodMonitor",
        "ashi",
        lambda made: made["spec"]["podMetricsEndpoints"][0].update(ports="metrics"),
        "field not declared in schema",
    ),
)
