"""What a Kafka that is there and does not let us in is told as: the cause, and what to set."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from typing import TYPE_CHECKING

import pytest
import trustme
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from ashi.contracts.errors import BrokerError, BrokerUnreachableError
from ashi.runtime.kafka.connections.clients import admin_client, make_consumer, make_producer, security_options
from ashi.runtime.settings import Settings
from servers.secured_kafka import SCRAM, token

if TYPE_CHECKING:
    from pathlib import Path

    from servers.secured_kafka import SecuredKafka

pytestmark = pytest.mark.kafka


async def start_producer(settings: Settings) -> None:
    producer = make_producer(settings)
    await producer.start()
    await producer.stop()


async def start_consumer(settings: Settings) -> None:
    consumer = make_consumer(settings, group_id=None)
    await consumer.start()
    await consumer.topics()
    await consumer.stop()


async def start_admin(settings: Settings) -> None:
    async with admin_client(settings) as client:
        await client.describe_topics()


STARTS = (start_admin, start_producer, start_consumer)
CAUSES = {
    "wrong-password": (
        {"ASHI_KAFKA_PASSWORD": "wrong"},
        "refuses the login of 'ashi': .*[Ii]nvalid username or password. The user is unknown there or the password",
    ),
    "unknown-user": ({"ASHI_KAFKA_USERNAME": "nobody"}, "refuses the login of 'nobody'"),
    "other-mechanism": (
        {"ASHI_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"},
        "knows no login by SCRAM-SHA-256: correct ASHI_KAFKA_SASL_MECHANISM",
    ),
}


def test_who_logs_in_rightly_is_let_in(secured: SecuredKafka) -> None:
    for start in STARTS:
        asyncio.run(start(secured.settings("ashi")))


@pytest.mark.parametrize("mechanism", SCRAM)
def test_who_logs_in_by_scram_over_tls_is_let_in_and_who_does_not_know_the_password_is_told(
    secured: SecuredKafka, mechanism: str
) -> None:
    right = secured.by_scram("ashi", mechanism)
    for start in STARTS:
        asyncio.run(start(Settings.from_environment(right)))
    for wrong, who in (({"ASHI_KAFKA_PASSWORD": "wrong"}, "ashi"), ({"ASHI_KAFKA_USERNAME": "nobody"}, "nobody")):
        with pytest.raises(BrokerError, match=f"refuses the login of '{who}'") as caught:
            asyncio.run(start_admin(Settings.from_environment(right | wrong)))
        assert not isinstance(caught.value, BrokerUnreachableError), "it would be waited for"
        assert secured.at("SCRAM") in str(caught.value)


@pytest.mark.parametrize("cause", CAUSES)
def test_a_login_that_is_refused_is_told_with_its_cause(secured: SecuredKafka, cause: str) -> None:
    wrong, words = CAUSES[cause]
    for start in STARTS:
        with pytest.raises(BrokerError, match=words) as caught:
            asyncio.run(start(secured.settings("ashi", **wrong)))
        assert not isinstance(caught.value, BrokerUnreachableError), "it would be waited for"
        assert secured.login in str(caught.value)


def test_a_login_where_there_is_none_and_none_where_there_is_one_are_told(secured: SecuredKafka) -> None:
    with pytest.raises(BrokerError, match=r"takes no login: set ASHI_KAFKA_SECURITY_PROTOCOL to PLAINTEXT$"):
        asyncio.run(start_admin(secured.settings("ashi", ASHI_KAFKA_BOOTSTRAP=secured.broker.bootstrap)))
    with pytest.raises(BrokerError, match=r"wants a login: set ASHI_KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT, and"):
        asyncio.run(start_admin(dataclasses.replace(secured.open, kafka_bootstrap=secured.login)))


def certificate(authority: trustme.CA, folder: Path, name: str) -> dict[str, str]:
    """Files of a certificate for a client, and the settings that name them."""
    issued = authority.issue_cert(name)
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return {"ASHI_KAFKA_CERT_FILE": str(folder / "cert.pem"), "ASHI_KAFKA_KEY_FILE": str(folder / "key.pem")}


def test_who_speaks_tls_rightly_is_let_in(secured: SecuredKafka, tmp_path: Path) -> None:
    asyncio.run(start_admin(secured.tls("TLS")))
    asyncio.run(start_admin(secured.tls("MUTUAL", **certificate(secured.authority, tmp_path, "client.example"))))


TLS_CAUSES = {
    "expired": ("EXPIRED", "shows a certificate that has expired: renew it, or correct the clock"),
    "wrong-name": ("ELSEWHERE", "shows a certificate for another name than '127.0.0.1'"),
    "none-of-ours": ("MUTUAL", "refuses our certificate, or wants one: .*ASHI_KAFKA_CERT_FILE"),
}


@pytest.mark.parametrize("cause", TLS_CAUSES)
def test_tls_that_fails_is_told_with_its_cause(secured: SecuredKafka, cause: str) -> None:
    listener, words = TLS_CAUSES[cause]
    for start in STARTS:
        with pytest.raises(BrokerError, match=words) as caught:
            asyncio.run(start(secured.tls(listener)))
        assert not isinstance(caught.value, BrokerUnreachableError), "it would be waited for"


def test_an_authority_that_is_not_trusted_and_a_client_that_is_not_are_told(
    secured: SecuredKafka, tmp_path: Path
) -> None:
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(BrokerError, match=r"shows a certificate that is not trusted .*ASHI_KAFKA_CA_FILE"):
        asyncio.run(start_admin(secured.tls("TLS", ASHI_KAFKA_CA_FILE=str(tmp_path / "other.pem"))))
    with pytest.raises(BrokerError, match=r"refuses our certificate, or wants one: .*ASHI_KAFKA_CERT_FILE"):
        asyncio.run(start_admin(secured.tls("MUTUAL", **certificate(other, tmp_path, "client.example"))))


def test_tls_where_there_is_none_and_none_where_there_is_tls_are_told(secured: SecuredKafka) -> None:
    with pytest.raises(BrokerError, match=r"speaks no TLS and we do: set ASHI_KAFKA_SECURITY_PROTOCOL to PLAINTEXT$"):
        asyncio.run(start_admin(secured.tls("TLS", ASHI_KAFKA_BOOTSTRAP=secured.broker.bootstrap)))
    with pytest.raises(BrokerError, match=r"speaks TLS and we do not: set ASHI_KAFKA_SECURITY_PROTOCOL to SSL$"):
        asyncio.run(start_admin(dataclasses.replace(secured.open, kafka_bootstrap=secured.at("TLS"))))


def test_a_certificate_that_is_replaced_is_shown_from_the_next_connection_on(
    secured: SecuredKafka, tmp_path: Path
) -> None:
    files = certificate(trustme.CA(), tmp_path, "client.example")  # of an authority that the broker does not know

    async def main() -> None:
        client = AIOKafkaClient(
            bootstrap_servers=secured.at("MUTUAL"), **security_options(secured.tls("MUTUAL", **files))
        )
        with pytest.raises(KafkaConnectionError):
            await client.bootstrap()
        certificate(secured.authority, tmp_path, "client.example")
        await client.bootstrap()
        (tmp_path / "cert.pem").write_text("half a certi")
        assert await client.ready(1)  # with what was read before
        await client.close()

    asyncio.run(main())


def test_who_logs_in_by_a_token_is_let_in_and_a_token_that_is_renewed_is_used(
    secured: SecuredKafka, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(token("ashi", valid_s=-60))
    by_file = Settings.from_environment(secured.by_token(ASHI_KAFKA_TOKEN_FILE=str(path)))
    with pytest.raises(BrokerError, match=r"refuses the token: .*ASHI_KAFKA_TOKEN_FILE") as caught:
        asyncio.run(start_admin(by_file))  # with which every stage begins
    assert not isinstance(caught.value, BrokerUnreachableError), "it would be waited for"
    path.write_text(token("ashi") + "\n")
    for start in STARTS:
        asyncio.run(start(by_file))
    path.write_text("")
    with pytest.raises(BrokerError, match=r"no token to log in with: ASHI_KAFKA_TOKEN_FILE .* is empty"):
        asyncio.run(start_admin(by_file))


def test_a_command_that_prints_a_token_is_run_and_what_it_says_when_it_fails_is_told(
    secured: SecuredKafka, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(token("ashi"))
    asyncio.run(start_admin(Settings.from_environment(secured.by_token(ASHI_KAFKA_TOKEN_COMMAND=f"cat '{path}'"))))
    failing = f"{sys.executable} -c 'import sys; sys.exit(\"who are you\")'"
    with pytest.raises(BrokerError, match=r"ASHI_KAFKA_TOKEN_COMMAND .* status 1 and said 'who are you'"):
        asyncio.run(start_admin(Settings.from_environment(secured.by_token(ASHI_KAFKA_TOKEN_COMMAND=failing))))
