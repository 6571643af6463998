"""Brokers whose hosts are out of reach, of which nobody tells a client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import aiokafka.client
import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.structs import BrokerMetadata

from ashi.runtime.kafka.connections import links
from ashi.runtime.kafka.connections.links import watch_links

AWAY, HERE = 1, 2


class Connection:
    """What the library has made, as far as anybody asks."""

    def __init__(self, sock: socket.socket | None) -> None:
        """`sock` None: it has ended."""
        self._writer = self
        self._sock = sock

    def connected(self) -> bool:
        return self._sock is not None

    def get_extra_info(self, name: str) -> socket.socket | None:
        assert name == "socket"
        return self._sock


class Away(NamedTuple):
    """What was asked of a client that knows of two brokers; nothing ever comes back from the first."""

    make: Callable[[], Any]
    """Makes the client, where a loop runs."""
    sock: socket.socket
    """Of its connections."""
    connected_to: list[str]
    asked: list[str]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    async def create_conn(host: str, port: int, **_: Any) -> Any:
        given.connected_to.append(host)
        if host == "away":
            await asyncio.Event().wait()
        return Connection(given.sock)

    def make() -> Any:
        client = AIOKafkaClient(bootstrap_servers="away:9092")
        brokers = {AWAY: BrokerMetadata(AWAY, "away", 9092, None), HERE: BrokerMetadata(HERE, "here", 9092, None)}
        client.cluster.broker_metadata = brokers.get
        client.force_metadata_update = lambda: given.asked.append("who leads?")
        return client

    monkeypatch.setattr(aiokafka.client, "create_conn", create_conn)
    with socket.socket() as sock:
        given = Away(make, sock, [], [])
        yield given


def test_a_broker_out_of_reach_holds_up_no_connection_to_another_and_is_given_up_in_time(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "CONNECT_S", 0.2)

    async def scenario() -> None:
        client = away.make()
        watch_links(client)
        loop = asyncio.get_running_loop()
        in_vain = [loop.create_task(client._get_conn(AWAY)) for _ in range(3)]
        await asyncio.sleep(0)
        assert await client._get_conn(HERE) is await client._get_conn(HERE)
        assert not any(each.done() for each in in_vain), "it was made beside those that wait"
        assert await asyncio.gather(*in_vain) == [None] * 3

    asyncio.run(scenario())
    assert away.connected_to == ["away", "here"], (
        "those who waited for the same broker do not wait anew, one after another"
    )
    assert away.asked == ["who leads?"]


def test_where_a_connection_has_ended_the_next_is_not_waited_for_as_long(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "AGAIN_S", 0.1)

    async def scenario() -> None:
        client = away.make()
        watch_links(client)
        client._conns[AWAY, ConnectionGroup.DEFAULT] = Connection(None)
        assert await client._get_conn(AWAY) is None
        with pytest.raises(TimeoutError):  # the one after that may take `CONNECT_S`
            async with asyncio.timeout(0.5):
                await client._get_conn(AWAY)

    asyncio.run(scenario())
    assert away.asked == ["who leads?"]


def test_the_library_alone_lets_one_wait_for_the_other(away: Away) -> None:
    """Why there is `watch_links`; when this fails, look whether it is still needed."""

    async def scenario() -> None:
        client = away.make()
        in_vain = asyncio.create_task(client._get_conn(AWAY))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client._get_conn(HERE)
        in_vain.cancel()

    asyncio.run(scenario())


def test_a_connection_is_given_up_when_nothing_comes_back_of_its_host(away: Away) -> None:
    async def scenario() -> None:
        client = away.make()
        watch_links(client)
        await client._get_conn(HERE)

    asyncio.run(scenario())
    assert away.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert away.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == links.SILENCE_S * 1_000
        assert away.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < links.SILENCE_S


def test_one_who_is_told_to_stop_while_he_connects_stops(away: Away) -> None:
    async def scenario() -> None:
        client = away.make()
        watch_links(client)
        connecting = asyncio.create_task(client._get_conn(AWAY))
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    asyncio.run(scenario())
