"""What is generated of the manifests and of the page about rights is as its sources say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from manifests import KUBERNETES, program

from ashi.contracts.access import (
    CHART,
    INGEST,
    REPLAY,
    Access,
    access_table,
    aggregate_access,
    deployed_principals,
    strategy_access,
)
from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import topic_specs
from ashi.runtime.settings import Settings

MADE = program(KUBERNETES / "make_manifests.py")
PRINCIPALS = {each.name: each for each in deployed_principals()}


@pytest.mark.parametrize("path", MADE.generated(), ids=lambda path: path.name)
def test_what_is_generated_is_as_its_source_says(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == MADE.generated()[path], "run: make manifests"


def test_topics_of_other_settings() -> None:
    settings = Settings.from_environment(
        {
            "ASHI_PARTITIONS": "16",
            "ASHI_TIMEFRAMES": "1s,1m",
            "ASHI_TOPIC_PREFIX": "Stage_1.",
            "ASHI_REPLICATION": "3",
        }
    )
    made = list(yaml.safe_load_all(MADE.topics(settings)))
    wanted = topic_specs(16, settings.timeframes)
    assert [each["spec"]["topicName"] for each in made] == ["Stage_1." + spec.name for spec in wanted]
    assert [each["spec"]["partitions"] for each in made] == [spec.partitions for spec in wanted]
    assert [each["spec"]["config"] for each in made] == [spec.config for spec in wanted]
    assert {each["spec"]["replicas"] for each in made} == {3}
    assert {each["metadata"]["name"] for each in made} >= {"stage-1.trades", "stage-1.ashi.meta"}


def test_topics_and_users_of_your_settings_go_where_you_want_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASHI_PARTITIONS", "24")
    monkeypatch.setenv("ASHI_TOPIC_PREFIX", "staging.")
    monkeypatch.setattr("sys.argv", ["make_manifests.py", "--into", str(tmp_path)])
    MADE.main()
    made = {path.name: list(yaml.safe_load_all(path.read_text())) for path in tmp_path.iterdir()}
    assert {each["spec"]["partitions"] for each in made["topics.yaml"]} == {24, 1}
    resources = [acl["resource"] for user in made["users.yaml"] for acl in user["spec"]["authorization"]["acls"]]
    assert all(resource["name"].startswith("staging.") for resource in resources)


@pytest.mark.parametrize("prefix", ["", "staging."])
@pytest.mark.parametrize(
    ("user", "access"),
    [
        ("ashi-ingest", INGEST),
        ("ashi-ingest", REPLAY),
        ("ashi-aggregate", aggregate_access(parse_timeframes("1s,1m,1h"))),
        ("ashi-sink-postgres", access_table(())["ashi sink"]),
        ("ashi-sink-lake", access_table(())["ashi sink"]),
        ("ashi-sink-lake-trades", access_table(())["ashi sink --topic trades"]),
        ("ashi-strategy", strategy_access("ashi-strategy-ma_cross-5a1f0c9be210")),
        ("ashi-chart", CHART),
        ("ashi-reader", access_table(())["ashi.client"]),
    ],
)
def test_a_user_may_do_what_its_commands_do_and_nothing_else(user: str, access: Access, prefix: str) -> None:
    """The two forms of the table: as stages ask for it, and as it is granted."""
    [principal] = [each for each in deployed_principals(prefix) if each.name == user]
    group = access.group.replace("ashi-sink-*", user) if access.group else None
    needed = set(Access(access.topics, group, access.transactional_id).in_kafka(prefix).rights())
    unused = {(grant.kind, grant.name, operation) for grant in principal.grants for operation in grant.operations}
    for kind, name, operation in needed:
        granted = [
            grant
            for grant in principal.grants
            if grant.kind == kind
            and operation in grant.operations
            and (name.startswith(grant.name) if grant.prefixed else name == grant.name)
        ]
        assert granted, (kind, name, operation)
        unused -= {(kind, grant.name, operation) for grant in granted}
    assert not unused or access is REPLAY


def test_the_operator_may_make_every_topic_and_see_every_group() -> None:
    operations = {
        (grant.kind, grant.name, grant.prefixed): set(map(str, grant.operations))
        for grant in PRINCIPALS["ashi-operator"].grants
    }
    for spec in topic_specs(8, parse_timeframes("1m,1h")):
        state = spec.name.startswith("ashi-aggregate-")
        found = operations["topic", "ashi-aggregate-" if state else spec.name, state]
        assert found >= {"Read", "Create", "Alter", "DescribeConfigs"}
    assert operations["group", "ashi-", True] == {"Describe"}


def test_no_user_may_do_what_another_stage_does() -> None:
    writers: dict[str, set[str]] = {}
    for name, principal in PRINCIPALS.items():
        for grant in principal.grants:
            if grant.kind == "topic" and "Write" in map(str, grant.operations):
                writers.setdefault(grant.name, set()).add(name.removeprefix("ashi-"))
    assert writers["trades"] == {"ingest", "operator"}
    assert writers["candles"] == {"aggregate", "operator"}
    assert writers["ashi-aggregate-"] == {"aggregate"}
    assert writers["signals"] == {"strategy"}
    groups = [grant.name for each in PRINCIPALS.values() for grant in each.grants if grant.kind == "group"]
    assert len(groups) == len(set(groups))


def test_kafka_users_are_the_principals() -> None:
    made = {each["metadata"]["name"]: each for each in yaml.safe_load_all(MADE.users())}
    assert made.keys() == PRINCIPALS.keys()
    for name, user in made.items():
        assert user["spec"]["authentication"] == {"type": "scram-sha-512"}
        grants = [
            (
                re.sub("transactionalId", "transactional_id", acl["resource"]["type"]),
                acl["resource"]["name"],
                acl["resource"]["patternType"] == "prefix",
                acl["operations"],
            )
            for acl in user["spec"]["authorization"]["acls"]
        ]
        assert grants == [
            (grant.kind, grant.name, grant.prefixed, [*map(str, grant.operations)]) for grant in PRINCIPALS[name].grants
        ]


def test_the_rules_of_the_operator_are_the_rules() -> None:
    made = yaml.safe_load(MADE.prometheus_rule())
    assert made["spec"] == yaml.safe_load(MADE.RULES.read_text(encoding="utf-8"))


def test_every_dashboard_is_deployed() -> None:
    folder = MADE.ROOT / "deploy/monitoring"
    told = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    listed = {file for each in told["configMapGenerator"] for file in each["files"]}
    assert listed == {f"dashboards/{path.name}" for path in (folder / "dashboards").glob("*.json")}


@pytest.mark.outside
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus")
@pytest.mark.parametrize(
    ("status", "restarts", "fires"), [(75, "0x5 1x20", True), (1, "0x5 1x20", False), (75, "1x25", False)]
)
def test_the_alert_of_exits_is_of_those_that_do_not_pass(
    status: int, restarts: str, fires: bool, tmp_path: Path
) -> None:
    rule = yaml.safe_load((MADE.MONITORING / "exits.yaml").read_text(encoding="utf-8"))
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    labels = '{namespace="ashi", pod="ashi-aggregate-0", container="ashi"}'
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f"kube_pod_container_status_last_terminated_exitcode{labels}", "values": f"{status}x25"},
            {"series": f"kube_pod_container_status_restarts_total{labels}", "values": restarts},
        ],
        "promql_expr_test": [
            {
                "expr": 'ALERTS{alertname="WorkerEnded"}',
                "eval_time": "10m",
                "exp_samples": [
                    {
                        "labels": 'ALERTS{alertname="WorkerEnded", alertstate="firing", namespace="ashi", '
                        'pod="ashi-aggregate-0", severity="ticket"}',
                        "value": 1,
                    }
                ]
                if fires
                else [],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [case]}))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yaml"], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
