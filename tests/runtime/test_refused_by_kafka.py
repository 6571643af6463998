"""What a Kafka that is there and does not let us in is told as: the cause, and what to set."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from ashi.contracts.errors import BrokerError, BrokerUnreachableError
from ashi.runtime.kafka.clients import admin_client, make_consumer, make_producer
from secured_kafka import SecuredKafka, secured_kafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ashi.runtime.settings import Settings

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with secured_kafka(tmp_path_factory.mktemp("secured"), ("ashi",), ("ashi",)) as kafka:
        yield kafka


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
