from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

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
from venue_history_certification import FIRST_US, SECOND_US
from venue_samples import Rest, one_a_second

from ashi_ingest.venues.base import ListedMarket, Request

SIDES = {"buy": ("BUY", "SELL"), "sell": ("SELL", "BUY")}


def fields(each: Execution, side: str) -> dict[str, str]:
    moment = datetime.fromtimestamp(each.at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    timestamp = f"{moment}.{each.at_ms % 1000:03}Z"
    return {"price": each.price, "side": side, "size": each.size, "timestamp": timestamp}


class TestGmo(VenueCertification, KlineCertification):
    name = "gmo"
    says_where_it_begins = False
    market = "BTC_JPY"
    documented = Documented(messages=(1, 1.0))
    recorded_frames = (
        b'{"channel":"trades","price":"13492957","side":"SELL","size":"0.004","symbol":"BTC_JPY",'
        b'"timestamp":"2025-04-30T13:09:43.601Z"}',
    )
    other_frames = (
        b'{"channel":"ticker","ask":"750760","bid":"750600","symbol":"BTC","timestamp":"2018-03-30T12:34:56.789Z"}',
        b'{"channel":"orderbooks","asks":[],"bids":[],"symbol":"BTC","timestamp":"2018-03-30T12:34:56.789Z"}',
    )
    subscription = '{"command":"subscribe","channel":"trades","symbol":"BTC_JPY","option":"TAKER_ONLY"}'
    unsubscription = '{"command":"unsubscribe","channel":"trades","symbol":"BTC_JPY"}'
    refusals = (
        Refusal(b'{"error":"ERR-5003 Request too many."}', None, retryable=True),
        Refusal(b'{"error":"ERR-5106 Invalid request parameter. symbol"}', None, retryable=False),
        Refusal(b'{"error":"ERR-5201 MAINTENANCE."}', None, retryable=True),
    )
    markets_answer = b"""{"status":0,"data":[{"symbol":"BTC","sizeStep":"0.0001","tickSize":"1"},
        {"symbol":"BTC_JPY","sizeStep":"0.01","tickSize":"1"}],"responsetime":"x"}"""
    markets_listed = (
        ListedMarket("BTC", "BTC", "JPY", Decimal(1), Decimal("0.0001"), "trading"),
        ListedMarket("BTC_JPY", "BTC", "JPY", Decimal(1), Decimal("0.01"), "trading"),
    )
    error_answers = (
        b'{"status":5,"messages":[{"message_code":"ERR-5106","message_string":"Bad symbol."}]}',
        b'{"status":2}',
    )
    kline = KlineSample(
        b'{"status":0,"data":[{"openTime":"1618588800000","open":"6418255","high":"6418256","low":"6399280",'
        b'"close":"6400000","volume":"0.2"}],"responsetime":"2021-04-17T00:00:00.000Z"}',
        1_618_588_800_000_000,
        ("6418255", "6418256", "6399280", "6400000", "0.2"),
    )

    def frames(self, market: str, executions: Sequence[Execution]) -> list[bytes]:
        return [
            json.dumps({"channel": "trades", "symbol": market, **fields(each, SIDES[each.taker][0])}).encode()
            for each in executions
        ]

    def rows(self, execution: Execution) -> list[str]:
        """The taker's, and that of the other side."""
        return [json.dumps(fields(execution, side)) for side in SIDES[execution.taker]]

    def answer(self, request: Request, listed: Sequence[Listed]) -> str:
        assert request.path == "/public/v1/trades"
        assert request.parameters.keys() == {"symbol", "page", "count"}
        page, size = int(request.parameters["page"]), int(request.parameters["count"])
        assert page >= 1
        assert 1 <= size <= 100
        newest_first = [row for each in listed for row in each.rows][::-1]
        rows = newest_first[(page - 1) * size : page * size]
        pagination = f'{{"currentPage":{page},"count":{len(rows)}}}'
        return f'{{"status":0,"data":{{"pagination":{pagination},"list":[{",".join(rows)}]}},"responsetime":"x"}}'

    @pytest.mark.parametrize("executions", [51, 101, 151])
    def test_a_history_whose_last_page_has_one_execution_is_read_from_there_on(self, executions: int) -> None:
        """A page of fifty, and two rows of one millisecond: nothing tells where another page that has them stands."""
        asked: list[Request] = []
        good = Rest(self, one_a_second(executions))

        def answer(request: Request) -> bytes:
            asked.append(request)
            return good(request)

        outcome = self.history(answer, FIRST_US, None)
        assert "could not be joined" not in (outcome.reason or "")
        assert len(outcome.yielded) == executions
        assert len(asked) <= 4 + executions // 20

    def test_a_history_that_is_asked_for_patience_on_the_way_shows_nothing_that_could_count_as_lost(
        self,
    ) -> None:
        good = Rest(self, one_a_second(1500))
        asked: list[Request] = []

        def answer(request: Request) -> bytes:
            asked.append(request)
            if len(asked) > 15:
                return b'{"status":5,"messages":[{"message_code":"ERR-5003","message_string":"Too many requests"}]}'
            return good(request)

        outcome = self.history(answer, FIRST_US + 100 * SECOND_US, None)
        assert outcome.yielded
        assert outcome.reason is not None
        assert "ERR-5003" in outcome.reason
        assert outcome.end.shown_until is None
        assert outcome.missing == ()
