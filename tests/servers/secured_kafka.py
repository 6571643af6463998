"""One real Kafka with several listeners, each secured in another way, and access control lists that it keeps to."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from ashi.contracts.access import Access, Operation
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.kafka_server import PROPERTIES
from servers.free_ports import HOST, free_ports

Right = tuple[str, str, Operation]
"""As in `Access.rights`."""
_numbers = itertools.count()
PASSWORD = "pass-of-"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
PLAIN = ("LOGIN", "TOKEN")
"""Listeners without TLS."""
CUT_OFF_S = 5
"""So long a connection to BOTH lasts that does not log in anew, as the library's never do."""
CERTIFICATES = {
    "TLS": (HOST, None),
    "MUTUAL": (HOST, None),
    "SCRAM": (HOST, None),
    "BOTH": (HOST, datetime(2041, 1, 1, tzinfo=UTC)),
    "EXPIRED": (HOST, datetime(2020, 1, 1, tzinfo=UTC)),
    "ELSEWHERE": ("kafka.example", None),
}
"""Of each listener with TLS: the name in its certificate, and when that expires."""


@dataclass(frozen=True)
class SecuredKafka:
    """A broker that runs.

    Attributes:
        broker: it.
        ports: of its listeners. LOGIN, TOKEN: one logs in, by a password or by a token, without TLS. TLS, MUTUAL,
            SCRAM, BOTH, EXPIRED, ELSEWHERE: with TLS; who comes to MUTUAL must show a certificate, to SCRAM one logs
            in, to BOTH one does both, and is cut off after `CUT_OFF_S`; the certificate of EXPIRED has expired, that of
            ELSEWHERE is for another name.
        authority: of its certificates, and of those that MUTUAL and BOTH take at first.
        ca_file: the authority's certificate.

    """

    broker: Broker
    ports: Mapping[str, int]
    authority: trustme.CA
    ca_file: Path

    @property
    def login(self) -> str:
        """The address of LOGIN."""
        return self.at("LOGIN")

    def at(self, listener: str) -> str:
        """The address of a listener."""
        return f"{HOST}:{self.ports[listener]}"

    def by_token(self, **source: str) -> dict[str, str]:
        """The settings of who logs in by a token."""
        return {
            "ASHI_KAFKA_BOOTSTRAP": self.at("TOKEN"),
            "ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "ASHI_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        } | source

    def by_scram(self, user: str, mechanism: str, listener: str = "SCRAM") -> dict[str, str]:
        """The settings of a user that logs in by a password that is never sent, over TLS."""
        return {
            "ASHI_KAFKA_BOOTSTRAP": self.at(listener),
            "ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "ASHI_KAFKA_CA_FILE": str(self.ca_file),
            "ASHI_KAFKA_SASL_MECHANISM": mechanism,
            "ASHI_KAFKA_USERNAME": user,
            "ASHI_KAFKA_PASSWORD": PASSWORD + user,
        }

    def tls(self, listener: str, **more: str) -> Settings:
        """Of who speaks TLS to a listener and trusts the authority."""
        return Settings.from_environment(
            {
                "ASHI_KAFKA_BOOTSTRAP": self.at(listener),
                "ASHI_KAFKA_SECURITY_PROTOCOL": "SSL",
                "ASHI_KAFKA_CA_FILE": str(self.ca_file),
            }
            | more
        )

    @property
    def open(self) -> Settings:
        """Whoever comes by the plain listener may do everything."""
        return Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": self.broker.bootstrap})

    def grant(self, user: str, access: Access) -> None:
        """Permit a user what a stage needs, and nothing else."""
        self.admin_does("create_acls", [_acl(user, *right) for right in access.rights()])

    def revoke(self, user: str, right: Right) -> None:
        """Take one right away."""
        self.admin_does("delete_acls", [_acl(user, *right, binding=AclBindingFilter)])

    def permit(self, user: str, right: Right) -> None:
        """Give one right."""
        self.admin_does("create_acls", [_acl(user, *right)])

    def let_in(self, users: Iterable[str], password: str = PASSWORD) -> None:
        """Give users the password that SCRAM knows them by: `password` and the name."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            known_by = ScramCredentialInfo(mechanism, 4_096)
            self.admin_does(
                "alter_user_scram_credentials",
                [UserScramCredentialUpsertion(user, known_by, (password + user).encode()) for user in users],
            )

    def show(self, listener: str, issued: trustme.LeafCert, *trusted: trustme.CA) -> None:
        """Let a listener show another certificate to whoever connects from now on, and take those of these."""
        folder, number = self.ca_file.parent, next(_numbers)
        (folder / f"{number}.pem").write_bytes(as_java_reads(issued))
        (folder / f"{number}-trusted.pem").write_bytes(b"".join(each.cert_pem.bytes() for each in trusted))
        changed = {"keystore": folder / f"{number}.pem", "truststore": folder / f"{number}-trusted.pem"}
        entries = [
            ConfigEntry(
                f"listener.name.{listener.lower()}.ssl.{store}.location",
                str(path),
                incremental_operation=AlterConfigOpType.SET,
            )
            for store, path in changed.items()
        ]
        self.admin_does(
            "incremental_alter_configs", [ConfigResource(ResourceType.BROKER, "1", incremental_configs=entries)]
        )

    def admin_does(self, name: str, bindings: list[Any]) -> None:
        """Something that only an administrator may: a method of the foreign client for administration."""
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


def _properties(ports: Mapping[str, int], users: tuple[str, ...], masters: tuple[str, ...]) -> dict[str, str]:
    """What is other than at a broker without any security, at which it listens too."""
    listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required " + " ".join(
        f'user_{user}="{PASSWORD}{user}"' for user in users
    )
    spoken = dict.fromkeys(ports, "SSL") | dict.fromkeys(PLAIN, "SASL_PLAINTEXT")
    spoken |= dict.fromkeys(("SCRAM", "BOTH"), "SASL_SSL")
    protocols = ",".join(f"{name}:{protocol}" for name, protocol in spoken.items())
    properties = {
        "listeners": f"{listeners},{PROPERTIES['listeners']}",
        "advertised.listeners": f"{listeners},{PROPERTIES['advertised.listeners']}",
        "listener.security.protocol.map": f"{protocols},{PROPERTIES['listener.security.protocol.map']}",
    }
    for name in ports:
        if name not in PLAIN:
            properties |= {
                f"listener.name.{name.lower()}.ssl.keystore.type": "PEM",
                f"listener.name.{name.lower()}.ssl.keystore.location": f"{name}.pem",
                f"listener.name.{name.lower()}.ssl.truststore.type": "PEM",
                f"listener.name.{name.lower()}.ssl.truststore.location": "authority.pem",
            }
    for listener in ("scram", "both"):
        properties[f"listener.name.{listener}.sasl.enabled.mechanisms"] = ",".join(SCRAM)
        for mechanism in SCRAM:
            module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            properties[f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config"] = module
    return properties | {
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.both.ssl.client.auth": "required",
        "listener.name.both.connections.max.reauth.ms": str(CUT_OFF_S * 1_000),
        # Which a broker otherwise takes for somebody else's certificate that is shown by mistake.
        "ssl.allow.dn.changes": "true",
        "ssl.allow.san.changes": "true",
        "listener.name.login.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.login.plain.sasl.jaas.config": f"{plain};",
        "listener.name.token.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.token.oauthbearer.sasl.jaas.config": (
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="kafka";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ";".join(f"User:{user}" for user in ("ANONYMOUS", *masters)),
    }


@contextlib.contextmanager
def secured_kafka(directory: Path, users: tuple[str, ...], masters: tuple[str, ...] = ()) -> Iterator[SecuredKafka]:
    """A started broker that knows these users, whose passwords are `PASSWORD` and the name. `masters` may do all."""
    ports = dict(zip((*PLAIN, *CERTIFICATES), free_ports(len(PLAIN) + len(CERTIFICATES)), strict=True))
    authority = trustme.CA()
    (directory / "broker").mkdir(parents=True)
    authority.cert_pem.write_to_path(directory / "broker" / "authority.pem")
    for name, (host, not_after) in CERTIFICATES.items():
        issued = authority.issue_cert(host, not_after=not_after)
        (directory / "broker" / f"{name}.pem").write_bytes(as_java_reads(issued))
    broker = Broker(directory, properties=_properties(ports, users, masters))
    broker.start(child=True, fresh=True)
    kafka = SecuredKafka(broker, ports, authority, directory / "broker" / "authority.pem")
    try:
        kafka.let_in(users)
        yield kafka
    finally:
        broker.stop()


def token(user: str, valid_s: float = 3_600) -> str:
    """A token without a signature, which the broker takes when nothing else is set."""
    claims = {"sub": user, "iat": time.time() - 7_200, "exp": time.time() + valid_s}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
    return b".".join([*parts, b""]).decode()


def as_java_reads(issued: trustme.LeafCert) -> bytes:
    """The key, in the form of PKCS #8, and the certificates."""
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text + b"".join(each.bytes() for each in issued.cert_chain_pems)
