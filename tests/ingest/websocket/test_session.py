"""The connections of a venue, against a server on the loopback: frames, pace, markets that come and go, stopping."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from toy_venue import Handler, Server, ToyVenue, flood, gaps, session, soon, status, subscriptions, until

from ashi.runtime.retry import Backoff
from ashi_ingest.errors import Reason
from ashi_ingest.websocket import connection as connection_module


def test_frames_come_as_bytes_with_their_time_after_the_subscription_is_acknowledged():
    async def run():
        venue = ToyVenue()
        before = subscriptions("accepted")
        async with Server().run() as server, session(venue, ["A", "B"], server) as handler:
            await until(lambda: len(handler.of("subscribed")) == 2)
            started_ns = time.time_ns()
            await server.peers[0].say(n=1)
            await until(lambda: handler.numbers == [1])
        connection, frame, received_ns = handler.frames[-1]
        assert frame == b'{"n": 1}'
        assert started_ns <= received_ns <= time.time_ns()
        assert [kind for kind, *_ in handler.events] == ["open", "subscribed", "subscribed", "closed"]
        assert handler.of("subscribed") == [(connection, ("A",)), (connection, ("B",))]
        assert connection.markets == ("A", "B")
        assert handler.closed[0].last == received_ns
        assert (handler.closed[0].reason, handler.closed[0].replaced) == (Reason.STOPPED, False)
        assert venue.asked_control == [b'{"ack": 1}', b'{"ack": 2}'], "a frame of trades is not asked about"
        assert subscriptions("accepted") - before == 2

    asyncio.run(run())


def test_the_handshake_names_ashi_and_asks_for_no_compression():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
        headers = server.attempts[0][1].headers
        assert headers["User-Agent"] == "ashi"
        assert "Sec-WebSocket-Extensions" not in headers

    asyncio.run(run())


def test_markets_are_split_over_connections_that_are_numbered():
    async def run():
        venue = ToyVenue(markets_per_connection=2)
        async with Server().run() as server, session(venue, list("ABCDE"), server) as handler:
            await until(lambda: len(handler.of("subscribed")) == 5)
        assert [connection.markets for connection in handler.connections] == [("A", "B"), ("C", "D"), ("E",)]
        numbers = [connection.number for connection in handler.connections]
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        assert sorted(peer.markets for peer in server.peers) == [["A", "B"], ["C", "D"], ["E"]]

    asyncio.run(run())


def test_no_markets_need_no_connection():
    async def run():
        async with Server().run() as server, session(ToyVenue(), [], server) as handler:
            await handler.task
        assert server.attempts == []

    asyncio.run(run())


def test_messages_of_a_connection_keep_the_pace():
    async def run():
        venue = ToyVenue(message_interval_s=0.1, markets_per_connection=5)
        async with Server().run() as server, session(venue, list("ABCDEFGHIJ"), server) as handler:
            started_s = time.monotonic()
            await until(lambda: len(handler.of("subscribed")) == 10)
            took_s = time.monotonic() - started_s
        for peer in server.peers:
            assert min(gaps([at_s for at_s, _ in peer.received])) >= 0.1 - server.early_s
        first, second = ([at_s for at_s, _ in peer.received] for peer in server.peers)
        assert second[0] < first[-1], "connections do not wait for each other"
        assert took_s >= 0.4 - server.early_s

    asyncio.run(run())


def test_messages_from_an_address_keep_the_pace_over_all_connections():
    async def run():
        venue = ToyVenue(message_interval_s=0.1, markets_per_connection=2, paced_by="address")
        async with Server().run() as server, session(venue, list("ABCDEFGH"), server) as handler:
            await until(lambda: len(handler.of("subscribed")) == 8)
        assert len(server.peers) == 4
        assert min(gaps([at_s for peer in server.peers for at_s, _ in peer.received])) >= 0.1 - server.early_s

    asyncio.run(run())


def test_attempts_to_connect_keep_the_pace_over_all_connections():
    async def run():
        venue = ToyVenue(connect_interval_s=0.1, markets_per_connection=1)
        async with Server().run() as server:
            server.handshake = lambda number: status(503) if number in (2, 4) else None
            async with session(venue, list("ABCD"), server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 4)
        assert len(server.attempts) == 6
        assert min(gaps([at_s for at_s, _ in server.attempts])) >= 0.1 - server.early_s

    asyncio.run(run())


def test_a_connection_that_waits_for_its_turn_to_subscribe_is_not_silent():
    async def run():
        venue = ToyVenue(message_interval_s=1.0, markets_per_connection=1, paced_by="address", silence_s=0.4)
        async with Server().run() as server, session(venue, ["A", "B"], server) as handler:
            await until(lambda: len(handler.connections) == 2)
            await until(lambda: len([peer for peer in server.peers if peer.received]) == 2)
            ended = {end.connection for end in handler.closed}
            waited = [connection for connection in handler.connections[:2] if connection not in ended]
            assert len(waited) == 1, "the other one had its turn, and was silent then"
            assert waited[0] not in [connection for connection, _ in handler.of("silent")]

    asyncio.run(run())


# Markets that come and go


def test_markets_are_added_where_there_is_room_and_then_on_another_connection():
    async def run():
        venue = ToyVenue(markets_per_connection=3)
        async with Server().run() as server, session(venue, ["A", "B"], server) as handler:
            await until(lambda: len(handler.of("subscribed")) == 2)
            handler.session.add(["A", "C", "D", "E", "C"])
            await until(lambda: len(handler.of("subscribed")) == 5)
            assert sorted(handler.session.markets) == list("ABCDE")
            assert [connection.markets for connection in handler.connections] == [("A", "B", "C"), ("D", "E")]
            assert [peer.markets for peer in server.peers] == [["A", "B", "C"], ["D", "E"]]
            handler.session.add(["F"])
            await until(lambda: len(handler.of("subscribed")) == 6)
            server.peers[0].abort()
            await until(lambda: len(handler.of("subscribed")) == 9)
            assert server.peers[2].markets == ["A", "B", "C"], "those that were added are kept"
        assert [end.reason for end in handler.closed] == [Reason.LOST] + [Reason.STOPPED] * 2

    asyncio.run(run())


def test_markets_that_are_added_keep_the_pace():
    async def run():
        venue = ToyVenue(message_interval_s=0.1)
        async with Server().run() as server, session(venue, ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            handler.session.add(["B", "C", "D"])
            await until(lambda: len(handler.of("subscribed")) == 4)
            assert min(gaps([at_s for at_s, _ in server.peers[0].received])) >= 0.1 - server.early_s

    asyncio.run(run())


def test_a_market_is_removed_and_its_neighbours_do_not_notice():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A", "B", "C"], server) as handler:
            await until(lambda: len(handler.of("subscribed")) == 3)
            handler.session.remove("B")
            handler.session.remove("Z")
            await until(lambda: {"id": 4, "unsubscribe": "B"} in [message for _, message in server.peers[0].received])
            assert handler.connections[0].markets == ("A", "C")
            server.peers[0].abort()
            await until(lambda: len(handler.of("subscribed")) == 5)
            assert server.peers[1].markets == ["A", "C"]
            handler.session.add(["B"])
            await until(lambda: server.peers[1].markets == ["A", "C", "B"])

    asyncio.run(run())


def test_a_session_whose_last_market_is_removed_ends_and_can_be_run_again():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            handler.session.remove("A")
            await asyncio.wait_for(handler.task, 60)
            assert [end.reason for end in handler.closed] == [Reason.UNUSED]
            assert handler.session.markets == []
            handler.session.add(["B"])
            assert len(server.attempts) == 1
            handler.task = asyncio.create_task(handler.session.run(handler.stopping))
            await until(lambda: len(handler.of("subscribed")) == 2)
            assert server.peers[1].markets == ["B"]

    asyncio.run(run())


def test_a_session_whose_last_market_is_removed_while_it_cannot_connect_ends():
    async def run():
        async with Server().run() as server:
            server.handshake = lambda number: status(503)
            async with session(ToyVenue(), ["A"], server) as handler:
                await until(lambda: len(server.attempts) > 2)
                handler.session.remove("A")
                await asyncio.wait_for(handler.task, 60)
        assert handler.connections == []

    asyncio.run(run())


# The end, and failures of the handler


def stopped_in(prepare, *, venue=None, handshake=None, backoff=soon):
    """How long a session takes to stop, seconds, after `prepare(server, handler)`."""

    async def run():
        async with Server().run() as server:
            if handshake is not None:
                server.handshake = handshake
            handler = Handler()
            async with session(venue or ToyVenue(), ["A"], server, handler=handler, backoff=backoff):
                await prepare(server, handler)
                started_s = time.monotonic()
                handler.stopping.set()
                await asyncio.wait_for(handler.task, 60)
                took_s = time.monotonic() - started_s
            for peer in server.peers:
                if peer.request.transport is not None:
                    peer.request.transport.resume_reading()
                await asyncio.wait_for(peer.gone.wait(), 60)
        return took_s, handler

    return asyncio.run(run())


def test_a_flooded_connection_stops_before_its_drain_is_over():
    async def prepare(server, handler):
        await until(lambda: handler.of("subscribed"))
        server.flood = asyncio.create_task(flood(server.peers[0], 1_000_000))  # held, or it may be collected
        server.flood.add_done_callback(lambda task: task.cancelled() or task.exception())
        await until(lambda: len(handler.numbers) > 1000)

    took_s, handler = stopped_in(prepare)
    assert took_s < 4.0
    assert handler.closed[0].reason is Reason.STOPPED


def test_a_connection_whose_venue_does_not_answer_the_close_stops_before_its_drain_is_over():
    async def prepare(server, handler):
        await until(lambda: handler.of("subscribed"))
        server.peers[0].request.transport.pause_reading()

    assert stopped_in(prepare)[0] < 4.0


def test_a_session_that_waits_to_connect_stops_before_its_drain_is_over():
    async def begin(server, handler):
        await until(lambda: handler.of("subscribed"))
        handler.gate.clear()
        handler.connections[0].drop(Reason.BUFFER_FULL)
        await until(lambda: handler.connects == 2)

    assert stopped_in(begin)[0] < 4.0


def test_a_session_in_its_backoff_stops_before_its_drain_is_over():
    async def prepare(server, handler):
        await until(lambda: server.attempts)
        await asyncio.sleep(0.1)

    def long():
        return Backoff(60.0, 60.0, uniform=lambda low, high: high)

    assert stopped_in(prepare, handshake=lambda number: status(503), backoff=long)[0] < 4.0


def test_a_session_that_is_cancelled_tells_of_the_end_of_its_connections():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            handler.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await handler.task
            assert [end.reason for end in handler.closed] == [Reason.STOPPED]
            await asyncio.wait_for(server.peers[0].gone.wait(), 60)

    asyncio.run(run())


@pytest.mark.parametrize("method", ["on_open", "on_subscribed", "on_frames", "on_silent", "on_closed", "may_connect"])
@pytest.mark.parametrize("acknowledges", [True, False])
def test_what_the_handler_raises_ends_the_session(method, acknowledges):
    async def run():
        def fail(*_, **__):
            raise RuntimeError(method)

        venue = ToyVenue(acknowledges=acknowledges, refusal_s=5.0 if acknowledges else 0.05, silence_s=0.4)
        handler = Handler()
        setattr(handler, method, fail)
        async with Server().run() as server, session(venue, ["A"], server, handler=handler):
            with pytest.raises(RuntimeError, match=method):
                await asyncio.wait_for(handler.task, 60)

    asyncio.run(run())


def test_a_flood_of_frames_lets_other_tasks_have_their_turn():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            turns, turns_seen, between = 0, 0, [0]
            one = json.dumps({"n": 1}).encode()

            def seen(connection, frame):
                nonlocal turns_seen
                if turns != turns_seen:
                    turns_seen = turns
                    between.append(0)
                between[-1] += 1

            async def other():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            handler.hook = seen
            task = asyncio.create_task(other())
            await server.peers[0].raw((bytes([0x81, len(one)]) + one) * 20_000)
            await until(lambda: len(handler.numbers) == 20_000)
            task.cancel()
        assert max(between) <= connection_module.FRAMES_PER_TURN

    asyncio.run(run())
