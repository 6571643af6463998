"""Connections that are renewed before the venue ends them: no frame is lost between the two."""

from __future__ import annotations

import asyncio
import time

import pytest
from toy_venue import Server, ToyVenue, flood, session, status, until

from ashi.runtime.retry import Backoff
from ashi_ingest.errors import Reason
from ashi_ingest.websocket import connection as connection_module
from ashi_ingest.websocket import session as session_module


@pytest.fixture
def _short_overlap(monkeypatch):
    monkeypatch.setattr(session_module, "OVERLAP_S", 0.1)


# Renewal


async def publish(server, published, ended):
    """Number after number to every connection that has subscribed, as a venue does."""
    while not ended.is_set():
        number = len(published)
        published.append(number)
        for peer in list(server.peers):
            if peer.received and not peer.socket.closed and not peer.gone.is_set():
                try:
                    await peer.say(n=number)
                except ConnectionError:
                    continue
        await asyncio.sleep(0.001)


@pytest.mark.usefixtures("_short_overlap")
@pytest.mark.slow
def test_no_frame_is_lost_between_connections_that_are_renewed():
    async def run():
        published: list[int] = []
        ended = asyncio.Event()
        async with Server().run() as server, session(ToyVenue(lifetime_s=0.7), ["A", "B"], server) as handler:
            await until(lambda: len(handler.of("subscribed")) == 2)
            publisher = asyncio.create_task(publish(server, published, ended))
            await until(lambda: len(handler.closed) == 3)
            ended.set()
            await publisher
            await until(lambda: handler.numbers and max(handler.numbers) == published[-1])
            closed = list(handler.closed)
        assert set(handler.numbers) == set(published)
        assert len(handler.numbers) > len(published), "both deliver for a while"
        assert [(end.reason, end.replaced) for end in closed] == [(Reason.RENEWED, True)] * 3
        kinds = [kind for kind, *_ in handler.events[:7]]
        assert kinds == ["open", "subscribed", "subscribed", "open", "subscribed", "subscribed", "closed"]

    asyncio.run(run())


def test_what_the_venue_sent_over_the_old_connection_before_its_close_is_read(monkeypatch):
    monkeypatch.setattr(session_module, "OVERLAP_S", 0.0)

    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:

            async def answer(peer, message):
                if peer.number == 2:
                    await flood(server.peers[0], 3000)
                await server.acknowledge(peer, message)

            server.answer = answer
            handler.hook = lambda connection, frame: time.sleep(0.0001)
            await until(lambda: handler.of("subscribed"))
            await server.peers[0].say(closing="shutdown")
            await until(lambda: handler.closed)
        assert handler.numbers == list(range(3000))
        assert handler.closed[0].reason is Reason.RENEWED

    asyncio.run(run())


@pytest.mark.usefixtures("_short_overlap")
def test_an_announced_close_brings_the_next_connection_first():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            await server.peers[0].say(closing="serverShutdown")
            await until(lambda: handler.closed)
            assert len(handler.of("subscribed")) == 2
            assert not server.peers[1].gone.is_set()
        assert handler.closed[0].connection is handler.connections[0]
        assert (handler.closed[0].reason, handler.closed[0].replaced) == (Reason.RENEWED, True)

    asyncio.run(run())


@pytest.mark.usefixtures("_short_overlap")
def test_an_old_connection_delivers_until_it_can_be_replaced():
    async def run():
        async with Server().run() as server:
            server.handshake = lambda number: status(503) if 1 < number < 5 else None
            async with session(ToyVenue(), ["A"], server) as handler:
                await until(lambda: handler.of("subscribed"))
                await server.peers[0].say(closing="serverShutdown")
                await until(lambda: len(server.attempts) == 4)
                assert handler.closed == []
                await server.peers[0].say(n=1)
                await until(lambda: handler.numbers == [1])
                await until(lambda: handler.closed)
        assert handler.closed[0].replaced
        assert len(server.peers) == 2

    asyncio.run(run())


@pytest.mark.usefixtures("_short_overlap")
def test_a_next_connection_that_breaks_before_it_delivers_leaves_the_old_one_in_place():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if peer.number == 2:
                    peer.abort()
                else:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(), ["A"], server) as handler:
                await until(lambda: handler.of("subscribed"))
                await server.peers[0].say(closing="serverShutdown")
                await until(lambda: len(handler.closed) == 2)
        ends = [(end.connection, end.reason, end.replaced) for end in handler.closed[:2]]
        assert ends == [
            (handler.connections[1], Reason.LOST, True),
            (handler.connections[0], Reason.RENEWED, True),
        ]

    asyncio.run(run())


