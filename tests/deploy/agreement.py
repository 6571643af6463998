"""What the manifests say that no schema can check, against the code: each check names what does not agree."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from manifests import PART_OF, ROOT, Object, Workload, named, of_kind, selects, workers, workloads

from ashi import __version__
from ashi.contracts.access import deployed_principals
from ashi.contracts.topics import topic_specs
from ashi.runtime.health import Health
from ashi.runtime.metrics.declare import CATALOGUE as METRICS
from ashi.runtime.service import SHUTDOWN_BOUND_S
from ashi.runtime.settings import Settings, SettingsError
from ashi.runtime.settings.catalogue import CATALOGUE
from ashi_cli.commands import ASHI
from ashi_cli.parser import read_command_line
from ashi_ingest.venues.registry import VENUES

Check = Callable[[Sequence[Object]], Iterator[str]]

DOCKERFILE = ROOT / "deploy/Dockerfile"
VARIABLES = {each.variable: each for each in CATALOGUE}
NOT_ASHIS = {"SHARD", "SHARDS"}
"""Variables that only the arguments use."""
GRACE_MARGIN_S = 5
"""What Kubernetes needs to tell a pod, and a process to begin to stop, seconds."""
NEEDS = {
    "ashi-sink": "Deployment",
    "ashi-strategy": "Deployment",
    "ashi-chart": "Deployment",
    "ashi-ingest": "StatefulSet",
    "ashi-aggregate": "StatefulSet",
}


def arguments(objects: Sequence[Object]) -> Iterator[str]:
    """The command line is one that `ashi` takes."""
    for workload in workloads(objects):
        given = workload.arguments(objects)
        try:
            read_command_line(ASHI, __version__, given)
        except SystemExit as error:
            yield f"{workload.name}: ashi {' '.join(given)} ends with status {error.code}"
        if any("$(" in each for each in given):
            yield f"{workload.name}: a variable of {given} is not set"
        if "command" in workload.container:
            yield f"{workload.name}: the image's own entrypoint is not used"


def environment(objects: Sequence[Object]) -> Iterator[str]:
    """Every variable is a setting, all together are taken, and files are where a Secret is mounted."""
    for workload in workloads(objects):
        found = workload.environment(objects)
        for name in found.keys() - NOT_ASHIS:
            setting = VARIABLES.get(name) or VARIABLES.get(name.removesuffix("_FILE"))
            if setting is None or (name not in VARIABLES and not setting.secret):
                yield f"{workload.name}: {name} is no setting"
        with tempfile.TemporaryDirectory() as folder:
            found, lacking = _with_files(workload, found, Path(folder))
            yield from lacking
            if not lacking:
                try:
                    Settings.from_environment(found)
                except SettingsError as error:
                    yield f"{workload.name}: {error}"


def _with_files(workload: Workload, found: dict[str, str], folder: Path) -> tuple[dict[str, str], list[str]]:
    """The environment with files that there are, as the Secrets would have them; and what no Secret has."""
    mounts = {each["mountPath"]: each["name"] for each in workload.container.get("volumeMounts", ())}
    volumes = {each["name"]: each for each in workload.pod.get("volumes", ())}
    contents = {"url": _store_url(workload), "password": "s3cret", "token": "t" * 16, "ca.crt": "certificate"}
    moved, lacking = dict(found), []
    for name, value in found.items():
        if not name.endswith("_FILE") or not value:
            continue
        path = Path(value)
        volume = volumes.get(mounts.get(str(path.parent), ""), {})
        if "secret" not in volume or path.name not in contents:
            lacking.append(f"{workload.name}: {name}={value} is in no Secret that is mounted")
        elif volume["secret"].get("optional"):
            lacking.append(f"{workload.name}: {name}={value} is in a Secret that may be missing")
        else:
            (folder / path.name).write_text(contents[path.name])
            moved[name] = str(folder / path.name)
    return moved, lacking


def _store_url(workload: Workload) -> str:
    return "lake+s3://bucket/market" if workload.labels.get("ashi/store") == "lake" else "postgresql://u:p@db/market"


def secrets(objects: Sequence[Object]) -> Iterator[str]:
    """No secret is in a variable, but for S3's, which its clients read there; none is in a ConfigMap."""
    for workload in workloads(objects):
        for name, value in workload.environment(objects).items():
            if value and VARIABLES[name].secret if name in VARIABLES else False:
                yield f"{workload.name}: {name} is a secret: write it into a file, and its path into {name}_FILE"
        for variable in workload.container.get("env", ()):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                yield f"{workload.name}: {variable['name']} is a secret in the environment"
        for source in workload.container.get("envFrom", ()):
            if "secretRef" in source and source["secretRef"]["name"] != "ashi-lake-s3":
                yield f"{workload.name}: all of {source['secretRef']['name']} is in the environment"


