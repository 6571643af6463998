"""The REST interface of the simulated venues."""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from simulated import (
    answer,
    get,
    historical,
    ms_of,
    run,
    simulator,
    trade,
)

from ashi_simulator import (
    Simulator,
)


def test_bitflyers_executions_can_be_walked_backwards_and_are_the_truth() -> None:
    async def test() -> None:
        async with simulator("bitflyer") as sim:
            await trade(sim, 2000)
            for market in sim.markets:
                rows: list[Any] = []
                before: dict[str, Any] = {}
                while batch := await get(sim, "/v1/getexecutions", product_code=market, count=100, **before):
                    assert len(batch) <= 100
                    rows += batch
                    before = {"before": batch[-1]["id"]}
                assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
                assert Counter((row["id"], row["side"], ms_of(row["exec_date"])) for row in rows) == Counter(
                    (each.sequence, (each.side or "").upper(), each.traded_at // 1000)
                    for each in sim.truth(markets=[market])
                )
                assert all(re.fullmatch(r"[^.Z]*(\.\d{1,3})?", row["exec_date"]) for row in rows)

    run(test())


def test_bitflyers_bounds_are_exclusive_and_the_newest_come_first() -> None:
    async def test() -> None:
        async with simulator("bitflyer", markets=["FX_BTC_JPY"]) as sim:
            await trade(sim, 800)
            numbers = [each.sequence for each in sim.truth()]
            low, high = numbers[100], numbers[300]
            between = await get(sim, "/v1/getexecutions", product_code="FX_BTC_JPY", count=500, after=low, before=high)
            assert [row["id"] for row in between] == numbers[101:300][::-1]
            newest = await get(sim, "/v1/getexecutions", product_code="FX_BTC_JPY", after=low)
            assert [row["id"] for row in newest] == numbers[-100:][::-1]
            assert len(await get(sim, "/v1/getexecutions", product_code="FX_BTC_JPY", count=9999)) == 500
            status, body, _ = await answer(sim, "/v1/getexecutions", product_code="NO_SUCH")
            assert (status, body["status"]) == (400, -100)
            listed = await get(sim, "/v1/getmarkets")
            assert listed == [{"product_code": "FX_BTC_JPY", "market_type": "FX"}]

    run(test())


def test_gmos_pages_hold_two_rows_an_execution_the_takers_first_when_read_from_the_oldest() -> None:
    async def test() -> None:
        async with simulator("gmo", markets=["BTC"]) as sim:
            await trade(sim, 333)
            rows: list[Any] = []
            page = 1
            while batch := (await pages(sim, page))["list"]:
                assert len(batch) <= 100
                rows += batch
                page += 1
            rows.reverse()
            truth = sim.truth()
            assert len(rows) == 2 * len(truth)
            assert [(row["side"].lower(), Decimal(row["price"]), ms_of(row["timestamp"])) for row in rows[::2]] == [
                (each.side, each.price, each.traded_at // 1000) for each in truth
            ]
            for taker, other in zip(rows[::2], rows[1::2], strict=True):
                assert {taker["side"], other["side"]} == {"BUY", "SELL"}
                assert taker | {"side": ""} == other | {"side": ""}

    run(test())


async def pages(sim: Simulator, page: int) -> Any:
    body = await get(sim, "/public/v1/trades", symbol="BTC", page=page, count=100)
    assert body["status"] == 0
    assert body["data"]["pagination"]["currentPage"] == page
    return body["data"]


def test_gmos_pages_shift_while_trades_arrive() -> None:
    async def test() -> None:
        async with simulator("gmo", markets=["BTC"]) as sim:
            await trade(sim, 200)
            before = (await pages(sim, 1))["list"]
            count = sim.trades
            await trade(sim, 10)
            shift = 2 * (sim.trades - count)
            after = (await pages(sim, 1))["list"] + (await pages(sim, 2))["list"]
            assert after[shift : shift + 100] == before

    run(test())


def test_gmo_answers_a_wrong_request_with_a_status_in_the_body() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim:
            wrong: list[dict[str, Any]] = [{"symbol": "NO_SUCH"}, {"symbol": "BTC", "page": "x"}]
            for parameters in wrong:
                body = await get(sim, "/public/v1/trades", **parameters)
                assert (body["status"], body["messages"][0]["message_code"]) == (1, "ERR-5106")
            ticker = await get(sim, "/public/v1/ticker")
            assert [each["symbol"] for each in ticker["data"]] == ["BTC", "BTC_JPY"]

    run(test())


@pytest.mark.parametrize("venue", ["binance", "binance-usdm"])
def test_binances_old_trades_are_read_by_id_and_are_the_truth(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue, markets=["BTCUSDT"]) as sim:
            await trade(sim, 2500)
            truth = sim.truth()
            first = await historical(sim, "BTCUSDT", truth[500].sequence)
            assert [row["id"] for row in first] == [each.sequence for each in truth[500:1500]]
            for row, each in zip(first, truth[500:], strict=False):
                assert (Decimal(row["price"]), Decimal(row["qty"])) == (each.price, each.size)
                assert (row["time"] * 1000, row["isBuyerMaker"]) == (each.traded_at, each.side == "sell")
                assert Decimal(row["quoteQty"]) == each.price * each.size
            base = "/fapi/v1" if venue == "binance-usdm" else "/api/v3"
            recent = await get(sim, f"{base}/trades", symbol="BTCUSDT")
            assert [row["id"] for row in recent] == [each.sequence for each in truth[-500:]]

    run(test())


def test_old_trades_of_usdm_need_a_key_and_those_of_spot_do_not() -> None:
    async def test() -> None:
        async with simulator("binance-usdm") as usdm, simulator("binance") as spot:
            status, body, _ = await answer(usdm, "/fapi/v1/historicalTrades", symbol="BTCUSDT")
            assert (status, body["code"]) == (401, -2015)
            assert await get(usdm, "/fapi/v1/historicalTrades", {"X-MBX-APIKEY": "key"}, symbol="BTCUSDT") == []
            assert await get(usdm, "/fapi/v1/trades", symbol="BTCUSDT") == []
            assert await get(spot, "/api/v3/historicalTrades", symbol="BTCUSDT") == []
            status, body, _ = await answer(spot, "/api/v3/trades", symbol="NOSUCH")
            assert (status, body["code"]) == (400, -1121)

    run(test())


def test_binance_lists_a_symbol_that_does_not_trade() -> None:
    async def test() -> None:
        async with simulator("binance") as spot, simulator("binance-usdm") as usdm:
            for sim, path in ((spot, "/api/v3/exchangeInfo"), (usdm, "/fapi/v1/exchangeInfo")):
                listed = (await get(sim, path))["symbols"]
                assert [each["symbol"] for each in listed if each["status"] == "TRADING"] == list(sim.markets)
                assert len(listed) == len(sim.markets) + 1

    run(test())
