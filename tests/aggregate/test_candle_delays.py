"""Which candles' delays are measured, and from when to when."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from ashi.contracts import Trade, parse_timeframes
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.metrics import aggregate as metrics
from ashi.runtime.metrics.declare import REGISTRY
from ashi_aggregate import delays
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.delays import AWAITED_US, LIVE_WITHIN_US, Dues, time_acknowledgment
from kafka_topics.simulated_log import Broker, Worker
from samples.hypothesis_strategies import START

SECOND = 1_000_000
MINUTE = 60 * SECOND
TIMEFRAMES = parse_timeframes("1m")
RULES = WindowRules(TIMEFRAMES[0], lateness_us=2 * SECOND)
SYMBOL = "binance:BTCUSDT"


class Market:
    """One symbol in one partition, whose candles are closed by its trades or by the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broker = Broker(partitions=1)
        self.broker.now_us = START
        self.measured: list[tuple[str, int]] = []
        self.number = 0
        monkeypatch.setattr(
            "ashi_aggregate.output.time_acknowledgment", lambda _, dues: self.measured.extend(dues.elements())
        )
        self.begin()

    def begin(self) -> None:
        self.worker = Worker(self.broker, TIMEFRAMES, RULES, seed=1, crash_after=None, quiet_close=True)

    def trade(self, traded_at: int, symbol: str = SYMBOL) -> None:
        """Append a trade now."""
        assert partition_of(symbol.encode(), 1) == 0
        self.number += 1
        trade = Trade(symbol, str(self.number), Decimal(1), Decimal(1), "buy", traded_at, traded_at, self.number)
        self.broker.publish([trade], self.broker.append_time_ms())

    async def read(self) -> None:
        while await self.worker.read(0, 1_000):
            pass

    def dues(self) -> list[int]:
        """When the candles were due that were measured since the last call, in seconds after the start."""
        found, self.measured = self.measured, []
        return [(due - START) // SECOND for _, due in found]


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Market:
    return Market(monkeypatch)


def test_the_windows_of_a_market_that_trades_count_from_its_first_trade_on(market: Market) -> None:
    async def run() -> None:
        await market.worker.start()
        for second in (0, 30, 70, 130):
            market.broker.now_us = START + second * SECOND
            market.trade(market.broker.now_us)
            await market.read()

    asyncio.run(run())
    assert market.dues() == [62, 122]


def test_windows_that_close_by_the_clock_count_too(market: Market) -> None:
    async def run() -> None:
        await market.worker.start()
        market.trade(START)
        await market.read()
        await market.worker.pipeline.checkpoint()
        market.broker.now_us = START + 63 * SECOND
        await market.worker.pipeline.checkpoint()
        await market.worker.pipeline.checkpoint()

    asyncio.run(run())
    assert market.dues() == [62]


def test_a_log_that_a_new_state_reads_from_its_beginning_counts_only_from_then_on(market: Market) -> None:
    for second in range(0, 7_200, 30):
        market.broker.now_us = START + second * SECOND
        market.trade(market.broker.now_us)

    async def run() -> None:
        await market.worker.start()
        await market.read()
        assert market.dues() == []
        for second in (7_200, 7_270):
            market.broker.now_us = START + second * SECOND
            market.trade(market.broker.now_us)
            await market.read()

    asyncio.run(run())
    assert market.dues() == [7_202, 7_262]


def test_after_an_outage_the_windows_of_the_last_hour_count_as_late_as_they_are(market: Market) -> None:
    async def before() -> None:
        await market.worker.start()
        market.trade(START)
        await market.read()
        await market.worker.pipeline.checkpoint()

    asyncio.run(before())
    for second in range(60, 3 * 3_600, 60):
        market.broker.now_us = START + second * SECOND
        market.trade(market.broker.now_us)

    async def after() -> None:
        market.begin()
        await market.worker.start()
        await market.read()

    asyncio.run(after())
    awaited_from = (market.broker.now_us - AWAITED_US - START) // SECOND
    dues = market.dues()
    assert dues == sorted(dues)
    assert dues[0] == awaited_from + 2 + 60 * (awaited_from % 60 != 0)
    assert dues[-1] == 3 * 3_600 - 120 + 2


def test_a_past_that_is_loaded_does_not_count_and_what_follows_it_does(market: Market) -> None:
    """As `--since` does: trades of days ago come as fast as they can, up to the present."""
    day = 86_400

    async def run() -> None:
        await market.worker.start()
        market.broker.now_us = START + day * SECOND
        for second in range(0, day, 30):
            market.trade(START + second * SECOND)
        await market.read()
        assert market.dues() == []
        for second in (day + 1, day + 65):
            market.broker.now_us = START + second * SECOND
            market.trade(market.broker.now_us)
            await market.read()

    asyncio.run(run())
    assert market.dues() == [day + 2, day + 62]


def test_a_recording_of_years_ago_never_counts(market: Market) -> None:
    async def run() -> None:
        await market.worker.start()
        for second in range(0, 600, 30):
            market.trade(START - 10**14 + second * SECOND)
            await market.read()
        await market.worker.pipeline.checkpoint()
        market.broker.now_us += 300 * SECOND
        await market.worker.pipeline.checkpoint()
        await market.worker.pipeline.checkpoint()

    asyncio.run(run())
    assert market.dues() == []


def test_a_market_that_was_read_live_counts_when_its_trades_come_late(market: Market) -> None:
    """Kafka, or the way to the venue, was away: that is what the histogram is for."""

    async def run() -> None:
        await market.worker.start()
        market.trade(START)
        await market.read()
        market.broker.now_us = START + 20 * MINUTE
        assert market.broker.now_us - START > LIVE_WITHIN_US
        market.trade(START + 70 * SECOND)
        await market.read()

    asyncio.run(run())
    assert market.dues()[0] == 62


def test_corrections_are_not_measured(market: Market) -> None:
    async def run() -> None:
        await market.worker.start()
        for second in (0, 70, 30):
            market.broker.now_us = START + max(second, 70) * SECOND if second else START
            market.trade(START + second * SECOND)
            await market.read()
        await market.worker.pipeline.checkpoint()

    asyncio.run(run())
    assert market.dues() == [62]


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"ashi_candle_delay_seconds_{name}", labels) or 0.0


