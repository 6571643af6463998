"""Everything that goes wrong on command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from simulated import (
    EVERY_VENUE,
    Client,
    answer,
    by_ashi,
    by_bytes,
    client,
    executions_of,
    get,
    historical,
    run,
    simulator,
    subscription,
    trade,
    until,
)
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from ashi.contracts.errors import UsageError
from ashi_ingest.venues.registry import VENUES
from ashi_simulator import (
    FAULTS,
)
from ashi_simulator.executions import TradeHistory


def test_every_fault_is_tested_here() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_simulator_*faults.py"))
    assert [name for name in FAULTS if f'.fault("{name}"' not in text] == []


@EVERY_VENUE
def test_drop_resets_all_connections_and_trades_go_on(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as one, client(sim) as other:
            sim.start_market()
            await until(lambda: len(one.frames) > 20)
            sim.fault("drop")
            assert (await one.ended()).rcvd is None
            assert (await other.ended()).rcvd is None
            count = sim.trades
            await until(lambda: sim.trades > count + 100)
            assert sim.subscribed == []

    run(test())


def test_drop_of_one_leaves_the_others() -> None:
    async def test() -> None:
        async with simulator("binance") as sim, client(sim) as one, client(sim) as other:
            sim.fault("drop", connections="one")
            await until(lambda: one.closed is not None or other.closed is not None)
            left = one if one.closed is None else other
            await left.settle()
            assert left.closed is None

    run(test())


@EVERY_VENUE
def test_close_closes_with_the_code(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as reader:
            sim.start_market()
            await until(lambda: len(reader.frames) > 20)
            sim.fault("close", code=1012, reason="restart")
            closed = await reader.ended()
            assert closed.rcvd is not None
            assert (closed.rcvd.code, closed.rcvd.reason) == (1012, "restart")

    run(test())


@EVERY_VENUE
def test_silence_keeps_the_connection_open_says_nothing_and_ends_in_a_reset(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as reader:
            sim.start_market()
            await until(lambda: len(reader.frames) > 20)
            sim.fault("silence", seconds=2.0)
            begun = time.monotonic()
            await trade(sim, 1)  # the market is stopped: what was on its way has been sent by now
            count = await came_to_rest(reader)
            sim.start_market()
            traded = sim.trades
            waiter: Any = await reader.ws.ping()
            await until(lambda: sim.trades > traded + 100)
            assert not waiter.done()
            assert reader.closed is None
            assert (await reader.ended()).rcvd is None
            assert time.monotonic() - begun >= 2.0
            assert len(reader.frames) == count
            async with client(sim, sim.markets[0]) as next_one:
                await until(lambda: len(next_one.frames) > 20)

    run(test())


async def came_to_rest(reader: Client) -> int:
    """How many frames there are when no more come for a while."""
    count = -1
    while count != len(reader.frames):
        count = len(reader.frames)
        await asyncio.sleep(0.05)
    return count


@EVERY_VENUE
@pytest.mark.parametrize("fragmented", [False, True])
def test_half_a_frame_is_never_a_message(venue: str, fragmented: bool) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, aiohttp.ClientSession() as session:
            ws = await session.ws_connect(sim.websocket_url)  # to hold the subscription's last message
            await ws.send_str(subscription(venue, sim.markets[0]))
            await sim.wait_subscribed([sim.markets[0]])
            await trade(sim, 50)
            reader, writer = await by_bytes(sim)
            sim.fault("half_frame", fragmented=fragmented)
            data = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := await reader.read(1000):
                    data += chunk
            writer.close()
            assert data[0] == (0x01 if fragmented else 0x81)
            complete = len(data) - 2 == data[1]
            assert complete == fragmented

    run(test())


@EVERY_VENUE
def test_a_client_in_the_middle_of_half_a_frame_sees_the_connection_break(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 100)
            await reader.settle()
            frames = len(reader.frames)
            sim.fault("half_frame")
            assert isinstance(await reader.ended(), ConnectionClosedError)
            assert len(reader.frames) == frames

    run(test())


@EVERY_VENUE
def test_garbage_affects_no_trade(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 100)
            await reader.settle()
            good = len(reader.frames)
            sim.fault("garbage")
            await reader.settle()
            garbage = reader.frames[good:]
            parser = VENUES[venue].parser()
            for frame in garbage:
                assert parser.parse(frame, time.time_ns() // 1000).trades == []
            unreadable = [frame for frame in garbage if not is_json(frame)]
            assert len(unreadable) >= 2
            assert len(garbage) > len(unreadable) + 2
            await trade(sim, 100)
            await reader.settle()
            kept = [frame for frame in reader.frames if frame not in garbage]
            assert by_ashi(venue, kept) == Counter(sim.truth())

    run(test())


def is_json(frame: bytes) -> bool:
    try:
        json.loads(frame)
    except ValueError:
        return False
    return True


@EVERY_VENUE
def test_an_error_frame_comes_unasked(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim) as reader:
            sim.fault("error_frame")
            sim.fault("error_frame", text='{"error":"ERR-5201 MAINTENANCE"}')
            await reader.settle()
            own, asked = reader.messages
            assert own["error"]
            assert asked == {"error": "ERR-5201 MAINTENANCE"}

    run(test())


@pytest.mark.parametrize("venue", ["bitflyer", "binance", "binance-usdm"])
def test_duplicate_sends_the_last_messages_again(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 200)
            await reader.settle()
            before = list(reader.frames)
            sim.fault("duplicate", frames=7)
            await reader.settle()
            assert reader.frames == before + before[-7:]

    run(test())


@pytest.mark.parametrize("venue", ["bitflyer", "binance", "binance-usdm"])
def test_reorder_reverses_the_next_messages_of_a_market_and_loses_none(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            sim.fault("reorder", market=sim.markets[1], frames=5)
            await trade(sim, 500)
            await reader.settle()
            assert by_ashi(venue, reader.frames) == Counter(sim.truth())
            symbol = f"{venue}:{sim.markets[1]}"
            parser = VENUES[venue].parser()
            firsts = [
                parsed.trades[0].sequence
                for frame in reader.frames
                if (parsed := parser.parse(frame, time.time_ns() // 1000)).trades and parsed.trades[0].symbol == symbol
            ]
            head = firsts[:4]  # one of five may be a trade outside the order book
            assert head == sorted(head, reverse=True)
            assert firsts[6:] == sorted(firsts[6:])

    run(test())


def test_what_is_held_to_be_reordered_comes_although_too_few_follow() -> None:
    async def test() -> None:
        async with simulator("binance", markets=["BTCUSDT"], rate=50) as sim, client(sim, "BTCUSDT") as reader:
            sim.fault("reorder", frames=100_000)
            sim.start_market()
            await until(lambda: len(reader.frames) > 5)

    run(test())


@pytest.mark.parametrize(
    ("venue", "market"), [("binance", "BTCUSDT"), ("binance-usdm", "BTCUSDT"), ("bitflyer", "FX_BTC_JPY")]
)
def test_skip_leaves_a_hole_over_the_websocket_that_rest_can_fill(venue: str, market: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 200)
            sim.fault("skip", market=market, frames=3)
            await trade(sim, 500)
            await reader.settle()
            missing = Counter(sim.truth()) - by_ashi(venue, reader.frames)
            assert 1 <= len(missing) <= 3 * 17
            assert {each.symbol for each in missing} == {f"{venue}:{market}"}
            lost = min(each.sequence for each in missing)
            if venue == "bitflyer":
                rows = await get(sim, "/v1/getexecutions", product_code=market, count=500, after=lost - 1)
            else:
                rows = await historical(sim, market, lost)
            assert {each.sequence for each in missing} <= {row["id"] for row in rows}

    run(test())


@pytest.mark.parametrize("venue", ["binance", "bitflyer"])
def test_lifetime_ends_connections_with_a_notice_where_the_venue_gives_one(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as reader:
            sim.fault("lifetime", notice_s=0.2)
            closed = await reader.ended()
            assert closed.rcvd is not None
            notices = [message for message in reader.messages if message.get("e") == "serverShutdown"]
            assert len(notices) == (venue == "binance")

    run(test())


REST_PATHS = {
    "bitflyer": "/v1/getmarkets",
    "gmo": "/public/v1/ticker",
    "binance": "/api/v3/exchangeInfo",
    "binance-usdm": "/fapi/v1/exchangeInfo",
}


@EVERY_VENUE
def test_rest_can_refuse_fail_and_hang_for_so_many_requests(venue: str) -> None:
    async def test() -> None:
        path = REST_PATHS[venue]
        async with simulator(venue) as sim:
            sim.fault("rest_429", requests=2, retry_after_s=3)
            for _ in range(2):
                status, _, headers = await answer(sim, path)
                assert (status, headers["Retry-After"]) == (429, "3")
            assert sim.limits()["rest_too_early"] == 1
            sim.fault("rest_500", requests=1, status=503)
            assert (await answer(sim, path))[0] == 503
            sim.fault("rest_timeout", requests=2, seconds=0.2)  # aiohttp tries again by itself
            begun = time.monotonic()
            with pytest.raises(aiohttp.ClientError):
                await answer(sim, path)
            assert time.monotonic() - begun >= 0.2
            await get(sim, path)

    run(test())


def test_rest_lag_hides_what_has_just_happened_for_a_while() -> None:
    async def test() -> None:
        async with simulator("binance", markets=["BTCUSDT"]) as sim:
            await trade(sim, 200)
            sim.fault("rest_lag", milliseconds=60_000, seconds=0.3)
            assert await historical(sim, "BTCUSDT", 0) == []
            sim.fault("rest_lag", milliseconds=0, seconds=0.3)
            assert len(await historical(sim, "BTCUSDT", 0)) == sim.trades
            sim.fault("rest_lag", milliseconds=60_000, seconds=0.1)
            await asyncio.sleep(0.12)  # the time is what is tested
            assert len(await historical(sim, "BTCUSDT", 0)) == sim.trades

    run(test())


def test_what_rest_knows_while_it_lags_is_a_beginning_that_only_grows() -> None:
    history = TradeHistory("bitflyer", "BTC_JPY")
    batches = [batch for _, batch in executions_of("bitflyer", ("BTC_JPY",), 2000)]
    for happened, batch in enumerate(batches):
        history.add(batch, happened)
    known = [len(history.known(time)) for time in range(-1, len(batches))]
    assert known == list(accumulate(map(len, batches), initial=0))
    middle = len(batches) // 2
    assert history.known(middle) == [execution for batch in batches[: middle + 1] for execution in batch]


def test_refuse_refuses_connections_for_a_while_and_breaks_those_there_are() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim, client(sim) as reader:
            sim.fault("refuse", seconds=0.4)
            begun = time.monotonic()
            await reader.ended()
            with pytest.raises(ConnectionRefusedError):
                await connect(sim.websocket_url)
            with pytest.raises(aiohttp.ClientConnectorError):
                await answer(sim, "/public/v1/ticker")
            while True:
                try:
                    async with client(sim, "BTC"):
                        break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
            assert time.monotonic() - begun >= 0.4

    run(test())


def test_refuse_can_leave_open_connections_alone() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim, client(sim, "BTC") as reader:
            sim.fault("refuse", seconds=0.2, drop=False)
            await asyncio.sleep(0)
            await trade(sim, 100)
            await reader.settle()
            assert by_ashi("gmo", reader.frames) == Counter(sim.truth(markets=["BTC"]))

    run(test())


@EVERY_VENUE
def test_slow_delays_every_message_and_keeps_their_order(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            sim.fault("slow", seconds=0.3, delay_s=0.5)
            first = len(reader.frames)
            begun = time.monotonic()
            sim.start_market()
            await until(lambda: len(reader.frames) > first + 20)
            assert time.monotonic() - begun >= 0.5
            await trade(sim, 1)
            await reader.settle()
            assert by_ashi(venue, reader.frames) == Counter(sim.truth())
            assert venue == "gmo" or in_order(venue, reader.frames)

    run(test())


def in_order(venue: str, frames: list[bytes]) -> bool:
    last: dict[str, int] = {}
    parser = VENUES[venue].parser()
    for frame in frames:
        for each in parser.parse(frame, time.time_ns() // 1000).trades:
            if each.sequence <= last.get(each.symbol, -1):
                return False
            last[each.symbol] = each.sequence
    return True


@pytest.mark.parametrize(
    ("venue", "name", "arguments", "said"),
    [
        ("binance", "dorp", {}, "fault 'dorp' is unknown: choose one of drop"),
        ("binance", "drop", {"conections": "all"}, "has no argument 'conections'; it has connections"),
        ("binance", "drop", {"connections": "some"}, "connections must be 'all' or 'one'"),
        ("binance", "silence", {"seconds": "long"}, "seconds must be of type float"),
        ("binance", "silence", {"seconds": -1}, "must not be negative"),
        ("binance", "rest_429", {"requests": True}, "requests must be of type int"),
        ("binance", "skip", {"market": "NOSUCH"}, "market 'NOSUCH' is not simulated"),
        ("bitflyer", "skip", {"market": "BTC_JPY"}, "ids of BTC_JPY are not contiguous"),
        ("gmo", "duplicate", {}, "gmo has no trade ids"),
        ("gmo", "reorder", {}, "gmo has no trade ids"),
        ("gmo", "skip", {}, "gmo has no market here whose ids are contiguous"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(venue: str, name: str, arguments: dict[str, Any], said: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim:
            with pytest.raises(UsageError, match=re.escape(said)):
                sim.fault(name, **arguments)
            assert sim.faults_done == []

    run(test())
