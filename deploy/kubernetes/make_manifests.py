"""Writes what is generated of the manifests, and the tables of docs/access.md: make manifests.

    components/strimzi/users.yaml             of ashi.contracts.access
    components/strimzi/topics.yaml            of ashi.contracts.topics
    components/monitoring/podmonitor.yaml     of deploy/monitoring/prometheus.yaml
    components/monitoring/prometheusrule.yaml of deploy/monitoring/rules/ashi.rules.yaml

Topics are as many and as wide as ASHI_PARTITIONS, ASHI_TIMEFRAMES, ASHI_REPLICATION and ASHI_TOPIC_PREFIX say. What is
committed is of the defaults; `--into DIR` writes users.yaml and topics.yaml of yours elsewhere, as into an overlay.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Final

import yaml

from ashi.contracts.access import Principal, access_table, deployed_principals
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import topic_specs
from ashi.runtime.settings import Settings

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
STRIMZI: Final = HERE / "components/strimzi"
MONITORING: Final = HERE / "components/monitoring"
RULES: Final = ROOT / "deploy/monitoring/rules/ashi.rules.yaml"
PROMETHEUS: Final = ROOT / "deploy/monitoring/prometheus.yaml"
ACCESS: Final = ROOT / "docs/access.md"

KAFKA_API: Final = "kafka.strimzi.io/v1"
CLUSTER: Final = {"strimzi.io/cluster": "kafka"}
"""The label by which Strimzi knows whose topic or user it is."""
RESOURCE: Final = {"topic": "topic", "group": "group", "transactional_id": "transactionalId"}
PART_OF: Final = {"app.kubernetes.io/part-of": "ashi"}


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, and long texts are written as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def documents(source: str, objects: list[dict[str, Any]]) -> str:
    """Several objects in one file, which says what it is made of."""
    dumped = [yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True) for each in objects]
    return f"# Generated of {source}: make manifests\n" + "---\n".join(dumped)


def users(prefix: str = "") -> str:
    """A KafkaUser for each principal."""
    return documents("ashi.contracts.access", [_user(principal) for principal in deployed_principals(prefix)])


def _user(principal: Principal) -> dict[str, Any]:
    return {
        "apiVersion": KAFKA_API,
        "kind": "KafkaUser",
        "metadata": {"name": principal.name, "labels": dict(CLUSTER)},
        "spec": {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {
                "type": "simple",
                "acls": [
                    {
                        "resource": {
                            "type": RESOURCE[grant.kind],
                            "name": grant.name,
                            "patternType": "prefix" if grant.prefixed else "literal",
                        },
                        "operations": [str(operation) for operation in grant.operations],
                    }
                    for grant in principal.grants
                ],
            },
        },
    }


def topics(settings: Settings) -> str:
    """A KafkaTopic for each topic; without ASHI_REPLICATION it is the cluster's own."""
    made = []
    for spec in topic_specs(settings.partitions, settings.timeframes):
        name = settings.topic_prefix + spec.name
        resource = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")
        made.append(
            {
                "apiVersion": KAFKA_API,
                "kind": "KafkaTopic",
                "metadata": {"name": resource, "labels": dict(CLUSTER)},
                "spec": {
                    **({"topicName": name} if name != resource else {}),
                    "partitions": spec.partitions,
                    **({} if settings.replication is None else {"replicas": settings.replication}),
                    "config": dict(spec.config),
                },
            }
        )
    return documents("ashi.contracts.topics", made)


def pod_monitor() -> str:
    """What scrapes all workers: as often as prometheus.yaml, and with the names of the jobs that it has."""
    told = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "ashi", "labels": dict(PART_OF)},
        "spec": {
            # The jobs are ashi-ingest, ashi-aggregate, …, as in prometheus.yaml: ProcessDown looks for them.
            "jobLabel": "app.kubernetes.io/name",
            "selector": {
                "matchExpressions": [
                    {
                        "key": "app.kubernetes.io/name",
                        "operator": "In",
                        "values": [job["job_name"] for job in told["scrape_configs"]],
                    }
                ]
            },
            "podMetricsEndpoints": [{"port": "metrics", "interval": told["global"]["scrape_interval"]}],
        },
    }
    return documents("deploy/monitoring/prometheus.yaml", [monitor])


def prometheus_rule() -> str:
    """The rules, in the form of the Prometheus operator."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ashi", "labels": dict(PART_OF)},
        "spec": yaml.safe_load(RULES.read_text(encoding="utf-8")),
    }
    return documents("deploy/monitoring/rules/ashi.rules.yaml", [rule])


def access_page(page: str) -> str:
    """docs/access.md with its two tables made anew; all around them is written by hand."""
    tables = {"commands": _table_of_commands(), "users": _table_of_users()}
    for name, rows in tables.items():
        begin, end = f"<!-- {name}: made by make manifests -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        after = rest.partition(end)[2]
        page = "\n".join([before + begin, *rows, end]) + after
    return page


def _table_of_commands() -> list[str]:
    rows = ["| command | topic, group or id | operations |", "|---|---|---|"]
    for command, access in access_table([Timeframe.parse("1m")]).items():
        found: dict[tuple[str, str], list[str]] = {}
        for kind, name, operation in access.rights():
            found.setdefault((kind, name), []).append(str(operation))
        rows += [f"| `{command}` | {_on(kind)}`{name}` | {', '.join(each)} |" for (kind, name), each in found.items()]
    return rows


def _table_of_users() -> list[str]:
    rows = ["| user | runs | may |", "|---|---|---|"]
    for principal in deployed_principals():
        by_operations: dict[str, list[str]] = {}
        for grant in principal.grants:
            name = f"{_on(grant.kind)}`{grant.name}{'*' if grant.prefixed else ''}`"
            by_operations.setdefault(", ".join(map(str, grant.operations)), []).append(name)
        may = "; ".join(f"{operations}: {', '.join(names)}" for operations, names in by_operations.items())
        runs = ", ".join(f"`{run}`" if run.startswith("ashi") else run for run in principal.runs)
        rows.append(f"| `{principal.name}` | {runs} | {may} |")
    return rows


def _on(kind: str) -> str:
    return "" if kind == "topic" else kind.replace("_", " ") + " "


def generated() -> dict[Path, str]:
    """Each file that is committed, as it must be."""
    defaults = Settings.from_environment({})
    return {
        STRIMZI / "users.yaml": users(),
        STRIMZI / "topics.yaml": topics(defaults),
        MONITORING / "podmonitor.yaml": pod_monitor(),
        MONITORING / "prometheusrule.yaml": prometheus_rule(),
        ACCESS: access_page(ACCESS.read_text(encoding="utf-8")),
    }


def main() -> None:
    """Write all, or with `--into` topics and users of these settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, metavar="DIR", help="write users.yaml and topics.yaml of the environment")
    into: Path | None = parser.parse_args().into
    if into is None:
        files = generated()
    else:
        settings = Settings.from_environment()
        files = {into / "users.yaml": users(settings.topic_prefix), into / "topics.yaml": topics(settings)}
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
