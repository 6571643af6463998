"""Subscribing to a simulated venue, and the limits it keeps."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from simulated import (
    MARKETS,
    answer,
    by_ashi,
    client,
    get,
    run,
    simulator,
    subscription,
    trade,
    until,
)
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ashi_simulator import (
    RULES,
    Rules,
)

# Subscriptions


def test_bitflyer_answers_what_has_an_id_and_refuses_unknown_channels() -> None:
    async def test() -> None:
        async with simulator("bitflyer") as sim, client(sim) as reader:
            await reader.ws.send(subscription("bitflyer", "BTC_JPY", 7))
            await reader.ws.send(subscription("bitflyer", "NO_SUCH", 8))
            await reader.ws.send('{"method":"subscribe","params":{"channel":"lightning_executions_ETH_JPY"}}')
            await reader.ws.send("{")
            await reader.settle()
            accepted, refused, broken = reader.messages
            assert accepted == {"jsonrpc": "2.0", "id": 7, "result": True}
            assert (refused["id"], refused["error"]["code"]) == (8, -32602)
            assert broken["error"]["code"] == -32700
            assert sim.subscribed == ["BTC_JPY", "ETH_JPY"]

    run(test())


def test_gmo_says_nothing_to_a_subscription_and_refuses_unknown_symbols() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim, client(sim) as reader:
            await reader.ws.send(subscription("gmo", "BTC"))
            await reader.ws.send(subscription("gmo", "NO_SUCH"))
            await reader.settle()
            (refused,) = reader.messages
            assert refused["error"].startswith("ERR-5106")
            assert sim.subscribed == ["BTC"]

    run(test())


def test_binance_accepts_unknown_streams_in_silence() -> None:
    async def test() -> None:
        async with simulator("binance") as sim, client(sim) as reader:
            await reader.ws.send(subscription("binance", "NOSUCH", 3))
            await reader.ws.send(subscription("binance", "BTCUSDT", 4))
            await reader.ws.send('{"method":"LIST_SUBSCRIPTIONS","id":5}')
            await reader.settle()
            assert reader.messages == [
                {"result": None, "id": 3},
                {"result": None, "id": 4},
                {"result": ["btcusdt@trade"], "id": 5},
            ]

    run(test())


@pytest.mark.parametrize(
    ("path", "wrapped"),
    [("/ws/btcusdt@trade/ethusdt@trade", False), ("/stream?streams=btcusdt@trade/ethusdt@trade", True)],
)
def test_binance_reads_streams_from_the_address(path: str, wrapped: bool) -> None:
    async def test() -> None:
        async with simulator("binance") as sim, client(sim, path=path) as reader:
            await sim.wait_subscribed()
            await trade(sim, 50)
            await reader.settle()
            assert all(("stream" in message) == wrapped for message in reader.messages)
            assert by_ashi("binance", reader.frames) == Counter(sim.truth())

    run(test())


@pytest.mark.parametrize(
    ("venue", "message"),
    [
        ("bitflyer", {"method": "unsubscribe", "params": {"channel": "lightning_executions_BTC_JPY"}}),
        ("gmo", {"command": "unsubscribe", "channel": "trades", "symbol": "BTC"}),
        ("binance", {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 9}),
    ],
)
def test_after_unsubscribing_nothing_comes(venue: str, message: dict[str, Any]) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, MARKETS[venue][0]) as reader:
            await trade(sim, 50)
            await reader.ws.send(json.dumps(message))
            await until(lambda: not sim.subscribed)
            await reader.settle()
            count = len(by_ashi(venue, reader.frames))
            assert count
            await trade(sim, 50)
            await reader.settle()
            assert len(by_ashi(venue, reader.frames)) == count

    run(test())


# Limits


def test_the_sixth_message_within_a_second_ends_a_binance_connection() -> None:
    async def test() -> None:
        async with simulator("binance", rules=RULES["binance"]) as sim, client(sim) as reader:
            for number in range(4):
                await reader.ws.send(subscription("binance", "BTCUSDT", number))
            await reader.ws.ping()
            await until(lambda: len(reader.frames) == 4)
            assert sim.limits()["most_messages_per_s"] == 5
            await reader.ws.send(subscription("binance", "BTCUSDT", 5))
            closed = await reader.ended()
            assert closed.rcvd is not None
            assert closed.rcvd.code == 1008
            assert sim.limits()["message_violations"] == 1
            assert sim.limits()["most_streams"] == 1

    run(test())


def test_a_binance_connection_has_at_most_1024_streams() -> None:
    async def test() -> None:
        async with simulator("binance", rules=RULES["binance"]) as sim, client(sim) as reader:
            streams = [f"s{number}@trade" for number in range(1024)]
            await reader.ws.send(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1}))
            await reader.ws.send(subscription("binance", "BTCUSDT", 2))
            await reader.settle()
            accepted, refused = reader.messages
            assert accepted == {"result": None, "id": 1}
            assert refused["id"] == 2
            assert refused["error"]["code"] == 4
            assert sim.subscribed == []
            assert sim.limits()["most_streams"] == 1024

    run(test())


def test_gmo_takes_one_subscription_a_second_from_an_address_whatever_the_connection() -> None:
    async def test() -> None:
        async with simulator("gmo", rules=RULES["gmo"]) as sim, client(sim) as one, client(sim) as other:
            await one.ws.send(subscription("gmo", "BTC"))
            await sim.wait_subscribed(["BTC"])
            await other.ws.send(subscription("gmo", "BTC_JPY"))
            await until(lambda: bool(other.frames))
            assert other.messages[0]["error"].startswith("ERR-5003")
            assert sim.subscribed == ["BTC"]
            await asyncio.sleep(1.01)  # the time is what is tested
            await other.ws.send(subscription("gmo", "BTC_JPY"))
            await sim.wait_subscribed(["BTC_JPY"])
            limits = sim.limits()
            assert limits["subscribe_messages"] == 3
            assert limits["subscribe_violations"] == 1
            assert limits["subscribe_least_interval_s"] < 0.9

    run(test())


def test_who_leaves_three_pings_unanswered_is_disconnected_and_who_answers_is_not() -> None:
    async def test() -> None:
        rules = Rules(ping_interval_s=0.1)
        async with simulator("gmo", rules=rules) as sim, client(sim) as lively, aiohttp.ClientSession() as session:
            deaf = await session.ws_connect(sim.websocket_url, autoping=False)
            pings = 0
            while (message := await deaf.receive()).type == aiohttp.WSMsgType.PING:
                pings += 1
            assert pings == 3
            assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
            assert sim.limits()["pongs_missed"] == 1
            await lively.settle()
            assert lively.closed is None

    run(test())


def test_binance_announces_the_end_of_a_connections_time() -> None:
    async def test() -> None:
        rules = replace(RULES["binance"], lifetime_s=0.4, notice_s=0.2)
        async with simulator("binance", rules=rules) as sim:
            begun = time.monotonic()
            async with client(sim, "BTCUSDT") as reader:
                closed = await reader.ended()
                assert closed.rcvd is not None
                assert time.monotonic() - begun >= 0.4
                assert reader.messages[-1]["e"] == "serverShutdown"

    run(test())


def test_an_address_may_open_only_so_many_connections() -> None:
    async def test() -> None:
        async with simulator("binance", rules=replace(RULES["binance"], connections=2)) as sim:
            async with client(sim), client(sim):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(sim.websocket_url)
            assert refused.value.response.status_code == 429
            assert sim.limits()["connections"] == 2
            assert sim.limits()["connections_refused"] == 1

    run(test())


def test_a_slow_reader_is_dropped() -> None:
    async def test() -> None:
        async with simulator("bitflyer", rate=40_000, rules=Rules(unread_bytes=10_000)) as sim:
            ws = await connect(sim.websocket_url, max_queue=1, ping_interval=None, close_timeout=0.1)
            for market in sim.markets:
                await ws.send(subscription("bitflyer", market))
            await sim.wait_subscribed()
            sim.start_market()
            await until(lambda: sim.limits()["slow_readers"] == 1)
            await until(lambda: sim.subscribed == [])
            ws.transport.abort()

    run(test())


def test_too_many_requests_are_answered_429_and_those_too_early_are_counted() -> None:
    async def test() -> None:
        async with simulator("bitflyer", rules=Rules(rest_weight=3, rest_window_s=1.0)) as sim:
            for _ in range(3):
                await get(sim, "/v1/getmarkets")
            status, _, headers = await answer(sim, "/v1/getmarkets")
            assert status == 429
            assert headers["Retry-After"] == "1"
            status, _, _ = await answer(sim, "/v1/getexecutions", product_code="BTC_JPY")
            assert status == 429
            limits = sim.limits()
            assert (limits["rest_requests"], limits["rest_refused"], limits["rest_too_early"]) == (5, 2, 1)
            assert limits["rest_most_weight"] == 3
            await asyncio.sleep(1.01)  # the time is what is tested
            await get(sim, "/v1/getmarkets")

    run(test())


def test_requests_weigh_what_the_venue_says() -> None:
    async def test() -> None:
        async with simulator("binance", rules=replace(RULES["binance"], rest_weight=50)) as sim:
            for used in ("25", "50"):
                _, _, headers = await answer(sim, "/api/v3/historicalTrades", symbol="BTCUSDT")
                assert headers["X-MBX-USED-WEIGHT-1M"] == used
            status, body, headers = await answer(sim, "/api/v3/exchangeInfo")
            assert (status, body["code"]) == (429, -1003)
            assert int(headers["Retry-After"]) > 50

    run(test())


def test_the_documented_limits_are_the_default() -> None:
    assert (RULES["bitflyer"].rest_weight, RULES["bitflyer"].rest_window_s) == (500, 300)
    assert RULES["gmo"].subscribe_interval_s == 1.0
    assert (RULES["gmo"].ping_interval_s, RULES["gmo"].missed_pongs) == (60, 3)
    for venue, weight in (("binance", 6000), ("binance-usdm", 2400)):
        rules = RULES[venue]
        assert (rules.messages_per_s, rules.streams, rules.lifetime_s, rules.notice_s) == (5, 1024, 86400, 600)
        assert (rules.rest_weight, rules.rest_window_s, rules.ping_interval_s) == (weight, 60, 20)
        assert (rules.connections, rules.connections_window_s) == (300, 300)
