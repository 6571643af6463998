"""The users of a deployment, as the operator of Kafka makes them of the file that is deployed, on the tests' broker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servers.secured_kafka import SecuredKafka

FILE = Path(__file__).parents[2] / "deploy/kubernetes/components/strimzi/users.yaml"
_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactionalId": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}
_OPERATIONS = {operation.name.replace("_", "").lower(): operation for operation in AclOperation}
_IMPLIED = {"Describe": {"Read", "Write", "Delete", "Alter"}, "DescribeConfigs": {"AlterConfigs"}}
"""What Kafka permits whoever is permitted one of these (org.apache.kafka.server.authorizer, AclAuthorizer)."""


@dataclass(frozen=True)
class Rule:
    """Operations, as Kafka names them, on a topic, group, transactional id or cluster, or on all that begin so."""

    kind: str
    name: str
    prefixed: bool
    operations: frozenset[str]

    def covers(self, kind: str, name: str) -> bool:
        """Whether it is about this one."""
        return self.kind == kind and (name.startswith(self.name) if self.prefixed else name == self.name)


@dataclass(frozen=True)
class User:
    """Whom a KafkaUser of the file makes."""

    name: str
    rules: tuple[Rule, ...]

    def may(self, operation: str, kind: str, name: str) -> bool:
        """Whether the rules permit it, with what Kafka takes for permitted along with that."""
        enough = {operation, "All"} | _IMPLIED.get(operation, set())
        return any(rule.covers(kind, name) and rule.operations & enough for rule in self.rules)


def deployed_users() -> list[User]:
    """All of the file."""
    documents = [document for document in yaml.safe_load_all(FILE.read_text()) if document]
    assert {document["kind"] for document in documents} == {"KafkaUser"}
    assert {document["spec"]["authentication"]["type"] for document in documents} == {"scram-sha-512"}
    return [User(document["metadata"]["name"], tuple(_rules(document))) for document in documents]


def _rules(document: dict[str, Any]) -> Iterable[Rule]:
    authorization = document["spec"]["authorization"]
    assert authorization["type"] == "simple"
    for entry in authorization["acls"]:
        resource = entry["resource"]
        assert entry.get("type", "allow") == "allow"
        assert entry.get("host", "*") == "*"
        kind, name = resource["type"], resource.get("name", "kafka-cluster")
        yield Rule(kind, name, resource.get("patternType") == "prefix", frozenset(entry["operations"]))


def make_users(kafka: SecuredKafka, users: Iterable[User]) -> None:
    """Let them log in, with the password that `by_scram` gives them, and permit what their rules say."""
    users = list(users)
    kafka.let_in([user.name for user in users])
    bindings = [
        AclBinding(
            _KINDS[rule.kind],
            rule.name,
            ResourcePatternType.PREFIXED if rule.prefixed else ResourcePatternType.LITERAL,
            f"User:{user.name}",
            "*",
            _OPERATIONS[operation.lower()],
            AclPermissionType.ALLOW,
        )
        for user in users
        for rule in user.rules
        for operation in rule.operations
    ]
    if bindings:
        kafka.admin_does("create_acls", bindings)