def ports(objects: Sequence[Object]) -> Iterator[str]:
    """Ports are those that the processes listen on, and are called by the names that they have."""
    for workload in workloads(objects):
        settings = workload.environment(objects)
        by_name = {each["name"]: each["containerPort"] for each in workload.container.get("ports", ())}
        if workload.kind != "Job" and by_name.get("metrics") != int(settings["ASHI_METRICS_PORT"]):
            yield f"{workload.name}: port metrics is {by_name.get('metrics')}, not ASHI_METRICS_PORT"
        if workload.kind != "Job" and settings["ASHI_METRICS_HOST"] != "0.0.0.0":
            yield f"{workload.name}: /live cannot be asked from outside of the pod"
        if workload.container["args"][0] == "chart" and (
            by_name.get("http") != int(settings["ASHI_CHART_PORT"]) or settings["ASHI_CHART_HOST"] != "0.0.0.0"
        ):
            yield f"{workload.name}: port http is {by_name.get('http')}, not ASHI_CHART_PORT"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in workload.container and workload.container[probe]["httpGet"]["port"] not in by_name:
                yield f"{workload.name}: the {probe} asks a port that it has not"
    yield from _ports_of_others(objects)


def _ports_of_others(objects: Sequence[Object]) -> Iterator[str]:
    def known(selector: Object) -> set[str]:
        chosen = [each for each in workloads(objects) if selects(selector, each.labels)]
        return {port["name"] for each in chosen for port in each.container.get("ports", ())}

    for service in of_kind(objects, "Service"):
        if service["metadata"]["name"].startswith("ashi-"):
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in known({"matchLabels": service["spec"]["selector"]}):
                    yield f"Service {service['metadata']['name']}: nobody has the port {port['targetPort']}"
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            for port in rule.get("ports", ()):
                if port["port"] not in known(policy["spec"]["podSelector"]):
                    yield f"NetworkPolicy {policy['metadata']['name']}: nobody has the port {port['port']}"
    for monitor in of_kind(objects, "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] not in known(monitor["spec"]["selector"]):
                yield f"PodMonitor {monitor['metadata']['name']}: nobody has the port {endpoint['port']}"


def partitions(objects: Sequence[Object]) -> Iterator[str]:
    """No more workers than partitions, and as many partitions, and copies of them, everywhere."""
    for workload in workers(objects):
        stage = workload.labels["app.kubernetes.io/name"]
        limit = int(workload.environment(objects)["ASHI_PARTITIONS"])
        if stage in {"ashi-aggregate", "ashi-sink"}:
            for count in (workload.replicas, _scaled_to(objects, workload)):
                if count is not None and count > limit:
                    yield f"{workload.name}: {count} workers share {limit} partitions"
    topics = {
        each["spec"].get("topicName", each["metadata"]["name"]): each["spec"] for each in of_kind(objects, "KafkaTopic")
    }
    if topics:
        [aggregate] = [each for each in workers(objects) if each.container["args"] == ["aggregate"]]
        settings = Settings.from_environment(
            {
                name: value
                for name, value in aggregate.environment(objects).items()
                if name in {"ASHI_PARTITIONS", "ASHI_TIMEFRAMES", "ASHI_TOPIC_PREFIX"}
            }
        )
        wanted = {
            settings.topic_prefix + spec.name: spec.partitions
            for spec in topic_specs(settings.partitions, settings.timeframes)
        }
        made = {name: spec["partitions"] for name, spec in topics.items()}
        if made != wanted:
            yield f"the KafkaTopics are {made}, and the settings want {wanted}"
        copies = aggregate.environment(objects).get("ASHI_REPLICATION")
        for name, spec in topics.items():
            if copies is not None and spec.get("replicas") != int(copies):
                yield f"KafkaTopic {name} has {spec.get('replicas')} copies, and ASHI_REPLICATION is {copies}"
            if copies is not None and spec["config"].get("min.insync.replicas") != str(int(copies) - 1):
                yield f"KafkaTopic {name}: a record counts before {int(copies) - 1} of {copies} copies have it"


def _scaled_to(objects: Sequence[Object], workload: Workload) -> int | None:
    for scaled in of_kind(objects, "ScaledObject"):
        target = scaled["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) == (workload.kind, workload.name):
            return int(scaled["spec"]["maxReplicaCount"])
    return None


def grace(objects: Sequence[Object]) -> Iterator[str]:
    """Kubernetes kills later than a process that hangs at its end exits by itself."""
    for workload in workers(objects):
        if workload.pod["terminationGracePeriodSeconds"] < SHUTDOWN_BOUND_S + GRACE_MARGIN_S:
            yield f"{workload.name}: {workload.pod['terminationGracePeriodSeconds']} s are too short to stop in"


def probes(objects: Sequence[Object]) -> Iterator[str]:
    """`/live` decides about restarts, `/ready` about nothing but traffic; neither waits longer than `/live` itself."""
    bound_s = Health().live_bound_s
    for workload in workers(objects):
        found = workload.container
        paths = {probe: found[probe]["httpGet"]["path"] for probe in found if probe.endswith("Probe")}
        if paths != {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/ready"}:
            yield f"{workload.name}: the probes ask {paths}"
            continue
        liveness = found["livenessProbe"]
        if liveness["failureThreshold"] < 2:
            yield f"{workload.name}: one answer that comes late restarts it"
        if liveness["periodSeconds"] * liveness["failureThreshold"] > bound_s:
            yield f"{workload.name}: a hang of {bound_s:g} s is acted on after as long again"
        if liveness["timeoutSeconds"] >= liveness["periodSeconds"]:
            yield f"{workload.name}: a probe begins before the last one has ended"


def image(objects: Sequence[Object]) -> Iterator[str]:
    """User and writable paths are those of the image; and every container, also of others, has one."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    [user] = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    for workload in workloads(objects):
        context = workload.pod["securityContext"]
        if (str(context["runAsUser"]), str(context["runAsGroup"])) != user:
            yield f"{workload.name}: runs as {context['runAsUser']}, and the image's user is {user[0]}"
        writable = {each["name"] for each in workload.pod["volumes"] if "emptyDir" in each}
        mounts = {each["mountPath"]: each for each in workload.container["volumeMounts"]}
        if {path for path, each in mounts.items() if each["name"] in writable} != {"/tmp"}:
            yield f"{workload.name}: /tmp, and nothing else, must be writable"
    for other in of_kind(objects, "Deployment", "StatefulSet", "Job"):
        for container in other["spec"]["template"]["spec"]["containers"]:
            if "image" not in container:
                yield f"{other['metadata']['name']}: container {container['name']} has no image"
    if not re.search(r'^ENTRYPOINT \["ashi"\]$', text, re.MULTILINE):
        yield "the image's entrypoint is not `ashi`"


def rights(objects: Sequence[Object]) -> Iterator[str]:
    """No pod may do more than it must."""
    for workload in workloads(objects):
        pod, container = workload.pod, workload.container["securityContext"]
        wanted = {
            "automountServiceAccountToken": pod.get("automountServiceAccountToken") is False,
            "enableServiceLinks": pod.get("enableServiceLinks") is False,
            "runAsNonRoot": pod["securityContext"].get("runAsNonRoot") is True,
            "seccompProfile": pod["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"},
            "allowPrivilegeEscalation": container.get("allowPrivilegeEscalation") is False,
            "readOnlyRootFilesystem": container.get("readOnlyRootFilesystem") is True,
            "capabilities": container.get("capabilities") == {"drop": ["ALL"]},
            "limits": "memory" in workload.container["resources"].get("limits", {}),
            "requests": {"cpu", "memory"} <= workload.container["resources"].get("requests", {}).keys(),
        }
        yield from (f"{workload.name}: {name} is not as it must be" for name, is_so in wanted.items() if not is_so)


def users(objects: Sequence[Object]) -> Iterator[str]:
    """Each logs in as the user that may do what it does, with that user's password."""
    principals = {each.name: each for each in deployed_principals()}
    for workload in workloads(objects):
        user = workload.labels.get("ashi/user")
        secret = [each["secret"]["secretName"] for each in workload.pod["volumes"] if each["name"] == "kafka-user"]
        if user is None:
            if "ashi/kafka" in workload.labels or secret:
                yield f"{workload.name}: speaks with Kafka as nobody"
            continue
        if user not in principals:
            yield f"{workload.name}: there is no user {user}"
            continue
        command = "ashi " + " ".join(workload.arguments(objects))
        if not any(command.startswith(run.replace(" VENUE", "")) for run in principals[user].runs):
            yield f"{workload.name}: {command} is not what {user} runs"
        if secret != [user]:
            yield f"{workload.name}: is {user} with the password of {secret}"


def shards(objects: Sequence[Object]) -> Iterator[str]:
    """Every market is read by one worker."""
    for workload in workers(objects):
        if workload.labels["app.kubernetes.io/name"] == "ashi-ingest" and workload.replicas:
            at = workload.arguments(objects)
            if at[at.index("--shard") + 1] != f"0/{workload.replicas}":
                yield f"{workload.name}: {workload.replicas} workers read shards {at[at.index('--shard') + 1]}"


def kinds(objects: Sequence[Object]) -> Iterator[str]:
    """What a stage's workers are told apart by."""
    for workload in workers(objects):
        stage = workload.labels["app.kubernetes.io/name"]
        if workload.kind != NEEDS[stage]:
            yield f"{workload.name}: is no {NEEDS[stage]}"
        if workload.kind == "StatefulSet" and (
            workload.manifest["spec"]["podManagementPolicy"] != "Parallel"
            or workload.manifest["spec"].get("volumeClaimTemplates")
        ):
            yield f"{workload.name}: waits for its predecessor, or for a volume"
        if stage == "ashi-strategy":
            limit = workload.container["resources"]["limits"]["memory"]
            told = int(workload.environment(objects)["ASHI_STRATEGY_MEMORY_MB"])
            if (workload.replicas or 0) > 1 or workload.manifest["spec"]["strategy"] != {"type": "Recreate"}:
                yield f"{workload.name}: two of one strategy end each other"
            if told * 1_000_000 >= _bytes(limit):
                yield f"{workload.name}: is killed at {limit} before it ends itself at {told} MB"


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 2**20, "Gi": 2**30}[unit]


def selectors(objects: Sequence[Object]) -> Iterator[str]:
    """Budgets, policies and services are of pods that there are, and every worker has a budget."""
    all_labels = {each.name: each.labels for each in workloads(objects)}
    for policy in of_kind(objects, "PodDisruptionBudget", "NetworkPolicy"):
        spec = policy["spec"]
        if not any(selects(spec.get("selector") or spec["podSelector"], labels) for labels in all_labels.values()):
            yield f"{policy['kind']} {policy['metadata']['name']}: is of no pod"
    budgets = of_kind(objects, "PodDisruptionBudget")
    for workload in workers(objects):
        found = [each for each in budgets if selects(each["spec"]["selector"], workload.labels)]
        if len(found) != 1:
            yield f"{workload.name}: {len(found)} budgets, where one must be"
    denied = [
        each
        for each in of_kind(objects, "NetworkPolicy")
        if set(each["spec"]["policyTypes"]) == {"Ingress", "Egress"} and not each["spec"].keys() & {"ingress", "egress"}
    ]
    for name, labels in all_labels.items():
        if not any(selects(each["spec"]["podSelector"], labels) for each in denied):
            yield f"{name}: is not denied what is not named"
        if not PART_OF.items() <= labels.items():
            yield f"{name}: is no part of Ashi"


def network(objects: Sequence[Object]) -> Iterator[str]:
    """Each reaches what it is told to reach, venues by their own ports, and is reached by whoever is to ask it."""
    for workload in workloads(objects):
        open_ports = {
            number
            for policy in of_kind(objects, "NetworkPolicy")
            if selects(policy["spec"]["podSelector"], workload.labels)
            for rule in policy["spec"].get("egress", ())
            for port in rule.get("ports", ())
            for number in range(port["port"], port.get("endPort", port["port"]) + 1)
        }
        needed = {53}
        if "ashi/user" in workload.labels:
            bootstrap = workload.environment(objects)["ASHI_KAFKA_BOOTSTRAP"]
            needed |= {int(each.rpartition(":")[2]) for each in bootstrap.split(",")}
        if workload.labels["app.kubernetes.io/name"] == "ashi-ingest":
            limits = VENUES[workload.arguments(objects)[1]].live(has_key=False).limits
            needed |= {_port_of(limits.websocket_url), _port_of(limits.rest_url)}
        if "ASHI_STORAGE_FILE" in workload.environment(objects):
            needed.add(443 if workload.labels.get("ashi/store") == "lake" else 5432)
        if not needed <= open_ports:
            yield f"{workload.name}: cannot reach ports {sorted(needed - open_ports)}"
        asked = {"http"} if workload.container["args"][0] == "chart" else set()
        for monitor in of_kind(objects, "PodMonitor"):
            if selects(monitor["spec"]["selector"], workload.labels):
                asked |= {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
        let_in = {
            port["port"]
            for policy in of_kind(objects, "NetworkPolicy")
            if selects(policy["spec"]["podSelector"], workload.labels)
            for rule in policy["spec"].get("ingress", ())
            for port in rule.get("ports", ())
        }
        if not asked <= let_in:
            yield f"{workload.name}: nobody is let in to ports {sorted(asked - let_in)}"


def _port_of(url: str) -> int:
    return urlsplit(url).port or 443


def scaling(objects: Sequence[Object]) -> Iterator[str]:
    """By metrics that there are, of workloads whose number nothing else sets, never to none."""
    known = {metric.name: set(metric.labels) for metric in METRICS}
    for scaled in of_kind(objects, "ScaledObject"):
        name, spec = scaled["metadata"]["name"], scaled["spec"]
        target = Workload(named(objects, spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]))
        if target.replicas is not None:
            yield f"{name}: its replicas are set beside KEDA"
        if not 1 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]:
            yield f"{name}: may come to none, or its fallback is out of bounds"
        if "idleReplicaCount" in spec:
            yield f"{name}: may come to {spec['idleReplicaCount']}"
        for trigger in spec["triggers"]:
            query = trigger["metadata"]["query"]
            for metric in re.findall(r"\bashi_\w+", query):
                if metric not in known:
                    yield f"{name}: there is no metric {metric}"
                elif not metric.endswith("_seconds"):
                    yield f"{name}: {metric} is not a time"
                elif not set(re.findall(r"(\w+)=", query)) <= known[metric]:
                    yield f"{name}: {metric} has no such label as in {query}"
            if trigger["metricType"] != "AverageValue" or trigger["metadata"]["ignoreNullValues"] != "false":
                yield f"{name}: no metric would count as no lag"
            if target.environment(objects).get("ASHI_INSTANCE_ID"):
                yield f"{name}: each worker that goes would be waited for"


def monitoring(objects: Sequence[Object]) -> Iterator[str]:
    """Every worker is scraped, by a job of the name that alerts know."""
    jobs = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    known = {job["job_name"] for job in jobs}
    for workload in workers(objects):
        if workload.labels["app.kubernetes.io/name"] not in known:
            yield f"{workload.name}: its job would be none of {sorted(known)}"
        for monitor in of_kind(objects, "PodMonitor"):
            if not selects(monitor["spec"]["selector"], workload.labels):
                yield f"{workload.name}: is not scraped"
            if monitor["spec"]["jobLabel"] != "app.kubernetes.io/name":
                yield "the jobs are not named after the stages"


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        arguments,
        environment,
        secrets,
        ports,
        partitions,
        grace,
        probes,
        image,
        rights,
        users,
        shards,
        kinds,
        selectors,
        network,
        scaling,
        monitoring,
    )
}


def one(objects: Sequence[Object], name: str) -> Any:
    """The container of a workload, to plant something in it."""
    [workload] = [each for each in workloads(objects) if each.name == name]
    return workload.pod["containers"][0]