def test_the_delay_is_from_when_a_candle_was_due_until_all_that_was_sent_with_it_is_acknowledged() -> None:
    metrics.candle_delay_seconds.clear()
    now = [START]

    async def run() -> None:
        sent: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        dues: Dues = Dues({("1m", START): 3, ("5m", START - 4 * SECOND): 1, ("1h", START + MINUTE): 1})
        time_acknowledgment(sent, dues, lambda: now[0])
        sent[0].set_result(None)
        await asyncio.sleep(0)
        assert sample("count", timeframe="1m") == 0
        now[0] += SECOND
        sent[1].set_result(None)
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert (sample("count", timeframe="1m"), sample("sum", timeframe="1m")) == (3, 3.0)
    assert sample("bucket", timeframe="5m", le="5.0") == 1
    assert sample("sum", timeframe="5m") == 5.0
    assert sample("sum", timeframe="1h") == 0, "a clock that is behind gives no delay below none"


def test_what_was_not_acknowledged_is_not_measured_and_its_error_is_left_to_whoever_waits() -> None:
    metrics.candle_delay_seconds.clear()

    async def run() -> None:
        for sent in ([asyncio.get_running_loop().create_future()], [asyncio.get_running_loop().create_future()] * 2):
            time_acknowledgment(sent, delays.Dues({("1m", START): 3}))
            sent[0].set_exception(ConnectionError("Kafka is gone"))
            await asyncio.sleep(0.01)
            with pytest.raises(ConnectionError):
                await sent[0]

    asyncio.run(run())
    assert sample("count", timeframe="1m") == 0
