"""A record that the aggregate stage refuses leaves a gap where its symbol and its time can be told."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ashi.contracts import Trade, parse_timeframes
from ashi.contracts.feed import decode_feed_gap, overlaps
from ashi.contracts.trade import encode_trade
from ashi.runtime.metrics import aggregate as metrics
from ashi.runtime.metrics.common import dead_letters
from ashi_aggregate.chunk import RejectedRecord
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.output import Output
from ashi_aggregate.refused import gap_of
from kafka_topics.simulated_log import Broker, Worker
from samples.hypothesis_strategies import START

TIMEFRAMES = parse_timeframes("1s,1m")
RULES = WindowRules(TIMEFRAMES[0])


def make_plain(number: int, traded_at: int) -> Trade:
    return Trade("binance:A", str(number), Decimal(5), Decimal(1), "buy", traded_at, traded_at, number)


SOUND = json.loads(encode_trade(make_plain(1, START)))
APPENDED_MS = START // 1000 + 5


def refused(value: bytes | None) -> Any:
    record: Any = SimpleNamespace(value=value, timestamp=APPENDED_MS)
    return gap_of(RejectedRecord(record, "price NaN is not a finite number", "not_a_trade"))


def test_late_trades_and_letters_are_served_as_none_before_there_is_one_so_that_the_first_is_seen() -> None:
    metrics.trades_late.clear()
    dead_letters.clear()
    log: Any = None
    Output(log, RULES, TIMEFRAMES)
    served = {
        (sample.labels["reason"], sample.value)
        for counted in (metrics.trades_late, dead_letters)
        for metric in counted.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert served == {
        (reason, 0.0) for reason in ("beyond_horizon", "below_floor", "not_a_trade", "schema", "misplaced")
    }


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"garbage",
        b"\xff",
        b"[" * 100_000,
        json.dumps(SOUND | {"symbol": "A"}).encode(),
        json.dumps(SOUND | {"symbol": 7}).encode(),
        json.dumps(SOUND | {"traded_at": START // 1000}).encode(),
        json.dumps(SOUND | {"traded_at": "then"}).encode(),
        json.dumps({"symbol": SOUND["symbol"]}).encode(),
    ],
)
def test_a_record_that_tells_no_symbol_or_no_time_leaves_no_gap(value: bytes | None) -> None:
    assert refused(value) is None


def test_the_gap_covers_the_time_of_the_trade_and_is_the_same_whenever_it_is_read() -> None:
    value = json.dumps(SOUND | {"price": "NaN"}).encode()
    gap = refused(value)
    assert gap == refused(value)
    assert (gap.symbol, gap.state, gap.updated_at) == (SOUND["symbol"], "lost", APPENDED_MS * 1000)
    assert "price NaN" in gap.reason
    assert overlaps(gap, START, START + 1)
    assert not overlaps(gap, START + 1, START + 2)
    assert decode_feed_gap(msgspec.json.encode(gap)) == gap


def test_a_worker_says_of_each_refused_record_what_may_be_missing_and_again_the_same_after_a_restart() -> None:
    async def scenario() -> None:
        broker = Broker(partitions=1)
        broker.publish([make_plain(1, START)])
        broker.append(0, b"binance:A", json.dumps(SOUND | {"size": "-1", "traded_at": START + 7}).encode())
        broker.append(0, b"binance:A", b"garbage")
        broker.append(0, b"binance:B", json.dumps(SOUND | {"traded_at": START + 9}).encode())  # misplaced
        for _ in range(2):
            worker = Worker(broker, TIMEFRAMES, RULES)
            await worker.start()
            await worker.run_to_end()
        said = [(key, decode_feed_gap(value)) for key, value, _ in broker.messages("feed.gaps")]
        assert {gap.from_time for _, gap in said} == {START + 6, START + 8}
        assert {key for key, _ in said} == {b"binance:A"}
        assert len({(gap.from_time, gap.updated_at) for _, gap in said}) == 2
        assert len(broker.messages("trades.dead")) >= 3

    asyncio.run(scenario())
