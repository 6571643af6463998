"""A broker that answers and sends its clients on to an address where nobody is."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.connections import clients, errors
from ashi.runtime.kafka.connections.clients import admin_client, make_consumer, make_producer, partitions_of
from ashi.runtime.settings import Settings
from ashi_cli.main import main
from ashi_cli.onemachine.broker import Broker
from ashi_operations.doctor.run import examine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def nobody() -> Iterator[int]:
    """A port where nobody listens, and nobody else can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, nobody: int) -> Iterator[Settings]:
    """A real Kafka whose `advertised.listeners` is wrong, as behind a forgotten port mapping."""
    wrong = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{nobody}"}
    broker = Broker(tmp_path_factory.mktemp("elsewhere"), properties=wrong)
    broker.start(child=True, fresh=True)
    yield Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": broker.bootstrap})
    broker.stop()


async def start_admin(settings: Settings) -> None:
    async with admin_client(settings) as client:
        await client.describe_topics()


async def ask_for_partitions(settings: Settings) -> None:
    await partitions_of(settings, "trades")


async def start_producer(settings: Settings) -> None:
    await make_producer(settings).start()


async def start_consumer(settings: Settings) -> None:
    await make_consumer(settings, "trades", group_id=None).start()


@pytest.mark.parametrize("start", [start_admin, ask_for_partitions, start_producer, start_consumer])
def test_an_advertised_address_that_cannot_be_reached_is_told_from_the_one_that_answered(
    elsewhere: Settings, nobody: int, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "START_TIMEOUT_S", 1.0)
    with pytest.raises(BrokerError) as caught:
        asyncio.run(start(elsewhere))
    message = str(caught.value)
    assert f"Kafka at {elsewhere.kafka_bootstrap} (ASHI_KAFKA_BOOTSTRAP) answers" in message
    assert f"sends us on to 127.0.0.1:{nobody}, its broker 1, which cannot be reached from here" in message
    assert "`advertised.listeners`" in message


@pytest.mark.parametrize("command", ["topics check", "topics create", "aggregate reconfigure"])
def test_every_command_that_does_not_wait_for_kafka_says_so(
    elsewhere: Settings,
    nobody: int,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ASHI_KAFKA_BOOTSTRAP", elsewhere.kafka_bootstrap)
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    assert f"sends us on to 127.0.0.1:{nobody}" in said
    assert "`ashi broker start`" not in said


def test_the_doctor_names_the_address_that_kafka_sends_its_clients_on_to(elsewhere: Settings, nobody: int) -> None:
    report = asyncio.run(examine(elsewhere, [], store=False))
    told = {check.code: check for check in report.checks if check.state == "error"}
    assert f"Kafka sends its clients on to 127.0.0.1:{nobody}, which cannot be reached" in told["kafka.reach"].text
    assert told["kafka.reach"].command == f"nc -vz 127.0.0.1 {nobody}"
    assert report.exit == 2


def test_a_cluster_of_which_nothing_answers_any_more_has_no_wrong_listener(
    settings: Settings, nobody: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        hosts = (("127.0.0.1", nobody, None),)

        class cluster:  # noqa: N801
            @staticmethod
            def brokers() -> list[Any]:
                return [type("Broker", (), {"nodeId": 1, "host": "127.0.0.1", "port": nobody})]

    assert asyncio.run(errors.unreachable_broker(Client())) is None
