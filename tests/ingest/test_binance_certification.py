from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest
from venue_certification import (
    Documented,
    Execution,
    KlineCertification,
    KlineSample,
    Listed,
    Refusal,
    VenueCertification,
)
from venue_history_certification import DAY_US, FIRST_US, SECOND_US
from venue_samples import Rest, one_a_second

from ashi.contracts.errors import ContractError
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.venues.base import ListedMarket, Request

DATA = Path(__file__).parent / "data"


def lines_of(content: bytes) -> tuple[bytes, ...]:
    return tuple(line.split(b" ", 1)[1] for line in content.splitlines())


def limits_by(weight_per_minute: int) -> Documented:
    return Documented(
        requests=(weight_per_minute, 60),
        messages=(5, 1.0),
        connections=(300, 300),
        markets=1024,
        lifetime_s=24 * 3600.0,
    )


class TestBinance(VenueCertification, KlineCertification):
    name = "binance"
    market = "BTCUSDT"
    documented = limits_by(6000)
    akin = frozenset({"binance-usdm"})
    pages: ClassVar = {"/api/v3/historicalTrades": 1000}
    latest = "/api/v3/historicalTrades"
    recorded_frames = lines_of(gzip.decompress(BUNDLED["binance"][0].read_bytes()))[:200]
    other_frames = (
        *lines_of((DATA / "binance-no-trades.txt").read_bytes()),
        b'{"stream":"btcusdt@depth5","data":{"lastUpdateId":160,"bids":[],"asks":[]}}',
    )
    subscription = '{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":7}'
    unsubscription = '{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":7}'
    refusals = (
        Refusal(b'{"error":{"code":2,"msg":"Invalid request: missing field"},"id":7}', 7, retryable=True),
        Refusal(b'{"code":3,"msg":"Invalid JSON: expected value"}', None, retryable=True),
    )
    closings = (
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"stream":"x","data":{"e":"serverShutdown","E":1770123456789}}',
    )
    markets_answer = json.dumps(
        {
            "symbols": [
                {
                    "symbol": "BTCUSDT",
                    "status": "TRADING",
                    "baseAsset": "BTC",
                    "quoteAsset": "USDT",
                    "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01"}],
                },
                {"symbol": "LUNAUSDT", "status": "BREAK"},
                {"symbol": "币安人生USDT", "status": "TRADING"},
            ]
        }
    ).encode()
    markets_listed = (
        ListedMarket("BTCUSDT", "BTC", "USDT", Decimal("0.01"), None, "trading"),
        ListedMarket("LUNAUSDT", None, None, None, None, "halted"),
        ListedMarket("币安人生USDT", None, None, None, None, "trading"),
    )
    error_answers = (b'{"code":-1121,"msg":"Invalid symbol."}',)
    kline = KlineSample(
        b'[[1499040000000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",1499040059999,'
        b'"2434.19055334",308,"1756.87402397","28.46694368","0"]]',
        1_499_040_000_000_000,
        ("0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815"),
    )

    def acknowledgment(self, request_id: int) -> bytes:
        return b'{"result":null,"id":%d}' % request_id

    def frames(self, market: str, executions: Sequence[Execution]) -> list[bytes]:
        return [
            (
                f'{{"stream":"{market.lower()}@trade","data":{{"e":"trade","E":{each.at_ms + 1},"s":"{market}",'
                f'"t":{each.number},"p":"{each.price}","q":"{each.size}","T":{each.at_ms},'
                f'"m":{"true" if each.taker == "sell" else "false"},"M":true}}}}'
            ).encode()
            for each in executions
        ]

    def rows(self, execution: Execution) -> list[str]:
        return [
            f'{{"id":{execution.number},"price":"{execution.price}","qty":"{execution.size}","quoteQty":"1220.00",'
            f'"time":{execution.at_ms},"isBuyerMaker":{"true" if execution.taker == "sell" else "false"},'
            '"isBestMatch":true}'
        ]

    def answer(self, request: Request, listed: Sequence[Listed]) -> str:
        most = self.pages[request.path]
        limit = int(request.parameters["limit"])
        assert limit <= most
        if "fromId" not in request.parameters:
            assert request.path == self.latest
            return "[" + ",".join(each.rows[0] for each in listed[-limit:]) + "]"
        assert request.parameters.keys() == {"symbol", "fromId", "limit"}
        assert request.path.endswith("/historicalTrades")
        since = [each.rows[0] for each in listed if each.execution.number >= int(request.parameters["fromId"])]
        return "[" + ",".join(since[:limit]) + "]"


class TestBinanceUsdm(TestBinance):
    name = "binance-usdm"
    documented = limits_by(2400)
    akin = frozenset({"binance"})
    pages: ClassVar = {"/fapi/v1/historicalTrades": 500, "/fapi/v1/trades": 1000}
    latest = "/fapi/v1/trades"
    history_days = 30
    recorded_frames = (
        b'{"stream":"bnbusdt@trade","data":{"e":"trade","E":1672515782136,"T":1672515782135,"s":"BNBUSDT","t":12345,'
        b'"p":"250.10","q":"100","X":"MARKET","m":true}}',
    )
    other_frames = (
        *lines_of((DATA / "binance-usdm-no-trades.txt").read_bytes()),
        # Outside the order book: the insurance fund's.
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":2,"T":1,"s":"BTCUSDT","t":3,"p":"0","q":"0","X":"NA",'
        b'"m":true}}',
    )

    def refuses_old(self, request: Request, oldest: int) -> bytes | None:
        """The documentation does not give the error."""
        if int(request.parameters.get("fromId", 2**62)) >= oldest:
            return None
        assert request.may_be_refused
        return b'{"code":-1130,"msg":"Data sent for parameter \'fromId\' is not valid."}'

    @pytest.mark.parametrize("code", [-1000, -1001, -1003, -1121])
    def test_an_error_that_is_not_about_the_id_says_nothing_of_how_far_it_goes_back(self, code: int) -> None:
        good = Rest(self, one_a_second(3000))
        for broken in (1, 3, 5):
            asked: list[Request] = []

            def answer(request: Request, broken: int = broken, asked: list[Request] = asked) -> bytes:
                asked.append(request)
                return f'{{"code":{code},"msg":"x"}}'.encode() if len(asked) == broken + 1 else good(request)

            with pytest.raises(ContractError):
                self.history(answer, FIRST_US, None, now_us=FIRST_US + 3000 * SECOND_US)

    def test_where_it_begins_is_not_looked_for_beyond_the_newest_trades(self) -> None:
        """It refuses all pages by id, however far the search for its beginning goes on."""
        executions = one_a_second(3000)
        good, kept = Rest(self, executions[1200:]), executions[1200].number
        refusal = b'{"code":-1130,"msg":"Data sent for parameter is not valid."}'

        def answer(request: Request) -> bytes:
            asked_id = int(request.parameters.get("fromId", 2**62))
            is_page = request.parameters["limit"] != "1" and asked_id <= executions[-1].number
            return refusal if is_page else self.refuses_old(request, kept) or good(request)

        outcome = self.history(answer, FIRST_US - DAY_US, None, now_us=FIRST_US + 3000 * SECOND_US)
        assert len(outcome.requests) < 60
        assert outcome.end.beyond_reach
        assert [trade.sequence for trade in outcome.yielded] == [each.number for each in executions[-1000:]]
