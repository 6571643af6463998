"""Windows of quiet symbols beside busy ones: closed by the clock though the end of the log is never reached."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from ashi.contracts import Candle, Timeframe, Trade
from ashi_aggregate import quiet
from ashi_aggregate.core.window_state import WindowRules
from kafka_topics.simulated_log import Broker, Worker
from samples.hypothesis_strategies import START

SECOND = 1_000_000
TIMEFRAMES = (Timeframe.parse("1m"),)


class Busy(Worker):
    """Whenever it asks where the log ends, that goes on before it has the answer."""

    number = 0
    asked = 0
    pauses = False
    timestamp_type = quiet.APPEND_TIME

    def publish(self, symbol: str, traded_at: int) -> None:
        self.number += 1
        trade = Trade(symbol, str(self.number), Decimal(5), Decimal(1), None, traded_at, traded_at, self.number)
        self.broker.publish([trade], self.broker.append_time_ms())
        self.broker.trades[0][-1].timestamp_type = self.timestamp_type

    async def ask_ends(self, partitions: Iterable[int]) -> dict[int, int]:
        self.asked += 1
        if not self.pauses:
            self.publish("binance:BUSY", self.broker.now_us)
        return await super().ask_ends(partitions)

    def quiet_candles(self) -> list[Candle]:
        return [candle for candle in self.broker.candles() if candle.symbol == "binance:QUIET"]


def a_worker() -> Busy:
    broker = Broker(partitions=1)
    broker.now_us = START
    worker = Busy(broker, TIMEFRAMES, WindowRules(TIMEFRAMES[0], max_flat=2), quiet_close=True)
    worker.publish("binance:QUIET", START)
    return worker


async def go_on(worker: Busy) -> None:
    """Half a second in which everything is read, then a checkpoint."""
    worker.broker.now_us += SECOND // 2
    worker.publish("binance:BUSY", worker.broker.now_us)
    await worker.read(0, 100)
    await worker.pipeline.checkpoint()


def test_a_quiet_window_closes_with_the_first_record_appended_after_it_is_due() -> None:
    async def scenario() -> None:
        worker = a_worker()
        await worker.start()
        await go_on(worker)
        for counts, due in (([1], START + 62 * SECOND), ([1, 0], START + 122 * SECOND)):
            worker.broker.now_us = due - SECOND // 1000
            worker.publish("binance:BUSY", worker.broker.now_us)
            await worker.read(0, 100)
            await worker.pipeline.checkpoint()
            assert len(worker.quiet_candles()) < len(counts), "a millisecond is left"
            worker.broker.now_us = due
            worker.publish("binance:BUSY", worker.broker.now_us)
            await worker.read(0, 100)
            await worker.pipeline.checkpoint()
            assert [each.trade_count for each in worker.quiet_candles()] == counts
        assert worker.asked == 0, "what was appended before a record that is read has been read"

    asyncio.run(scenario())


def test_what_falls_due_a_moment_after_others_waits_a_moment_so_that_not_each_record_looks_at_all() -> None:
    async def scenario() -> None:
        worker = a_worker()
        worker.broker.now_us = START + SECOND // 100
        worker.publish("binance:LATER", START)  # its time is 10 ms behind
        await worker.start()
        await go_on(worker)
        closed = []
        for passed_ms in (62_000, 62_015, 62_030):
            worker.broker.now_us = START + passed_ms * 1000
            worker.publish("binance:BUSY", worker.broker.now_us)
            await worker.read(0, 100)
            symbols = worker.pipeline._states[0].symbols
            closed.append({symbol for symbol in symbols if symbols[symbol].rows[0].row.closed_until})
        at_once = {"binance:QUIET", "binance:BUSY"}
        assert closed == [at_once, at_once, at_once | {"binance:LATER"}]

    asyncio.run(scenario())


def test_records_from_before_it_was_taken_up_close_nothing_by_their_append_times() -> None:
    async def scenario() -> None:
        worker = a_worker()
        worker.broker.now_us = START + 62 * SECOND
        worker.publish("binance:BUSY", worker.broker.now_us)
        await worker.start()
        await worker.read(0, 100)
        await worker.pipeline.checkpoint()
        assert not worker.quiet_candles()

    asyncio.run(scenario())


def test_an_append_time_ahead_of_this_machines_clock_closes_nothing_of_the_future() -> None:
    async def scenario() -> None:
        worker = a_worker()
        await worker.start()
        worker.broker.clock_ahead_us = 3600 * SECOND
        await go_on(worker)
        await go_on(worker)
        assert not worker.quiet_candles()

    asyncio.run(scenario())


def test_where_trades_have_the_writers_time_it_closes_nothing() -> None:
    async def scenario() -> None:
        worker = a_worker()
        await worker.start()
        await go_on(worker)
        worker.timestamp_type = 0
        worker.broker.now_us = START + 62 * SECOND
        await go_on(worker)
        assert not worker.quiet_candles(), "a writer's clock says nothing of what has been read"
        await go_on(worker)
        assert len(worker.quiet_candles()) == 1, "at the end that was asked for"

    asyncio.run(scenario())


def test_a_trade_that_came_before_it_was_asked_is_in_the_window_though_it_is_read_later() -> None:
    async def scenario() -> None:
        worker = a_worker()
        await worker.start()
        await go_on(worker)
        worker.broker.now_us = START + 62 * SECOND
        worker.publish("binance:QUIET", START + 59 * SECOND)
        await worker.pipeline.checkpoint()  # it is not read yet
        assert worker.asked == 1
        await go_on(worker)
        await go_on(worker)
        assert not worker.quiet_candles(), "it was appended just now, so the market is not quiet"
        for _ in range(10):
            await go_on(worker)
        assert [(each.open_time, each.trade_count) for each in worker.quiet_candles()] == [(START, 2)]

    asyncio.run(scenario())


def test_an_end_that_is_not_reached_for_long_is_asked_for_anew_as_the_log_may_have_been_cut_there() -> None:
    async def scenario() -> None:
        worker = a_worker()
        await worker.start()
        await go_on(worker)
        worker.broker.now_us = START + 62 * SECOND
        await worker.pipeline.checkpoint()
        assert worker.asked == 1
        del worker.broker.trades[0][-1]  # an election that was not clean: nobody had read it
        await worker.pipeline.checkpoint()
        assert worker.asked == 1
        assert not worker.quiet_candles()
        worker.broker.now_us += int(quiet.ASK_AGAIN_S * SECOND)
        worker.pauses = True
        await worker.pipeline.checkpoint()
        assert worker.asked == 2
        assert len(worker.quiet_candles()) == 1

    asyncio.run(scenario())


def test_what_came_after_it_was_asked_keeps_no_window_from_its_trades() -> None:
    """It closes by the time at which it asked: by that at which it has read so far, some of what came is unread."""

    async def scenario() -> None:
        worker = a_worker()
        await worker.start()
        await go_on(worker)
        worker.broker.now_us = START + 12 * SECOND
        worker.publish("binance:LAGGING", START)  # so its time is twelve seconds behind
        await go_on(worker)
        worker.broker.now_us = START + 62 * SECOND
        await worker.pipeline.checkpoint()
        assert worker.asked == 1
        worker.broker.now_us = START + 75 * SECOND
        worker.publish("binance:LAGGING", START + 59 * SECOND)
        await worker.read(0, 1)  # up to the end that it was told, and no further
        await worker.pipeline.checkpoint()
        assert len(worker.quiet_candles()) == 1
        for _ in range(20):
            await go_on(worker)
        lagging = [each for each in worker.broker.candles() if each.symbol == "binance:LAGGING"]
        assert [each.trade_count for each in lagging[:1]] == [2]

    asyncio.run(scenario())


class Told:
    """In place of candles in progress."""

    AGAIN_S = 0.13

    async def tell(self, own: object) -> float:
        return self.AGAIN_S


def test_the_end_of_a_minute_of_many_symbols_is_told_so_that_all_that_can_waits() -> None:
    async def scenario(symbols: int) -> bool:
        worker = a_worker()
        for number in range(symbols):
            worker.publish(f"binance:S{number}", START)
        await worker.start()
        await go_on(worker)
        assert not worker.pipeline.is_closing
        worker.broker.now_us = START + 62 * SECOND
        worker.publish("binance:BUSY", worker.broker.now_us)
        await worker.read(0, 100_000)
        assert len(worker.quiet_candles()) == 0, "on its way"
        is_closing = worker.pipeline.is_closing
        worker.pipeline._live = Told()  # type: ignore[assignment]
        assert await worker.pipeline.tell_progress() == (quiet.GOES_ON_S if is_closing else Told.AGAIN_S)
        worker.broker.now_us += round(quiet.GOES_ON_S * SECOND) + 1_000
        assert not worker.pipeline.is_closing, "after that nothing follows"
        await worker.pipeline.checkpoint()
        assert len(worker.quiet_candles()) == 1
        return is_closing

    assert asyncio.run(scenario(quiet.MANY))
    assert not asyncio.run(scenario(3)), "a few windows are no reason to wait"


def test_a_worker_that_closes_windows_all_the_time_puts_nothing_off_for_longer_than_a_second() -> None:
    now_s = 0.0
    nothing: Any = None
    close = quiet.QuietClose(nothing, nothing, enabled=True, now_us=lambda: 0, since_boot_s=lambda: now_s)
    put_off = []
    for step in range(300):
        now_s = step / 100
        close._note(range(quiet.MANY))
        put_off.append(close.is_under_way)
    assert put_off == [True] * 100 + [False] * 200
    now_s += 1
    assert not close.is_under_way
    close._note(range(quiet.MANY))
    assert close.is_under_way, "the next minute"
