"""The rules of alerts: sound, tested each by promtool, of metrics that there are, with a place in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ashi.runtime.metrics import document  # noqa: F401  (importing it declares every metric)
from ashi.runtime.metrics.declare import CATALOGUE

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy/monitoring"
RULES = MONITORING / "rules/ashi.rules.yaml"
TESTS = sorted((MONITORING / "rules").glob("*.tests.yaml"))
RUNBOOK = ROOT / "docs/operations.md"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)


def groups() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return loaded


def rules() -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
ALERTMANAGER = yaml.safe_load((MONITORING / "alertmanager.yaml").read_text(encoding="utf-8"))


def metrics_in(expression: str) -> set[str]:
    """Names of Ashi's metrics in an expression, without what a histogram's series have at the end."""
    names = set(re.findall(r"\bashi_[a-z0-9_]+", expression))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, arguments)], check=False, capture_output=True, text=True, timeout=400)


def test_every_alert_has_one_name_a_severity_and_words() -> None:
    names = Counter(rule["alert"] for rule in rules() if "alert" in rule)
    assert not [name for name, count in names.items() if count > 1]
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in {"page", "ticket", "none"}, name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name


def test_every_metric_in_the_rules_is_one_that_a_process_serves() -> None:
    known = {metric.name for metric in CATALOGUE}
    for rule in rules():
        assert metrics_in(rule["expr"]) <= known, rule.get("alert", rule.get("record"))


def test_every_recorded_name_in_the_alerts_is_recorded() -> None:
    used = {name for rule in rules() for name in re.findall(r"\bashi:[a-z0-9_:]+", rule["expr"])}
    assert used <= RECORDED


def test_labels_in_the_rules_are_those_of_their_metrics() -> None:
    labels = {metric.name: {*metric.labels, "le", "instance", "job"} for metric in CATALOGUE}
    for rule in rules():
        for name, selector in re.findall(r"\b(ashi_[a-z0-9_]+)\{([^}]*)\}", rule["expr"]):
            known = labels[re.sub(r"_(bucket|count|sum)$", "", name)]
            assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= known, (name, selector)


def test_the_objective_s_bound_is_a_bucket_of_the_histogram() -> None:
    from ashi.runtime.metrics.aggregate import candle_delay_seconds

    used = {float(bound) for rule in rules() for bound in re.findall(r'le="([^"]+)"', rule["expr"])}
    assert used <= set(candle_delay_seconds._kwargs["buckets"])


def test_the_runbook_has_a_section_for_every_alert_and_for_no_other() -> None:
    sections = re.findall(r"^### (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/operations.md#{name.lower()}")


def test_the_table_of_the_alerts_has_their_severities() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (\w+) \|", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {name: rule["labels"]["severity"] for name, rule in ALERTS.items() if name != "Watchdog"}


def test_inhibitions_are_of_alerts_and_labels_that_there_are() -> None:
    for inhibition in ALERTMANAGER["inhibit_rules"]:
        for matcher in (*inhibition["source_matchers"], *inhibition["target_matchers"]):
            label, _, value = re.match(r'(\w+) (=|!=|=~|!~) "(.*)"', matcher).groups()  # type: ignore[union-attr]
            if label == "alertname":
                assert set(value.split("|")) <= set(ALERTS), matcher


def test_everything_is_told_by_namespace() -> None:
    """Else one of two deployments at a Prometheus hides that the other has no Kafka, or no worker."""
    for rule in rules():
        # `quantile_over_time` and its like are of one series; `max by (…) (` and `sum by (…) (` are over several.
        found = re.findall(r"\b(?:sum|max|min|avg|count|group)\b *(by \([^)]*\))?[ (]", rule["expr"])
        assert all(by.startswith("by (namespace") for by in found), rule["expr"]
        joined = re.findall(r"\bon \(([^)]*)\)", rule["expr"])
        assert all("namespace" in on for on in joined), rule["expr"]


def matches(labels: Mapping[str, str], matchers: Sequence[str]) -> bool:
    """As Alertmanager does: a label that an alert has not is empty."""
    for matcher in matchers:
        label, operator, value = re.fullmatch(r'(\w+) (=|!=|=~|!~) "(.*)"', matcher).groups()  # type: ignore[union-attr]
        is_so = re.fullmatch(value, labels.get(label, "")) if "~" in operator else labels.get(label, "") == value
        if bool(is_so) == operator.startswith("!"):
            return False
    return True


def muted(target: Mapping[str, str], *, by: Mapping[str, str]) -> bool:
    return any(
        matches(by, rule["source_matchers"])
        and matches(target, rule["target_matchers"])
        and all(by.get(label, "") == target.get(label, "") for label in rule.get("equal", ()))
        for rule in ALERTMANAGER["inhibit_rules"]
    )


NO_KAFKA = {"alertname": "KafkaDown", "severity": "page", "namespace": "prod"}
NO_CHECKPOINT = {"alertname": "CheckpointStalled", "severity": "page", "stage": "aggregate", "instance": "a"}
NO_AGGREGATE = {
    "alertname": "WorkersAbsent",
    "severity": "page",
    "stage": "aggregate",
    "missing": "aggregate: no process",
}
NO_SQLITE = {
    "alertname": "WorkersAbsent",
    "severity": "page",
    "stage": "sink",
    "sink": "sqlite",
    "missing": "sink sqlite",
}
AGGREGATE_BEHIND = {"alertname": "LagGrowing", "severity": "ticket", "reader": "aggregate", "partition": "1"}
SINK_BEHIND = {"alertname": "LagGrowing", "severity": "ticket", "reader": "sink lake", "sink": "lake", "partition": "1"}
CHART_DOWN = {"alertname": "ProcessDown", "severity": "ticket", "stage": "chart", "instance": "c"}
AGGREGATE_DOWN = {"alertname": "ProcessDown", "severity": "ticket", "stage": "aggregate", "instance": "a"}
STALLED = {"alertname": "WatermarkStalled", "severity": "page", "stage": "aggregate", "partition": "1"}
STORE_DOWN = {"alertname": "StoreDown", "severity": "page", "stage": "sink", "sink": "lake"}
ROWS_LATE = {"alertname": "RowsLate", "severity": "page", "stage": "sink", "sink": "lake"}


@pytest.mark.parametrize(
    ("target", "by", "is_muted"),
    [
        (ROWS_LATE | {"namespace": "prod"}, NO_KAFKA, True),
        (ROWS_LATE | {"namespace": "test"}, NO_KAFKA, False),
        (ROWS_LATE, NO_KAFKA, False),
        (ROWS_LATE, STORE_DOWN, True),
        (ROWS_LATE | {"sink": "sqlite"}, STORE_DOWN, False),
        (AGGREGATE_BEHIND, NO_CHECKPOINT, True),
        (SINK_BEHIND, NO_CHECKPOINT, False),
        (STALLED, NO_CHECKPOINT, True),
        (STALLED, NO_AGGREGATE, True),
        (AGGREGATE_BEHIND, NO_AGGREGATE, True),
        (SINK_BEHIND, NO_AGGREGATE, False),
        (AGGREGATE_DOWN, NO_AGGREGATE, True),
        (CHART_DOWN, NO_AGGREGATE, False),
        (CHART_DOWN, NO_SQLITE, False),
        (ROWS_LATE | {"sink": "sqlite"}, NO_SQLITE, True),
        (ROWS_LATE, NO_SQLITE, False),
        (AGGREGATE_BEHIND, STALLED, True),
        (SINK_BEHIND, STALLED, False),
    ],
)
def test_an_alert_mutes_what_follows_of_it_and_nothing_else(
    target: dict[str, str], by: dict[str, str], is_muted: bool
) -> None:
    assert muted(target, by=by) == is_muted


def test_what_is_told_is_told_of_one_deployment_at_a_time() -> None:
    assert "namespace" in ALERTMANAGER["route"]["group_by"]
    assert all("namespace" in rule["equal"] for rule in ALERTMANAGER["inhibit_rules"])


def firing(case: dict[str, Any]) -> list[set[str]]:
    """Which alerts a case of the tests expects to fire, at each of its times."""
    return [
        {re.search(r'alertname="(\w+)"', sample["labels"]).group(1) for sample in each.get("exp_samples") or ()}  # type: ignore[union-attr]
        for each in case["promql_expr_test"]
    ]


def test_every_alert_is_tested_to_fire_and_not_to_fire() -> None:
    cases = [case for path in TESTS for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]
    fires = {name for case in cases for each in firing(case) for name in each}
    # In a case of its own it is seen not to fire while its series are there, or no more after they are mended.
    rests = {
        name
        for case in cases
        for name in ALERTS
        if any(name in each for each in firing(case)) and any(name not in each for each in firing(case))
    }
    assert fires == set(ALERTS)
    assert rests | {"Watchdog"} == fires


@pytest.mark.outside
@needs_promtool
def test_promtool_finds_nothing_wrong() -> None:
    for arguments in (("check", "rules", RULES), ("check", "config", MONITORING / "prometheus.yaml")):
        done = run("promtool", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.outside
@needs_promtool
def test_every_alert_fires_when_it_should_and_not_when_not() -> None:
    done = run("promtool", "test", "rules", *TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.outside
@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is missing: apt-get install prometheus-alertmanager")
def test_alertmanager_takes_its_configuration() -> None:
    done = run("amtool", "check-config", MONITORING / "alertmanager.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
