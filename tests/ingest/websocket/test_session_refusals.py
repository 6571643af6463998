"""Subscriptions that a venue refuses, for now or for good, and how the culprit among many is found."""

from __future__ import annotations

import asyncio
import time

from toy_venue import NotedBackoff, Server, ToyVenue, asked, session, subscriptions, until

from ashi_ingest.errors import Reason


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
