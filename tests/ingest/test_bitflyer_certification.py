from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from venue_certification import Documented, Execution, Listed, Refusal, VenueCertification

from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.venues.base import ListedMarket, Request

NO_TRADES = Path(__file__).parent / "data" / "bitflyer-no-trades.txt"


def execution(each: Execution, exec_date: str) -> str:
    return (
        f'{{"id":{each.number},"side":"{"BUY" if each.taker == "buy" else "SELL"}","price":{each.price},'
        f'"size":{each.size},"exec_date":"{exec_date}","buy_child_order_acceptance_id":"JRF20211212-230529-223057",'
        '"sell_child_order_acceptance_id":"JRF20211212-230529-081757"}'
    )


def moment(each: Execution) -> str:
    return datetime.fromtimestamp(each.at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class TestBitFlyer(VenueCertification):
    name = "bitflyer"
    history_days = 31
    market = "FX_BTC_JPY"
    documented = Documented(requests=(500, 300))
    recorded_frames = tuple(
        line.split(b" ", 1)[1] for line in gzip.decompress(BUNDLED["bitflyer"][0].read_bytes()).splitlines()
    )
    other_frames = tuple(line.split(b" ", 1)[1] for line in NO_TRADES.read_bytes().splitlines())
    subscription = (
        '{"jsonrpc":"2.0","method":"subscribe","params":{"channel":"lightning_executions_FX_BTC_JPY"},"id":7}'
    )
    unsubscription = (
        '{"jsonrpc":"2.0","method":"unsubscribe","params":{"channel":"lightning_executions_FX_BTC_JPY"},"id":7}'
    )
    refusals = (
        Refusal(b'{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"Invalid params"}}', 7, retryable=False),
        Refusal(b'{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"Internal error"}}', 7, retryable=True),
        Refusal(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"Invalid"}}', None, retryable=True),
    )
    markets_answer = b'[{"product_code":"BTC_JPY","market_type":"Spot"},{"product_code":"FX_BTC_JPY"}]'
    markets_listed = (
        ListedMarket("BTC_JPY", "BTC", "JPY", None, None, "trading"),
        ListedMarket("FX_BTC_JPY", "BTC", "JPY", None, None, "trading"),
    )
    error_answers = (b'{"status":-500,"error_message":"Permission denied","data":null}',)

    def acknowledgment(self, request_id: int) -> bytes:
        return b'{"jsonrpc":"2.0","id":%d,"result":true}' % request_id

    def frames(self, market: str, executions: Sequence[Execution]) -> list[bytes]:
        """100 ns, 6 or 7 digits."""
        rows = []
        for each in executions:
            fraction = f"{each.at_ms % 1000:03}{each.number % 1000 + 1:04}"[: 6 + each.number % 2]
            rows.append(execution(each, f"{moment(each)}.{fraction}Z"))
        return [
            f'{{"jsonrpc":"2.0","method":"channelMessage","params":{{"channel":"lightning_executions_{market}",'
            f'"message":[{row}]}}}}'.encode()
            for row in rows
        ]

    def rows(self, execution_: Execution) -> list[str]:
        """No Z, zeros of the millisecond trimmed."""
        fraction = f"{execution_.at_ms % 1000:03}".rstrip("0")
        return [execution(execution_, moment(execution_) + (f".{fraction}" if fraction else ""))]

    def refuses_old(self, request: Request, oldest: int) -> bytes | None:
        """Only `before` is limited; an `after` that is not less than it gives nothing."""
        if int(request.parameters.get("before", 2**62)) > oldest:
            return None
        assert request.may_be_refused
        return b'{"status":-156,"error_message":"Execution history is limited to the most recent 31 days.","data":null}'

    def answer(self, request: Request, listed: Sequence[Listed]) -> str:
        assert request.path == "/v1/getexecutions"
        assert {"product_code", "count"} <= request.parameters.keys() <= {"product_code", "count", "after", "before"}
        assert int(request.parameters["count"]) <= 500
        after, before = int(request.parameters.get("after", -1)), int(request.parameters.get("before", 2**62))
        within = [each.rows[0] for each in listed if after < each.execution.number < before]
        return "[" + ",".join(within[::-1][: int(request.parameters["count"])]) + "]"


def test_the_samples_differ_between_both_ways_as_the_venues_do() -> None:
    (frame,) = TestBitFlyer().frames("BTC_JPY", [Execution(1, at_ms=1_746_018_540_120)])
    (row,) = TestBitFlyer().rows(Execution(1, at_ms=1_746_018_540_120))
    assert b'"exec_date":"2025-04-30T13:09:00.1200002Z"' in frame
    assert json.loads(row)["exec_date"] == "2025-04-30T13:09:00.12"
