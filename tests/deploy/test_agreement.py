"""The manifests agree with the code; and each check of that finds what is planted for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from agreement import CHECKS, one
from manifests import VARIANTS, Object, named, of_kind, rendered

import ashi.runtime.metrics.document  # noqa: F401  (importing it declares every metric)


@pytest.mark.processes
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("check", CHECKS)
def test_the_manifests_agree_with_the_code(check: str, variant: str) -> None:
    assert list(CHECKS[check](rendered(variant))) == []


def _config(objects: list[Object]) -> Object:
    [found] = [each for each in of_kind(objects, "ConfigMap") if "ASHI_METRICS_PORT" in each["data"]]
    return found["data"]


def _variable(objects: list[Object], workload: str, name: str, value: str) -> None:
    one(objects, workload).setdefault("env", []).append({"name": name, "value": value})


def _pod(objects: list[Object], workload: str) -> Object:
    kind = "StatefulSet" if workload in {"ashi-aggregate", "ashi-ingest-binance"} else "Deployment"
    pod: Object = named(objects, kind, workload)["spec"]["template"]
    return pod


Plant = Callable[[list[Object]], object]

PLANTED: list[tuple[str, str, Plant]] = [
    ("arguments", "an option that there is not", lambda o: one(o, "ashi-aggregate")["args"].append("--fast")),
    ("arguments", "a stage that there is not", lambda o: one(o, "ashi-chart").update(args=["charts"])),
    ("arguments", "a variable that is not set", lambda o: one(o, "ashi-ingest-gmo")["args"].append("$(MARKET)")),
    ("arguments", "another program", lambda o: one(o, "ashi-chart").update(command=["bash"])),
    ("environment", "a name that is no setting", lambda o: _config(o).update(ASHI_TIMEFRAME="1m")),
    ("environment", "a file of what is no secret", lambda o: _config(o).update(ASHI_TIMEFRAMES_FILE="/tmp/x")),
    ("environment", "a value that is wrong", lambda o: _config(o).update(ASHI_PARTITIONS="many")),
    ("environment", "settings that contradict", lambda o: _config(o).update(ASHI_CORRECTION_HORIZON="1s")),
    (
        "environment",
        "a file that nothing mounts",
        lambda o: one(o, "ashi-sink-postgres")["volumeMounts"].clear(),
    ),
    ("environment", "half a login", lambda o: one(o, "ashi-aggregate")["env"].pop(0)),
    ("secrets", "a password in a setting", lambda o: _variable(o, "ashi-chart", "ASHI_KAFKA_PASSWORD", "s3cret")),
    (
        "secrets",
        "a secret as a variable",
        lambda o: one(o, "ashi-chart")["env"].append(
            {"name": "ASHI_CHART_TOKEN", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}
        ),
    ),
    ("ports", "another port of the metrics", lambda o: _config(o).update(ASHI_METRICS_PORT="9101")),
    ("ports", "metrics for nobody else", lambda o: _config(o).update(ASHI_METRICS_HOST="127.0.0.1")),
    ("ports", "another port of the chart", lambda o: _variable(o, "ashi-chart", "ASHI_CHART_PORT", "8081")),
    (
        "ports",
        "a service of a port that nobody has",
        lambda o: named(o, "Service", "ashi-chart")["spec"]["ports"][0].update(targetPort="web"),
    ),
    (
        "ports",
        "a probe of a port that is not there",
        lambda o: one(o, "ashi-aggregate")["livenessProbe"]["httpGet"].update(port="health"),
    ),
    (
        "partitions",
        "more workers than partitions",
        lambda o: named(o, "StatefulSet", "ashi-aggregate")["spec"].update(replicas=9),
    ),
    (
        "partitions",
        "scaled beyond the partitions",
        lambda o: named(o, "ScaledObject", "ashi-sink-postgres")["spec"].update(maxReplicaCount=9),
    ),
    ("partitions", "other partitions than the topics have", lambda o: _config(o).update(ASHI_PARTITIONS="16")),
    ("partitions", "a timeframe without a changelog", lambda o: _config(o).update(ASHI_TIMEFRAMES="1m,15m")),
    ("partitions", "topics of another prefix", lambda o: _config(o).update(ASHI_TOPIC_PREFIX="staging.")),
    ("partitions", "fewer copies than are wanted", lambda o: of_kind(o, "KafkaTopic")[3]["spec"].update(replicas=2)),
    (
        "partitions",
        "a record that counts with one copy",
        lambda o: of_kind(o, "KafkaTopic")[3]["spec"]["config"].update({"min.insync.replicas": "1"}),
    ),
    (
        "grace",
        "a shutdown that is cut off",
        lambda o: _pod(o, "ashi-aggregate")["spec"].update(terminationGracePeriodSeconds=20),
    ),
    (
        "probes",
        "restarts while it is not ready",
        lambda o: one(o, "ashi-aggregate")["livenessProbe"]["httpGet"].update(path="/ready"),
    ),
    ("probes", "a hang that goes on", lambda o: one(o, "ashi-aggregate")["livenessProbe"].update(failureThreshold=4)),
    ("probes", "one late answer", lambda o: one(o, "ashi-chart")["livenessProbe"].update(failureThreshold=1)),
    (
        "image",
        "another user",
        lambda o: _pod(o, "ashi-chart")["spec"]["securityContext"].update(runAsUser=1000),
    ),
    ("image", "a container of nothing", lambda o: one(o, "ashi-aggregate").pop("image")),
    ("image", "no room in /tmp", lambda o: one(o, "ashi-aggregate")["volumeMounts"].pop()),
    ("rights", "a token", lambda o: _pod(o, "ashi-chart")["spec"].pop("automountServiceAccountToken")),
    (
        "rights",
        "a root that can be written",
        lambda o: one(o, "ashi-chart")["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    ("rights", "memory without a limit", lambda o: one(o, "ashi-chart")["resources"].pop("limits")),
    (
        "users",
        "another stage's user",
        lambda o: _pod(o, "ashi-aggregate")["metadata"]["labels"].update({"ashi/user": "ashi-ingest"}),
    ),
    ("users", "another store's sink", lambda o: one(o, "ashi-sink-postgres").update(args=["sink", "lake"])),
    (
        "users",
        "another user's password",
        lambda o: _pod(o, "ashi-chart")["spec"]["volumes"][0]["secret"].update(secretName="ashi-operator"),
    ),
    (
        "shards",
        "two workers of one shard each",
        lambda o: named(o, "StatefulSet", "ashi-ingest-bitflyer")["spec"].update(replicas=2),
    ),
    (
        "kinds",
        "workers that start one by one",
        lambda o: named(o, "StatefulSet", "ashi-aggregate")["spec"].update(podManagementPolicy="OrderedReady"),
    ),
    (
        "kinds",
        "two of one strategy",
        lambda o: named(o, "Deployment", "ashi-strategy-ma-cross")["spec"].update(replicas=2),
    ),
    (
        "kinds",
        "a strategy that is killed for its memory",
        lambda o: one(o, "ashi-strategy-ma-cross")["resources"]["limits"].update(memory="384Mi"),
    ),
    (
        "selectors",
        "a budget of nobody",
        lambda o: named(o, "PodDisruptionBudget", "ashi-chart")["spec"]["selector"]["matchLabels"].update(x="y"),
    ),
    (
        "selectors",
        "a worker that may do what is not named",
        lambda o: _pod(o, "ashi-chart")["metadata"]["labels"].pop("app.kubernetes.io/part-of"),
    ),
    ("network", "Kafka elsewhere", lambda o: _config(o).update(ASHI_KAFKA_BOOTSTRAP="kafka.example:19092")),
    (
        "network",
        "a store that cannot be reached",
        lambda o: _pod(o, "ashi-sink-postgres")["metadata"]["labels"].pop("ashi/store"),
    ),
    (
        "network",
        "a page that nobody may ask for",
        lambda o: named(o, "NetworkPolicy", "ashi-chart")["spec"]["ingress"].clear(),
    ),
    (
        "network",
        "metrics that Prometheus may not ask for",
        lambda o: named(o, "NetworkPolicy", "ashi-metrics")["spec"]["podSelector"]["matchLabels"].update(x="y"),
    ),
    (
        "network",
        "a venue whose port is closed",
        lambda o: named(o, "NetworkPolicy", "ashi-venues")["spec"]["egress"][0]["ports"].pop(),
    ),
    (
        "scaling",
        "a number that two set",
        lambda o: named(o, "Deployment", "ashi-sink-postgres")["spec"].update(replicas=2),
    ),
    (
        "scaling",
        "to none",
        lambda o: named(o, "ScaledObject", "ashi-sink-postgres")["spec"].update(minReplicaCount=0),
    ),
    (
        "scaling",
        "by a metric that there is not",
        lambda o: named(o, "ScaledObject", "ashi-sink-postgres")["spec"]["triggers"][0]["metadata"].update(
            query="max(ashi_sink_delay_seconds)"
        ),
    ),
    (
        "scaling",
        "by a number of records",
        lambda o: named(o, "ScaledObject", "ashi-sink-postgres")["spec"]["triggers"][0]["metadata"].update(
            query="max(ashi_sink_lag_records)"
        ),
    ),
    (
        "monitoring",
        "a stage of another name",
        lambda o: _pod(o, "ashi-chart")["metadata"]["labels"].update({"app.kubernetes.io/name": "chart"}),
    ),
]


@pytest.mark.processes
@pytest.mark.parametrize(("check", "what", "plant"), PLANTED, ids=[f"{check}: {what}" for check, what, _ in PLANTED])
def test_a_check_finds_what_does_not_agree(check: str, what: str, plant: Plant) -> None:
    objects = rendered("prod")
    plant(objects)
    assert list(CHECKS[check](objects)) != []


def test_something_is_planted_for_every_check() -> None:
    assert {check for check, _, _ in PLANTED} == set(CHECKS)


@pytest.mark.processes
def test_static_membership_gives_each_worker_a_name_that_a_restart_keeps() -> None:
    objects = rendered("static-membership")
    variables = {each["name"]: each for each in one(objects, "ashi-aggregate")["env"]}
    assert variables["ASHI_INSTANCE_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert "ASHI_INSTANCE_ID" not in {each["name"] for each in one(rendered("prod"), "ashi-aggregate")["env"]}
