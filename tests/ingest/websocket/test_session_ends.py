"""Connections that end, fall silent or cannot be made, and when the next one is tried."""

from __future__ import annotations

import asyncio
import time

import pytest
from toy_venue import Server, ToyVenue, flood, gaps, session, status, until

from ashi.contracts.errors import VenueError
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.retry import Backoff
from ashi_ingest.errors import Reason
from ashi_ingest.websocket import session as session_module

# Connections that end


def first_end(end, *, ends=1, **limits):
    """Run a session whose first connection ends as `end(server, peer, handler)` does it; gives what the handler saw."""

    async def run():
        async with Server().run() as server, session(ToyVenue(**limits), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            await end(server, server.peers[0], handler)
            await until(lambda: len(handler.of("subscribed")) == 1 + ends)
            await server.peers[-1].say(n=77)
            await until(lambda: handler.numbers and handler.numbers[-1] == 77)
        return handler

    return asyncio.run(run())


def test_frames_before_a_close_frame_are_delivered_and_the_next_connection_follows():
    async def end(server, peer, handler):
        await flood(peer, 500)
        await peer.socket.close(code=1012, message=b"restart")

    handler = first_end(end)
    assert handler.numbers[:-1] == list(range(500))
    assert handler.closed[0].reason is Reason.CLOSED
    assert "1012" in handler.closed[0].detail
    assert "restart" in handler.closed[0].detail


def test_half_a_frame_and_then_nothing_is_a_lost_connection():
    async def end(server, peer, handler):
        await peer.say(n=1)
        await peer.raw(b"\x81\x7e\x01\x00" + b'{"n": 2')
        await until(lambda: handler.numbers == [1])
        peer.abort()

    handler = first_end(end)
    assert handler.numbers == [1, 77]
    assert handler.closed[0].reason is Reason.LOST


def test_a_frame_of_another_protocol_ends_the_connection():
    async def end(server, peer, handler):
        await peer.raw(b"HTTP/1.1 500 Internal Server Error\r\nServer: proxy\r\nContent-Length: 0\r\nX: y\r\n\r\n" * 2)

    assert first_end(end).closed[0].reason is Reason.PROTOCOL


def test_a_frame_that_is_too_large_ends_the_connection(monkeypatch):
    monkeypatch.setattr(session_module, "MAX_FRAME", 1000)

    async def end(server, peer, handler):
        await peer.say(n=1)
        await peer.say(x="y" * 1000)

    handler = first_end(end)
    assert handler.numbers == [1, 77]
    assert handler.closed[0].reason is Reason.PROTOCOL
    assert "too large" in handler.closed[0].detail


def test_a_frame_that_is_not_utf8_is_handed_over_as_it_is():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            await server.peers[0].raw(b"\x81\x05\xff\xfe" + b'"n"')
            await until(lambda: handler.frames[-1][1] == b'\xff\xfe"n"')
            assert handler.closed == []

    asyncio.run(run())


def test_fragments_of_a_message_are_put_together():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            await server.peers[0].raw(b'\x01\x04{"n"' + b"\x00\x02: " + b"\x80\x025}")
            await until(lambda: handler.numbers == [5])

    asyncio.run(run())


def test_a_ping_that_is_not_answered_ends_the_connection():
    async def run():
        async with Server().run() as server:
            server.protocol = {"autoping": False}
            async with session(ToyVenue(ping_interval_s=0.1), ["A"], server) as handler:
                await until(lambda: handler.closed)
        assert handler.closed[0].reason is Reason.LOST
        assert "ping" in handler.closed[0].detail

    asyncio.run(run())


def test_silence_is_told_at_half_time_and_ends_the_connection_at_full_time():
    async def run():
        async with Server().run() as server, session(ToyVenue(silence_s=0.6), ["A"], server) as handler:
            await until(lambda: handler.of("silent"))
            assert handler.closed == []
            await server.peers[0].say(n=1)
            await until(lambda: len(handler.of("silent")) == 2)
            assert handler.closed == []
            spoken_s = time.monotonic()
            await until(lambda: handler.closed)
            assert time.monotonic() - spoken_s >= 0.5
            assert [silent for connection, silent in handler.of("silent")] == [True, False, True]
            assert handler.closed[0].reason is Reason.SILENT
            await until(lambda: len(server.peers) == 2)

    asyncio.run(run())


@pytest.mark.slow
def test_a_feed_that_speaks_is_never_silent():
    async def run():
        async with Server().run() as server, session(ToyVenue(silence_s=2.0), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            for number in range(60):
                await server.peers[0].say(n=number)
                await asyncio.sleep(0.05)
        assert handler.of("silent") == []
        assert [closed.reason for closed in handler.closed] == [Reason.STOPPED]

    asyncio.run(run())


def test_no_frame_follows_a_drop_and_the_next_connection_waits_until_it_may_connect():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))

            def drop(connection, frame):
                if b'"n": 10}' in frame:
                    handler.gate.clear()
                    connection.drop(Reason.BUFFER_FULL)
                    connection.drop(Reason.BUFFER_FULL)

            handler.hook = drop
            await flood(server.peers[0], 2000)
            await until(lambda: handler.closed and handler.connects == 2)
            assert handler.numbers == list(range(11))
            assert len(server.attempts) == 1
            await asyncio.wait_for(server.peers[0].gone.wait(), 60)
            handler.gate.set()
            await until(lambda: len(handler.of("subscribed")) == 2)
        assert (handler.closed[0].reason, handler.closed[0].replaced) == (Reason.BUFFER_FULL, False)
        assert [kind for kind, *_ in handler.events] == ["open", "subscribed", "closed"] * 2

    asyncio.run(run())


