"""One real Kafka with several listeners, each secured in another way, and access control lists that it keeps to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from ashi.contracts.access import Access, Operation
from ashi.runtime.settings import Settings
from ashi_cli.onemachine import kafka_server
from ashi_cli.onemachine.broker import Broker
from kafka_cluster import HOST, free_ports

Right = tuple[str, str, Operation]
"""As in `Access.rights`."""
PASSWORD = "pass-of-"


@dataclass(frozen=True)
class SecuredKafka:
    """A broker that runs.

    Attributes:
        broker: it.
        login: the address of a listener where one logs in, without TLS.

    """

    broker: Broker
    login: str

    @property
    def open(self) -> Settings:
        """Whoever comes by the plain listener may do everything."""
        return Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": self.broker.bootstrap})

    def grant(self, user: str, access: Access) -> None:
        """Permit a user what a stage needs, and nothing else."""
        self._admin_does("create_acls", [_acl(user, *right) for right in access.rights()])

    def revoke(self, user: str, right: Right) -> None:
        """Take one right away."""
        self._admin_does("delete_acls", [_acl(user, *right, binding=AclBindingFilter)])

    def permit(self, user: str, right: Right) -> None:
        """Give one right."""
        self._admin_does("create_acls", [_acl(user, *right)])

    def _admin_does(self, name: str, bindings: list[Any]) -> None:
        client = AdminClient({"bootstrap.servers": self.broker.bootstrap})
        for done in getattr(client, name)(bindings, request_timeout=30).values():
            done.result(30)

    def settings(self, user: str, **more: str) -> Settings:
        """Of a user that logs in."""
        return Settings.from_environment(self.environment(user) | more)

    def environment(self, user: str) -> dict[str, str]:
        """The settings of a user that logs in, for a process."""
        return {
            "ASHI_KAFKA_BOOTSTRAP": self.login,
            "ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "ASHI_KAFKA_SASL_MECHANISM": "PLAIN",
            "ASHI_KAFKA_USERNAME": user,
            "ASHI_KAFKA_PASSWORD": PASSWORD + user,
        }


def _acl(user: str, kind: str, name: str, operation: Operation, binding: Any = AclBinding) -> Any:
    return binding(
        ResourceType[kind.upper()],
        name,
        ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[operation.name],
        AclPermissionType.ALLOW,
    )


def _properties(ports: Mapping[str, int], users: tuple[str, ...], masters: tuple[str, ...]) -> str:
    listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required " + " ".join(
        f'user_{user}="{PASSWORD}{user}"' for user in users
    )
    text = kafka_server._PROPERTIES
    text = text.replace("listeners=PLAINTEXT://", f"listeners={listeners},PLAINTEXT://", 1)
    text = text.replace("advertised.listeners=PLAINTEXT://", f"advertised.listeners={listeners},PLAINTEXT://", 1)
    text = text.replace("protocol.map=", "protocol.map=LOGIN:SASL_PLAINTEXT,", 1)
    return text + (
        "listener.name.login.sasl.enabled.mechanisms=PLAIN\n"
        f"listener.name.login.plain.sasl.jaas.config={plain};\n"
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
        f"super.users={';'.join(f'User:{user}' for user in ('ANONYMOUS', *masters))}\n"
    )


@contextlib.contextmanager
def secured_kafka(directory: Path, users: tuple[str, ...], masters: tuple[str, ...] = ()) -> Iterator[SecuredKafka]:
    """A started broker that knows these users, whose passwords are `PASSWORD` and the name. `masters` may do all."""
    (login,) = free_ports(1)
    plain = kafka_server._PROPERTIES
    kafka_server._PROPERTIES = _properties({"LOGIN": login}, users, masters)
    broker = Broker(directory)
    try:
        broker.start(child=True, fresh=True)
    finally:
        kafka_server._PROPERTIES = plain
    try:
        yield SecuredKafka(broker, f"{HOST}:{login}")
    finally:
        broker.stop()