def test_a_next_connection_that_breaks_while_both_deliver_leaves_the_old_one_in_place():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            await server.peers[0].say(closing="serverShutdown")
            await until(lambda: len(handler.of("subscribed")) == 2)
            server.peers[1].abort()
            await until(lambda: len(handler.of("subscribed")) == 3)
            assert [(end.connection, end.replaced) for end in handler.closed] == [(handler.connections[1], True)]
            assert not server.peers[0].gone.is_set()

    asyncio.run(run())


def test_an_old_connection_that_ends_before_the_next_one_delivers_is_not_replaced():
    async def run():
        async with Server().run() as server:
            held = asyncio.Event()

            async def answer(peer, message):
                if peer.number == 2:
                    await held.wait()
                await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(), ["A"], server) as handler:
                await until(lambda: handler.of("subscribed"))
                await server.peers[0].say(closing="serverShutdown")
                await until(lambda: len(server.peers) == 2 and server.peers[1].received)
                server.peers[0].abort()
                await until(lambda: handler.closed)
                held.set()
                await until(lambda: len(handler.of("subscribed")) == 2)
        assert (handler.closed[0].reason, handler.closed[0].replaced) == (Reason.LOST, False)
        assert len(server.peers) == 2

    asyncio.run(run())


@pytest.mark.slow
def test_announcements_that_do_not_end_do_not_bring_ever_faster_connections():
    async def run():
        waits = []

        class Noted(Backoff):
            def next_s(self):
                waits.append(super().next_s())
                return waits[-1] / 1000

        async with Server().run() as server:

            async def answer(peer, message):
                await peer.say(closing="serverShutdown")
                await server.acknowledge(peer, message)

            server.answer = answer
            async with session(
                ToyVenue(), ["A"], server, backoff=lambda: Noted(5.0, 20.0, uniform=lambda low, high: high)
            ):
                await until(lambda: len(waits) == 3)
        assert waits == [5.0, 10.0, 20.0]

    asyncio.run(run())


def test_a_market_refused_at_the_renewal_only_ends_the_session_and_both_connections():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if peer.number == 1:
                    await server.acknowledge(peer, message)
                else:
                    await peer.say(refused=message["id"], reason="delisted")

            server.answer = answer
            async with session(ToyVenue(), ["A"], server) as handler:
                await until(lambda: handler.of("subscribed"))
                await server.peers[0].say(closing="serverShutdown")
                await asyncio.wait_for(handler.task, 60)
        assert handler.of("refused") == [("A", "delisted")]
        assert [end.reason for end in handler.closed] == [Reason.REFUSED] * 2

    asyncio.run(run())


@pytest.mark.usefixtures("_short_overlap")
def test_a_market_that_neither_connection_gets_does_not_keep_the_old_one_open():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if message["markets"] == ["A"]:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(refusal_s=0.2), ["A", "B"], server) as handler:
                await until(lambda: handler.of("deferred"))
                await server.peers[0].say(closing="serverShutdown")
                await until(lambda: handler.closed)
        assert (handler.closed[0].reason, handler.closed[0].replaced) == (Reason.RENEWED, True)

    asyncio.run(run())


@pytest.mark.usefixtures("_short_overlap")
def test_a_market_that_the_next_connection_does_not_get_keeps_the_old_one_open_until_it_does():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if peer.number == 1 or message.get("markets") == ["A"]:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(refusal_s=0.1), ["A", "B"], server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 2)
                await server.peers[0].say(closing="serverShutdown")
                await until(lambda: len(handler.of("deferred")) >= 2)
                handler.connections[1].resubscribe("A")
                await until(lambda: len(handler.of("subscribed")) == 4)
                await asyncio.sleep(0.2)  # longer than both deliver otherwise
                assert handler.closed == []
                server.answer = server.acknowledge
                await until(lambda: handler.closed)
        assert handler.closed[0].connection is handler.connections[0]
        assert (handler.closed[0].reason, handler.closed[0].replaced) == (Reason.RENEWED, True)

    asyncio.run(run())


@pytest.mark.slow
def test_connections_of_one_age_are_not_renewed_at_once():
    low, high = connection_module.RENEW_BETWEEN

    async def run():
        venue = ToyVenue(markets_per_connection=1, lifetime_s=4.0)
        async with Server().run() as server, session(venue, [f"M{number}" for number in range(12)], server) as handler:
            await until(lambda: len(handler.of("subscribed")) == 12)
            await until(lambda: len(server.attempts) == 24)
        renewed_s = sorted(at_s for at_s, _ in server.attempts)[12:]
        assert renewed_s[-1] - renewed_s[0] > (high - low) * 4.0 / 4
        first_s = min(at_s for at_s, _ in server.attempts)
        assert renewed_s[0] - first_s >= low * 4.0 - server.early_s

    asyncio.run(run())
