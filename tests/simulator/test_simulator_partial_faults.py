"""Faults of a part: a market, REST, a clock, a subscription; all else goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from simulated import (
    EVERY_VENUE,
    Client,
    answer,
    by_ashi,
    by_hand,
    client,
    get,
    rows_of,
    run,
    simulator,
    subscription,
    trade,
)
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ashi.contracts.errors import UsageError
from ashi.contracts.trade import Trade
from ashi_simulator import Simulator, Step, random_script
from ashi_simulator.faults import FAULTS, REFUSALS, SHAPES, possible_faults
from ashi_simulator.markets.recorded import RecordedMarket
from ashi_simulator.markets.synthetic import SyntheticMarket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_simulator.executions import Execution

BINANCE = pytest.mark.parametrize("venue", ["binance", "binance-usdm"])
BASE = {"binance": "/api/v3", "binance-usdm": "/fapi/v1"}
TRADES = {
    "bitflyer": ("/v1/getexecutions", "product_code"),
    "gmo": ("/public/v1/trades", "symbol"),
    "binance": ("/api/v3/trades", "symbol"),
    "binance-usdm": ("/fapi/v1/trades", "symbol"),
}
REFUSED = {
    "bitflyer": {"jsonrpc": "2.0", "id": 9, "error": {"code": -32602, "message": "Invalid params"}},
    "gmo": {"error": "ERR-5106 Invalid request parameter."},
    "binance": {"error": {"code": 2, "msg": "Invalid request: request params are invalid"}, "id": 9},
    "binance-usdm": {"error": {"code": 2, "msg": "Invalid request: request params are invalid"}, "id": 9},
}


def executions_at(sim: Simulator, market: str) -> Sequence[Execution]:
    """All there were so far."""
    return sim._exchange.histories[market].known(sim._exchange.now())


def unsubscription(venue: str, market: str) -> str:
    return subscription(venue, market, 8).replace("subscribe", "unsubscribe").replace("SUBSCRIBE", "UNSUBSCRIBE")


async def rest_trades(sim: Simulator, market: str) -> Any:
    path, name = TRADES[sim.venue]
    parameters: Any = {name: market}
    return await answer(sim, path, **parameters)


def seen(sim: Simulator, reader: Client, market: str) -> int:
    """How many trades of the market have come."""
    return sum(each.symbol == f"{sim.venue}:{market}" for each in by_ashi(sim.venue, reader.frames).elements())


def missing(sim: Simulator, reader: Client) -> Counter[str]:
    """By symbol, how many trades have not come."""
    lost = Counter(sim.truth()) - by_ashi(sim.venue, reader.frames)
    return Counter(each.symbol for each in lost.elements())


@EVERY_VENUE
def test_a_muted_market_is_silent_until_it_is_subscribed_to_anew_and_its_neighbours_trade(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            sim.fault("mute", market=sim.markets[0])
            await trade(sim, 300)
            await reader.settle()
            assert seen(sim, reader, sim.markets[0]) == 0
            assert seen(sim, reader, sim.markets[1]) > 0
            await reader.ws.send(subscription(venue, sim.markets[0]))  # it is subscribed to already: no help
            await reader.settle()
            await trade(sim, 300)
            await reader.settle()
            assert seen(sim, reader, sim.markets[0]) == 0
            await reader.ws.send(unsubscription(venue, sim.markets[0]))
            await reader.ws.send(subscription(venue, sim.markets[0]))
            await reader.settle()
            await trade(sim, 300)
            await reader.settle()
            assert seen(sim, reader, sim.markets[0]) > 0
            assert len((await rest_trades(sim, sim.markets[0]))[1]) > 0

    run(test())


def test_a_mute_ends_after_its_time_or_after_so_many_subscriptions() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim, client(sim, "BTC") as reader:
            sim.fault("mute", market="BTC", seconds=0.3)
            await trade(sim, 100)
            await reader.settle()
            assert reader.frames == []
            await asyncio.sleep(0.3)  # the time is what is tested
            await trade(sim, 100)
            await reader.settle()
            assert len(reader.frames) > 0
            sim.fault("mute", market="BTC", resubscriptions=2)
            async with client(sim, "BTC") as second:
                await trade(sim, 100)
                await second.settle()
                assert second.frames == []
            async with client(sim, "BTC") as third:
                await trade(sim, 100)
                await third.settle()
                assert len(third.frames) > 0

    run(test())


@EVERY_VENUE
def test_a_lost_frame_is_known_to_rest_and_to_nobody_else(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            sim.fault("lose", market=sim.markets[0])
            await trade(sim, 300)
            await reader.settle()
            lost = missing(sim, reader)
            assert set(lost) <= {f"{venue}:{sim.markets[0]}"}
            if venue == "gmo":  # what follows the lost one in its millisecond has other ordinals
                assert seen(sim, reader, "BTC") == len(sim.truth(markets=["BTC"])) - 1
            else:
                assert sum(lost.values()) <= 17
                assert len(lost) == 1 or venue == "binance-usdm"  # that frame may be of a trade off the book

    run(test())


@EVERY_VENUE
def test_rest_refuses_everything_for_a_while(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, aiohttp.ClientSession() as session:
            path, name = TRADES[venue]
            for status in REFUSALS:
                sim.fault("rest_refuse", status=status, seconds=0.3, retry_after_s=7, banned=True)
                async with session.get(sim.rest_url + path, params={name: sim.markets[0]}) as response:
                    assert response.status == status
                    assert response.headers["Retry-After"] == "7"
                    body = await response.text()
                assert ("IP banned until 1" in body) == (status in {418, 429} and venue.startswith("binance"))
                if "banned" in body:
                    until = int(body.partition("until ")[2].partition(".")[0])
                    assert abs(until - time.time() * 1000 - 7000) < 2000
            assert sim.limits()["rest_too_early"] == len(REFUSALS) - 1
            await asyncio.sleep(0.3)  # the time is what is tested
            assert (await rest_trades(sim, sim.markets[0]))[0] == 200

    run(test())


@EVERY_VENUE
def test_rest_answers_200_with_something_else_for_a_while(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, aiohttp.ClientSession() as session:
            await trade(sim, 50)
            path, name = TRADES[venue]
            good = (await rest_trades(sim, sim.markets[0]))[1]
            bodies = {}
            for shape in SHAPES:
                sim.fault("rest_garbled", shape=shape, seconds=0.3)
                async with session.get(sim.rest_url + path, params={name: sim.markets[0]}) as response:
                    assert response.status == 200
                    assert response.content_type == ("text/html" if shape == "html" else "application/json")
                    bodies[shape] = await response.text()
            assert "<html>" in bodies["html"]
            assert json.loads(bodies["null"]) is None
            with pytest.raises(json.JSONDecodeError):
                json.loads(bodies["cut"])
            for shape in ("other", "maintenance"):
                assert isinstance(json.loads(bodies[shape]), dict)
                assert json.loads(bodies[shape]) != good
            await asyncio.sleep(0.3)  # the time is what is tested
            again = (await rest_trades(sim, sim.markets[0]))[1]
            assert again | {"responsetime": ""} == good | {"responsetime": ""} if venue == "gmo" else again == good

    run(test())


@pytest.mark.parametrize("drop", [True, False])
def test_websockets_are_refused_for_a_while(drop: bool) -> None:
    async def test() -> None:
        async with simulator("bitflyer") as sim, client(sim) as reader:
            sim.fault("handshake_refused", status=451, seconds=0.3, drop=drop)
            with pytest.raises(InvalidStatus) as refusal:
                await connect(sim.websocket_url)
            assert refusal.value.response.status_code == 451
            await asyncio.sleep(0.3)  # the time is what is tested
            async with client(sim, "BTC_JPY"):
                assert (reader.closed is not None) == drop

    run(test())


@EVERY_VENUE
def test_a_halted_market_does_not_trade_and_its_ids_go_on_afterwards(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            market, other = sim.markets[0], sim.markets[1]
            await trade(sim, 200)
            before = len(sim.truth(markets=[market]))
            sim.fault("halt", market=market, seconds=0.5)
            await asyncio.sleep(0)
            await trade(sim, 200)
            assert len(sim.truth(markets=[market])) == before
            assert len(sim.truth(markets=[other])) > 0
            if venue in BASE:
                listed = (await get(sim, BASE[venue] + "/exchangeInfo"))["symbols"]
                assert {each["symbol"]: each["status"] == "TRADING" for each in listed} == {
                    market: False,
                    other: True,
                    "HALTEDUSDT": False,
                }
            if venue == "bitflyer":
                assert await get(sim, "/v1/getboardstate", product_code=market) == {
                    "health": "NORMAL",
                    "state": "CLOSED",
                }
            await asyncio.sleep(0.5)  # the time is what is tested
            await trade(sim, 200)
            await reader.settle()
            assert len(sim.truth(markets=[market])) > before
            assert by_ashi(venue, reader.frames) == Counter(sim.truth())
            if venue in BASE:
                numbers = [each.number for each in executions_at(sim, market)]
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    run(test())


LISTS = {
    "bitflyer": ("/v1/getmarkets", "product_code"),
    "gmo": ("/public/v1/ticker", "symbol"),
    "binance": ("/api/v3/exchangeInfo", "symbol"),
    "binance-usdm": ("/fapi/v1/exchangeInfo", "symbol"),
}


async def listed_markets(sim: Simulator) -> set[str]:
    path, name = LISTS[sim.venue]
    body = await get(sim, path)
    rows = body if sim.venue == "bitflyer" else body.get("data", body.get("symbols"))
    return {row[name] for row in rows} - {"HALTEDUSDT"}


@EVERY_VENUE
def test_markets_are_listed_and_delisted_at_run_time(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            old = sim.markets[0]
            await trade(sim, 100)
            sim.fault("list_market")
            sim.fault("delist_market", market=old)
            (new,) = set(sim.listed) - set(sim.markets)
            assert await listed_markets(sim) == {new, *sim.markets} - {old}
            count = len(sim.truth(markets=[old]))
            await reader.ws.send(subscription(venue, new))
            await sim.wait_subscribed([new])
            await trade(sim, 300)
            await reader.settle()
            assert len(sim.truth(markets=[old])) == count > 0, "what was traded remains"
            assert seen(sim, reader, new) == len(sim.truth(markets=[new])) > 0
            status, body, _ = await rest_trades(sim, old)
            assert status == 400 or body["status"] == 1

    run(test())


def test_the_last_market_stays_listed() -> None:
    async def test() -> None:
        async with simulator("gmo", markets=["BTC"]) as sim:
            sim.fault("delist_market")
            assert sim.listed == ["BTC"]

    run(test())


@EVERY_VENUE
@pytest.mark.parametrize("offset_s", [80.0, -90.0])
def test_a_clock_that_is_off_shows_in_trades_and_answers_and_hides_nothing(venue: str, offset_s: float) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            sim.fault("clock", offset_s=offset_s, seconds=1.0)
            await trade(sim, 300)
            await reader.settle()
            assert by_hand(venue, trades_of(reader)) == rows_of(sim.truth())
            assert all(abs(each.traded_at / 1e6 - time.time() - offset_s) < 5 for each in sim.truth())
            status, body, headers = await rest_trades(sim, sim.markets[1])
            rows = body["data"]["list"] if venue == "gmo" else body
            assert status == 200
            assert len(rows) >= min(len(sim.truth(markets=[sim.markets[1]])), 100) > 0
            told = parsedate_to_datetime(headers["Date"]).timestamp()
            assert abs(told - time.time() - offset_s) < 5
            await asyncio.sleep(1.0)  # the time is what is tested
            await trade(sim, 100)
            assert abs(sim.truth(markets=[sim.markets[1]])[-1].traded_at / 1e6 - time.time()) < 5
            await reader.settle()
            assert by_hand(venue, trades_of(reader)) == rows_of(sim.truth())

    run(test())


def trades_of(reader: Client) -> list[bytes]:
    """Its frames without the answers to subscriptions."""
    return [frame for frame in reader.frames if b'"result"' not in frame]


@EVERY_VENUE
def test_subscriptions_are_taken_note_of_late(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim) as reader:
            sim.fault("subscribe_late", seconds=5.0, delay_s=0.4)
            begun = time.monotonic()
            await reader.ws.send(subscription(venue, sim.markets[0]))
            await sim.wait_subscribed([sim.markets[0]])
            assert time.monotonic() - begun >= 0.4
            await reader.settle()
            assert len(reader.frames) == (venue != "gmo")

    run(test())


def test_a_client_that_left_before_it_was_taken_note_of_is_not_subscribed() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim:
            sim.fault("subscribe_late", seconds=0.6, delay_s=0.3)
            async with connect(sim.websocket_url) as ws:
                await ws.send(subscription("gmo", "BTC"))
            await asyncio.sleep(0.7)  # the time is what is tested
            assert sim.subscribed == []
            async with client(sim, "BTC"):
                pass

    run(test())


@EVERY_VENUE
@pytest.mark.parametrize("fault", ["unanswered", "refused"])
def test_a_subscription_of_a_market_is_ignored_or_refused_for_a_while(venue: str, fault: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim) as reader:
            market, other = sim.markets[0], sim.markets[1]
            if fault == "refused":
                sim.fault("subscribe_refused", market=market, seconds=0.4)
            else:
                sim.fault("subscribe_unanswered", market=market, seconds=0.4)
            await reader.ws.send(subscription(venue, market, 9))
            await reader.settle()
            assert reader.messages == ([REFUSED[venue]] if fault == "refused" else [])
            await reader.ws.send(subscription(venue, other))
            await sim.wait_subscribed([other])
            assert sim.subscribed == [other]
            await asyncio.sleep(0.4)  # the time is what is tested
            await reader.ws.send(subscription(venue, market))
            await sim.wait_subscribed([market])

    run(test())


@BINANCE
def test_a_batch_with_an_unwelcome_market_is_refused_as_a_whole(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim) as reader:
            sim.fault("subscribe_refused", market="ETHUSDT", seconds=30.0)
            batch = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 9}
            await reader.ws.send(json.dumps(batch))
            await reader.settle()
            assert reader.messages == [REFUSED[venue]]
            assert sim.subscribed == []

    run(test())


@BINANCE
def test_names_beyond_ascii_are_listed_subscribed_to_and_pushed_as_they_are(venue: str) -> None:
    async def test() -> None:
        name = "币安人生USDT"
        async with simulator(venue, markets=["BTCUSDT", name]) as sim, client(sim, name) as reader:
            await trade(sim, 200)
            await reader.settle()
            frames = [message["data"] for message in reader.messages if "stream" in message]
            assert {message["stream"] for message in reader.messages if "stream" in message} == {"币安人生usdt@trade"}
            assert len(frames) == len(executions_at(sim, name)) > 0
            assert {frame["s"] for frame in frames} == {name}
            assert all(name.encode() in frame for frame in reader.frames if b"stream" in frame), "not escaped"
            status, rows, _ = await answer(sim, BASE[venue] + "/trades", symbol=name)
            assert status == 200
            assert len(rows) == len(sim.truth(markets=[name]))
            async with client(sim, path="/stream?streams=币安人生usdt@trade"):
                pass

    run(test())


@BINANCE
def test_the_ticker_of_all_markets_has_the_last_id_as_far_as_rest_knows(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim:
            path = BASE[venue] + "/ticker/24hr"
            assert [each["lastId"] for each in await get(sim, path)] == [-1, -1]
            await trade(sim, 200)
            last = {market: executions_at(sim, market)[-1].number for market in sim.markets}
            assert {each["symbol"]: each["lastId"] for each in await get(sim, path)} == last
            assert (await get(sim, path, symbol="ETHUSDT"))["lastId"] == last["ETHUSDT"]
            status, body, _ = await answer(sim, path, symbol="NOSUCH")
            assert (status, body["code"]) == (400, -1121)
            used = sim.limits()["rest_most_weight"]
            assert used == (82 if venue == "binance-usdm" else 164)
            sim.fault("rest_lag", milliseconds=60_000, seconds=5.0)
            assert [each["lastId"] for each in await get(sim, path)] == [-1, -1]

    run(test())


def test_listings_say_base_quote_tick_and_lot() -> None:
    async def test() -> None:
        async with simulator("binance") as spot, simulator("gmo") as gmo:
            first = (await get(spot, "/api/v3/exchangeInfo"))["symbols"][0]
            assert (first["symbol"], first["baseAsset"], first["quoteAsset"]) == ("BTCUSDT", "BTC", "USDT")
            steps = {each["filterType"]: each.get("tickSize") or each.get("stepSize") for each in first["filters"]}
            assert steps == {"PRICE_FILTER": "0.01", "LOT_SIZE": "0.00000001"}
            rules = (await get(gmo, "/public/v1/symbols"))["data"]
            assert [(each["symbol"], each["tickSize"], each["sizeStep"]) for each in rules] == [
                ("BTC", "1", "0.00000001"),
                ("BTC_JPY", "1", "0.00000001"),
            ]
            assert (await get(gmo, "/public/v1/status"))["data"] == {"status": "OPEN"}

    run(test())


@EVERY_VENUE
def test_unsubscribing_ends_the_trades_of_that_market_only(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await reader.ws.send(unsubscription(venue, sim.markets[0]))
            await reader.settle()
            assert sim.subscribed == list(sim.markets[1:])
            await trade(sim, 200)
            await reader.settle()
            assert seen(sim, reader, sim.markets[0]) == 0
            assert seen(sim, reader, sim.markets[1]) == len(sim.truth(markets=[sim.markets[1]]))

    run(test())


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("rest_refuse", {"status": 200}, "status must be 403 or 404"),
        ("rest_garbled", {"shape": "round"}, "shape must be 'html' or 'null'"),
        ("clock", {"offset_s": -2e9}, "offset_s must not be negative"),
        ("clock", {"seconds": -1}, "seconds must not be negative"),
        ("mute", {"market": "NEW1USDT"}, "market 'NEW1USDT' is not simulated"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(name: str, arguments: dict[str, Any], said: str) -> None:
    async def test() -> None:
        async with simulator("binance") as sim:
            with pytest.raises(UsageError, match=said):
                sim.fault(name, **arguments)

    run(test())


def test_a_script_may_break_a_market_that_it_lists() -> None:
    steps = [
        Step("list_market", {"market": "NEWUSDT"}, after_trades=10),
        Step("mute", {"market": "NEWUSDT"}, after_trades=20),
    ]

    async def test() -> None:
        async with simulator("binance", script=steps) as sim:
            await trade(sim, 100)
            assert [name for name, _ in sim.faults_done] == ["list_market", "mute"]
        with pytest.raises(UsageError, match="NEWUSDT"):
            simulator("binance", script=steps[::-1])

    run(test())


def test_a_random_script_can_be_of_some_faults_and_a_venue_of_those_that_break_everything() -> None:
    whole = possible_faults("gmo", ["BTC"], partial=False)
    assert "drop" in whole
    assert not any(FAULTS[name].partial for name in whole)
    assert {step.fault for step in random_script(1, 40, "gmo", ["BTC"], faults=whole)} == set(whole)
    assert {step.fault for step in random_script(1, 9, "gmo", ["BTC"], faults=["mute", "halt"])} == {"mute", "halt"}


def test_no_market_open_is_no_trade_and_no_rush_afterwards() -> None:
    market = SyntheticMarket("gmo", ["BTC"], seed=1, rate=1000, bursts=False)
    market.start(0)
    market.open([])
    assert list(market.due(10_000_000)) == []
    market.open(["BTC"])
    assert sum(len(batch.executions) for batch in market.due(11_000_000)) <= 100


def test_a_halt_in_a_replay_leaves_out_what_was_recorded_of_it_and_its_ids_too() -> None:
    recorded = [Trade("binance:A", str(n), Decimal(1), Decimal(1), "buy", n * 1000, n * 1000, n) for n in range(1, 10)]
    market = RecordedMarket("binance", recorded, speed=1.0)
    market.start(0)
    numbers = [each.number for batch in market.due(20_000) for each in batch.executions]
    market.open([])
    assert list(market.due(50_000)) == []
    market.open(["A"])
    numbers += [each.number for batch in market.due(90_000) for each in batch.executions]
    assert numbers == [1, 2, 3, 4, 5, 6]
