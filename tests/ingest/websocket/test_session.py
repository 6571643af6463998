"""The connections of a venue, against a server on the loopback: subscribing, silence, ends, renewal, stopping."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise

import pytest
from aiohttp import web
from toy_venue import Handler, Server, ToyVenue, session, soon, until

from ashi.contracts.errors import VenueError
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.retry import Backoff
from ashi_ingest.errors import Reason
from ashi_ingest.websocket import connection as connection_module
from ashi_ingest.websocket import session as session_module


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "socks_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def _short_overlap(monkeypatch):
    monkeypatch.setattr(session_module, "OVERLAP_S", 0.1)


class NotedBackoff(Backoff):
    """Waits as long as it may, and `waits` tells how long that was."""

    def __init__(self, waits: list[float], base_s: float, cap_s: float) -> None:
        super().__init__(base_s, cap_s, uniform=lambda low, high: high)
        self._waits = waits

    def next_s(self) -> float:
        self._waits.append(super().next_s())
        return self._waits[-1]


def subscriptions(outcome):
    return metrics.subscriptions.labels("toy", outcome)._value.get()


def status(code, **headers):
    return web.Response(status=code, headers={key.replace("_", "-"): text for key, text in headers.items()})


async def flood(peer, count, first=0):
    for number in range(first, first + count):
        await peer.say(n=number)


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


# Subscribing


def asked(server, number=0):
    """The markets of each message that subscribed over a connection, in the order of their coming."""
    return [message["markets"] for _, message in server.peers[number].received if "markets" in message]


def test_a_market_whose_subscription_is_never_answered_waits_by_itself_and_the_others_go_on():
    async def run():
        before = subscriptions("unanswered")
        waits: list[float] = []

        async with Server().run() as server:

            async def answer(peer, message):
                if message["markets"] != ["B"]:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(
                ToyVenue(refusal_s=0.05),
                list("ABC"),
                server,
                backoff=lambda: NotedBackoff(waits, 0.01, 0.08),
            ) as handler:
                await until(lambda: len(handler.of("deferred")) == 5)
                await server.peers[0].say(n=1)
                await until(lambda: handler.numbers == [1])
                assert handler.closed == [], "the neighbours' connection stays"
                connection = handler.connections[0]
                assert [markets for _, markets in handler.of("subscribed")] == [("A",), ("C",)]
                assert set(handler.of("deferred")) == {(connection, "B", "no answer in 0.05 s to subscribing")}
                server.answer = server.acknowledge
                await until(lambda: len(handler.of("subscribed")) == 3)
        assert handler.of("subscribed")[-1] == (connection, ("B",))
        assert waits[:5] == [0.01, 0.02, 0.04, 0.08, 0.08]
        assert subscriptions("unanswered") - before >= 5
        assert len(server.peers) == 1

    asyncio.run(run())


def test_of_many_markets_in_a_message_that_is_not_answered_the_culprit_is_isolated_and_comes_last_from_then_on():
    async def run():
        markets = [f"M{number}" for number in range(40)]
        async with Server().run() as server:

            async def answer(peer, message):
                if "M13" not in message["markets"]:
                    await server.acknowledge(peer, message)

            server.answer = answer
            venue = ToyVenue(refusal_s=0.1, per_message=20)
            async with session(venue, markets, server) as handler:
                await until(lambda: handler.of("deferred"))
                accepted = {market for _, accepted in handler.of("subscribed") for market in accepted}
                assert accepted == set(markets) - {"M13"}
                first = asked(server)[: 2 + 7 + 3]
                assert [len(message) for message in first] == [20, 20, 3, 3, 3, 3, 3, 3, 2, 1, 1, 1]
                server.peers[0].abort()
                await until(lambda: len(server.peers) == 2 and len(handler.of("subscribed")) == 9 + 2)
                assert [len(message) for message in asked(server, 1)[:3]] == [20, 19, 1]
                assert asked(server, 1)[2] == ["M13"]
        assert {market for _, market, _ in handler.of("deferred")} == {"M13"}

    asyncio.run(run())


def test_a_connection_over_which_nothing_is_answered_is_given_up_once_and_then_its_markets_are_suspected():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if "B" not in message["markets"]:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(refusal_s=0.1, per_message=3), list("ABC"), server) as handler:
                await until(lambda: handler.of("deferred"))
                assert [end.reason for end in handler.closed] == [Reason.UNANSWERED]
                assert "A, B, C" in handler.closed[0].detail
                assert sorted(markets for _, markets in handler.of("subscribed")) == [("A",), ("C",)]
        assert len(server.peers) == 2

    asyncio.run(run())


def test_silence_is_not_broken_by_our_own_messages():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if peer.number > 2:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(refusal_s=0.05, silence_s=0.5), ["A"], server) as handler:
                await until(lambda: handler.of("subscribed"))
        assert [end.reason for end in handler.closed[:2]] == [Reason.UNANSWERED, Reason.SILENT]
        assert len(asked(server, 1)) > 2

    asyncio.run(run())


def test_an_acknowledgment_that_comes_late_counts():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if message["markets"] == ["A"]:
                    await server.acknowledge(peer, message)
                else:
                    asyncio.get_running_loop().call_later(
                        0.2, lambda: asyncio.ensure_future(server.acknowledge(peer, message))
                    )

            server.answer = answer
            venue = ToyVenue(refusal_s=0.1)
            async with session(venue, ["A", "B"], server, backoff=lambda: Backoff(60.0, uniform=max)) as handler:
                await until(lambda: len(handler.of("subscribed")) == 2)
        assert asked(server) == [["A"], ["B"]]

    asyncio.run(run())


def test_a_market_that_trades_is_subscribed_whether_or_not_the_venue_says_so():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if message["markets"] == ["A"]:
                    await server.acknowledge(peer, message)

            server.answer = answer
            venue = ToyVenue(refusal_s=0.1)
            async with session(venue, ["A", "B"], server, backoff=lambda: Backoff(60.0, uniform=max)) as handler:
                connection = await opened(handler)
                await until(lambda: asked(server) == [["A"], ["B"]])
                connection.has_traded("B")
                assert handler.of("subscribed") == [(connection, ("A",))], "it may be a leftover of before"
                await until(lambda: handler.of("deferred"))
                connection.has_traded("B")
                connection.has_traded("A")
                assert handler.of("subscribed") == [(connection, ("A",)), (connection, ("B",))]

    asyncio.run(run())


# Subscribing one market again


async def opened(handler):
    await until(lambda: handler.of("subscribed"))
    return handler.connections[-1]


@pytest.mark.parametrize("unsubscribes", [True, False])
def test_one_market_is_subscribed_again_and_its_neighbours_do_not_notice(unsubscribes):
    async def run():
        venue = ToyVenue(per_message=3, message_interval_s=0.1, unsubscribes=unsubscribes)
        async with Server().run() as server:

            async def answer(peer, message):
                if "unsubscribe" in message:
                    await peer.say(refused=message["id"], reason="not subscribed")
                else:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(venue, list("ABC"), server) as handler:
                connection = await opened(handler)
                connection.resubscribe("B")
                connection.resubscribe("B")  # it is being done
                connection.resubscribe("Z")  # not a market of it
                await until(lambda: len(handler.of("subscribed")) == 2)
                await asyncio.sleep(0.3)  # nothing more comes
                assert handler.closed == handler.of("refused") == handler.of("deferred") == []
        assert handler.of("subscribed") == [(connection, ("A", "B", "C")), (connection, ("B",))]
        _, *others = [message for _, message in server.peers[0].received]
        expected = [{"id": 2, "unsubscribe": "B"}, {"id": 3, "markets": ["B"]}]
        assert others == (expected if unsubscribes else [{"id": 2, "markets": ["B"]}])
        assert min(gaps([at_s for at_s, _ in server.peers[0].received])) >= 0.1 - server.early_s

    asyncio.run(run())


def test_an_answer_to_what_was_asked_before_says_nothing_of_a_market_that_is_subscribed_again():
    async def run():
        async with Server().run() as server, session(ToyVenue(per_message=2), list("AB"), server) as handler:
            connection = await opened(handler)

            async def answer(peer, message):
                await peer.say(ack=1)  # once more

            server.answer = answer
            connection.resubscribe("B")
            await until(lambda: asked(server) == [["A", "B"], ["B"]])
            await server.peers[0].say(n=1)
            await until(lambda: handler.numbers == [1])
            assert len(handler.of("subscribed")) == 1
            await server.peers[0].say(ack=3)
            await until(lambda: len(handler.of("subscribed")) == 2)

    asyncio.run(run())


def test_a_market_that_is_not_accepted_when_it_is_subscribed_again_waits_by_itself():
    async def run():
        async with Server().run() as server, session(ToyVenue(refusal_s=0.05), list("AB"), server) as handler:
            connection = await opened(handler)

            async def answer(peer, message):
                if len(handler.of("deferred")) == 2:
                    await server.acknowledge(peer, message)

            server.answer = answer
            await until(lambda: len(handler.of("subscribed")) == 2)
            connection.resubscribe("B")
            await until(lambda: len(handler.of("subscribed")) == 3)
            assert handler.closed == []
            assert [market for _, market, _ in handler.of("deferred")] == ["B", "B"]
        assert handler.of("subscribed")[-1] == (connection, ("B",))

    asyncio.run(run())


def test_a_refusal_without_an_id_after_an_unsubscription_is_not_about_another_market():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if "unsubscribe" in message:
                    await peer.say(refused=None, reason="ERR-5106 Invalid request parameter.")

            server.answer = answer
            venue = ToyVenue(acknowledges=False, refusal_s=0.05, message_interval_s=0.05)
            async with session(venue, ["A", "B"], server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 2)
                handler.connections[0].resubscribe("A")
                await until(lambda: len(handler.of("subscribed")) == 3)
        assert handler.of("refused") == handler.of("deferred") == []

    asyncio.run(run())


def test_without_acknowledgments_a_subscription_counts_when_no_error_has_come():
    async def run():
        venue = ToyVenue(acknowledges=False, refusal_s=0.15, message_interval_s=0.1)
        async with Server().run() as server:
            accepted_s = []

            async def answer(peer, message):
                if message["markets"] == ["B"]:
                    await peer.say(refused=None, reason="ERR-5207")

            server.answer = answer
            async with session(venue, ["A", "B", "C"], server) as handler:
                handler.on_subscribed = lambda connection, markets: accepted_s.append(
                    (time.monotonic(), tuple(markets))
                )
                await until(lambda: len(accepted_s) == 2 and handler.of("refused"))
                sent_s = [at_s for at_s, _ in server.peers[0].received]
        assert [markets for _, markets in accepted_s] == [("A",), ("C",)]
        assert accepted_s[0][0] - sent_s[0] >= 0.15 - server.early_s
        assert handler.of("refused") == [("B", "ERR-5207")]

    asyncio.run(run())


def test_a_refusal_for_now_is_tried_again_with_the_same_message():
    async def run():
        async with Server().run() as server:
            refused: list[str] = []

            async def answer(peer, message):
                if message["markets"] == ["B"] and len(refused) < 3:
                    refused.append(message)
                    await peer.say(refused=message["id"], reason="too many", retryable=True)
                else:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(), ["A", "B", "C"], server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 3)
                assert handler.closed == [], "the connection stays"
        assert [markets for _, markets in handler.of("subscribed")][-1] == ("B",)
        assert [message for _, message in server.peers[0].received if message["markets"] == ["B"]] == [refused[0]] * 4
        assert handler.of("refused") == []

    asyncio.run(run())


def test_refusals_for_now_are_answered_by_waiting_longer_and_longer():
    async def run():
        asked: list[float] = []

        async with Server().run() as server:

            async def answer(peer, message):
                await peer.say(refused=None, reason="ERR-5003", retryable=True)

            server.answer = answer
            async with session(
                ToyVenue(),
                ["A"],
                server,
                backoff=lambda: NotedBackoff(asked, 0.01, 0.08),
            ):
                await until(lambda: len(asked) == 5)
        assert asked == [0.01, 0.02, 0.04, 0.08, 0.08]

    asyncio.run(run())


def test_waits_for_refusals_begin_anew_after_an_acceptance():
    async def run():
        asked: list[float] = []

        async with Server().run() as server:
            of_b = []

            async def answer(peer, message):
                if message["markets"] == ["B"]:
                    of_b.append(message["id"])
                    if len(of_b) == 2:
                        await server.acknowledge(peer, message)
                elif peer.markets.count("A") < 4:
                    await peer.say(refused=message["id"], retryable=True)
                else:
                    await server.acknowledge(peer, message)
                    await peer.say(refused=of_b[0], retryable=True)

            server.answer = answer
            async with session(
                ToyVenue(),
                ["A", "B"],
                server,
                backoff=lambda: NotedBackoff(asked, 0.01, 1.0),
            ) as handler:
                await until(lambda: len(handler.of("subscribed")) == 2)
        assert asked == [0.01, 0.02, 0.04, 0.01]

    asyncio.run(run())


def test_a_market_that_is_refused_for_good_is_not_asked_for_again_and_the_others_go_on():
    async def run():
        before = subscriptions("refused")
        async with Server().run() as server:

            async def answer(peer, message):
                if message["markets"] == ["B"]:
                    await peer.say(refused=message["id"], reason="no such market")
                else:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(), ["A", "B", "C"], server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 2)
                assert handler.connections[0].markets == ("A", "C")
                server.peers[0].abort()
                await until(lambda: len(handler.of("subscribed")) == 4)
        assert handler.of("refused") == [("B", "no such market")]
        assert server.peers[0].markets == ["A", "B", "C"]
        assert server.peers[1].markets == ["A", "C"]
        assert subscriptions("refused") - before == 1

    asyncio.run(run())


def test_of_several_markets_in_a_refused_message_the_culprit_is_found_by_halves():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if "C" in message["markets"]:
                    await peer.say(refused=message["id"], reason="invalid")
                else:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(per_message=4), list("ABCDEF"), server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 3 and handler.of("refused"))
        messages = [message["markets"] for _, message in server.peers[0].received]
        assert messages == [["A", "B", "C", "D"], ["E", "F"], ["A", "B"], ["C", "D"], ["C"], ["D"]]
        ids = [message["id"] for _, message in server.peers[0].received]
        assert len(set(ids)) == len(ids)
        assert handler.of("refused") == [("C", "invalid")]
        assert sorted(handler.of("subscribed")[0][1]) == ["E", "F"]

    asyncio.run(run())


def test_of_many_markets_in_a_message_that_is_refused_for_now_only_the_culprit_waits():
    async def run():
        markets = [f"M{number}" for number in range(200)]
        waits: list[float] = []

        async with Server().run() as server:

            async def answer(peer, message):
                if "M77" in message["markets"]:
                    await peer.say(refused=message["id"], reason="Binance answered error 2", retryable=True)
                else:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(
                ToyVenue(per_message=200),
                markets,
                server,
                backoff=lambda: NotedBackoff(waits, 0.01, 2.0),
            ) as handler:
                await until(lambda: len(handler.of("deferred")) >= 2)
                assert handler.closed == handler.of("refused") == []
                connection = handler.connections[0]
                server.answer = server.acknowledge
                await until(lambda: handler.of("subscribed")[-1] == (connection, ("M77",)))
        assert max(waits[:8]) <= 0.02, "while others are accepted there is no reason to wait"
        assert set(handler.of("deferred")) == {(connection, "M77", "Binance answered error 2")}
        accepted = [market for _, group in handler.of("subscribed") for market in group]
        assert sorted(accepted) == sorted(markets)
        assert len(asked(server)) <= 1 + 2 * 8 + len(handler.of("deferred")), "by halves"

    asyncio.run(run())


def test_while_nothing_is_accepted_parts_of_a_refused_message_wait_longer_and_longer():
    async def run():
        waits: list[float] = []

        async with Server().run() as server:

            async def answer(peer, message):
                if len(waits) < 4:
                    await peer.say(refused=message["id"], retryable=True)
                else:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(
                ToyVenue(per_message=8),
                list("ABCDEFGH"),
                server,
                backoff=lambda: NotedBackoff(waits, 0.01, 1.0),
            ) as handler:
                await until(lambda: sum(len(group) for _, group in handler.of("subscribed")) == 8)
        assert waits[:4] == [0.01, 0.02, 0.04, 0.08]
        assert max(map(len, asked(server)[4:])) > 1, "a venue that refuses all for a while is not asked one by one"

    asyncio.run(run())


def test_a_culprit_that_the_venue_names_is_left_out_and_the_rest_of_its_message_asked_for_again():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                if "B" in message["markets"]:
                    await peer.say(refused=None, market="B", reason="invalid symbol")
                else:
                    await server.acknowledge(peer, message)

            server.answer = answer
            async with session(ToyVenue(per_message=3), list("ABC"), server) as handler:
                await until(lambda: len(handler.of("subscribed")) == 2)
        assert handler.of("refused") == [("B", "invalid symbol")]
        assert [message["markets"] for _, message in server.peers[0].received] == [["A", "B", "C"], ["A"], ["C"]]

    asyncio.run(run())


def test_a_refusal_of_what_was_never_asked_for_changes_nothing():
    async def run():
        async with Server().run() as server, session(ToyVenue(), ["A"], server) as handler:
            await until(lambda: handler.of("subscribed"))
            await server.peers[0].say(refused=99)
            await server.peers[0].say(refused=None, market="Z")
            await server.peers[0].say(n=1)
            await until(lambda: handler.numbers == [1])
            assert handler.closed == []
        assert handler.of("refused") == []

    asyncio.run(run())


def test_a_session_ends_when_every_market_was_refused():
    async def run():
        async with Server().run() as server:

            async def answer(peer, message):
                await peer.say(refused=message["id"], reason="unknown")

            server.answer = answer
            async with session(ToyVenue(markets_per_connection=1), ["A", "B"], server) as handler:
                async with asyncio.timeout(60):
                    await handler.task
        assert sorted(handler.of("refused")) == [("A", "unknown"), ("B", "unknown")]
        assert [closed.reason for closed in handler.closed] == [Reason.REFUSED] * 2
        assert len(server.attempts) == 2

    asyncio.run(run())


# RateLimiter, as the server measures it


def gaps(times_s):
    return [later_s - earlier_s for earlier_s, later_s in pairwise(sorted(times_s))]


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
