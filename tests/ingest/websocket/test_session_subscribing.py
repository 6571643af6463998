"""Subscriptions that are answered late, not at all, or asked for again."""

from __future__ import annotations

import asyncio

import pytest
from toy_venue import NotedBackoff, Server, ToyVenue, asked, gaps, session, subscriptions, until

from ashi.runtime.retry import Backoff
from ashi_ingest.errors import Reason


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