def test_connections_that_break_after_their_first_frame_are_tried_ever_more_seldom():
    async def run():
        waits = []

        class Noted(Backoff):
            def next_s(self):
                waits.append(super().next_s())
                return waits[-1] / 100

        async with Server().run() as server:

            async def answer(peer, message):
                await server.acknowledge(peer, message)
                await peer.say(n=peer.number)
                peer.abort()

            server.answer = answer
            async with session(
                ToyVenue(), ["A"], server, backoff=lambda: Noted(1.0, 8.0, uniform=lambda low, high: high)
            ):
                await until(lambda: len(waits) == 5)
        assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]

    asyncio.run(run())


# Connections that cannot be made


def test_after_too_many_requests_nobody_connects_until_the_venue_allows_it():
    async def run():
        venue = ToyVenue(markets_per_connection=1, connect_interval_s=0.2)
        before = metrics.reconnects.labels("toy", "limited")._value.get()
        async with Server().run() as server:
            server.handshake = lambda number: status(429, Retry_After="1") if number == 1 else None
            async with session(venue, ["A", "B"], server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 2)
        first_s, *others_s = [at_s for at_s, _ in server.attempts]
        assert min(others_s) - first_s >= 1.0 - server.early_s
        assert metrics.reconnects.labels("toy", "limited")._value.get() - before == 1

    asyncio.run(run())


def test_a_venue_that_is_not_there_yet_is_tried_until_it_is():
    async def run():
        before = metrics.reconnects.labels("toy", "unreachable")._value.get()
        async with Server().run() as server:
            port = int(server.url.split(":")[2].split("/")[0])
        async with session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.connects >= 3)
            assert not handler.task.done()
            async with Server().run(port) as again:
                await until(lambda: handler.of("subscribed"))
                assert again.peers[0].markets == ["A"]
        assert metrics.reconnects.labels("toy", "unreachable")._value.get() - before >= 2

    asyncio.run(run())


@pytest.mark.parametrize("code", [500, 503, 302, 200])
def test_a_venue_in_maintenance_is_tried_again(code):
    async def run():
        async with Server().run() as server:
            server.handshake = lambda number: status(code) if number < 3 else None
            async with session(ToyVenue(), ["A"], server) as handler:
                await until(lambda: handler.of("subscribed"))
        assert len(server.attempts) == 3

    asyncio.run(run())


def test_a_wrong_url_ends_the_session_and_all_of_its_connections_with_advice():
    async def run():
        venue = ToyVenue(markets_per_connection=1)
        async with Server().run() as server:
            server.handshake = lambda number: status(503 if number < 3 else 404)
            async with session(venue, ["A", "B", "C"], server) as handler:
                with pytest.raises(VenueError, match=r"HTTP 404.*ASHI_WEBSOCKET_URL"):
                    await asyncio.wait_for(handler.task, 60)
        assert sorted(closed.reason for closed in handler.closed) == [Reason.STOPPED] * len(handler.connections)

    asyncio.run(run())


def test_a_url_that_is_none_ends_the_session():
    async def run():
        async with session(ToyVenue(), ["A"], None, url="ws://") as handler:
            with pytest.raises(VenueError, match="ASHI_WEBSOCKET_URL"):
                await asyncio.wait_for(handler.task, 60)

    asyncio.run(run())


@pytest.mark.parametrize("code", [401, 403, 404, 451])
def test_a_venue_that_has_let_us_in_once_and_now_does_not_is_tried_again_slowly(code, monkeypatch):
    monkeypatch.setattr(session_module, "SENT_AWAY_S", 0.3)

    async def run():
        venue = ToyVenue(markets_per_connection=1)
        async with Server().run() as server:
            server.handshake = lambda number: status(code) if 2 < number < 6 else None
            async with session(venue, ["A", "B"], server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 2)
                lost_s = time.monotonic()
                server.peers[0].abort()
                await until(lambda: len(handler.of("subscribed")) == 3)
                assert not handler.task.done()
                assert len(handler.closed) == 1, "the other one has nothing to do with it"
        (told, *_) = handler.of("cannot connect")
        assert told[0] == handler.connections[0].markets
        assert told[1] is Reason.REJECTED
        assert f"HTTP {code}" in told[2]
        tries_s = [at_s for at_s, _ in server.attempts if at_s > lost_s]
        assert len(tries_s) == 4
        assert min(gaps(tries_s)) >= 0.3 - server.early_s

    asyncio.run(run())


def test_a_venue_that_has_let_us_in_once_and_says_when_to_come_back_is_left_alone_until_then(monkeypatch):
    monkeypatch.setattr(session_module, "SENT_AWAY_S", 0.1)

    async def run():
        async with Server().run() as server:
            server.handshake = lambda number: status(403, Retry_After="1") if number == 2 else None
            async with session(ToyVenue(), ["A"], server) as handler:
                await until(lambda: handler.of("subscribed"))
                server.peers[0].abort()
                await until(lambda: len(handler.of("subscribed")) == 2)
        assert server.attempts[2][0] - server.attempts[1][0] >= 1.0 - server.early_s

    asyncio.run(run())


def test_those_who_are_told_when_to_come_back_do_not_come_back_together():
    error = session_module._CannotConnectError(Reason.LIMITED, "HTTP 429", 100.0)
    waits_s = [session_module._least_wait_s(error) or 0.0 for _ in range(50)]
    assert min(waits_s) >= 100.0
    assert 5.0 < max(waits_s) - min(waits_s) <= 10.0
