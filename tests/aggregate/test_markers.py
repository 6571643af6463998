"""Offsets that no reader gets, in the pipeline: a transaction's markers, and records that are still open in one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from ashi.contracts import Timeframe, Trade
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.core.window_state import WindowRules
from kafka_topics.simulated_log import Broker, Worker
from samples.hypothesis_strategies import START

SECOND = 1_000_000
TIMEFRAMES = (Timeframe.parse("1m"), Timeframe.parse("5m"))


class WithMarkers(Worker):
    """Behind the records of partition 0 so many offsets are written that no reader gets."""

    behind = 0
    durable = 0

    def end_of(self, partition: int) -> int | None:
        return len(self.broker.trades[partition]) + self.behind

    async def ask_ends(self, partitions: Iterable[int]) -> dict[int, int]:
        return {partition: len(self.broker.trades[partition]) + self.behind for partition in partitions}

    def mark_durable(self, partition: int, end: int) -> None:
        self.durable = end

    async def read_markers(self, count: int) -> None:
        """A chunk of nothing else, as when they are decided."""

        async def acknowledge() -> None:
            return None

        begin, self.next[0] = self.next[0], self.next[0] + count
        await self.pipeline.on_chunk(Chunk(0, begin, self.next[0], ()), acknowledge)


def a_worker() -> WithMarkers:
    broker = Broker(partitions=1)
    broker.now_us = START
    trade = Trade("binance:A", "1", Decimal(5), Decimal(1), None, START, START, 1)
    broker.publish([trade], broker.append_time_ms())
    return WithMarkers(broker, TIMEFRAMES, WindowRules(TIMEFRAMES[0], max_flat=0), quiet_close=True)


def test_a_window_behind_markers_closes_by_the_clock_once_they_are_read_and_not_while_a_transaction_is_open() -> None:
    async def scenario() -> list[Any]:
        worker = a_worker()
        await worker.start()
        await worker.read(0, 10)
        await worker.pipeline.checkpoint()
        worker.behind = 3  # two records of a transaction, and what ends it
        worker.broker.now_us += 100 * SECOND
        await worker.pipeline.checkpoint()
        await worker.pipeline.checkpoint()
        assert not worker.broker.candles()
        await worker.read_markers(3)
        await worker.pipeline.checkpoint()
        assert worker.durable == 4, "the group commits beyond them"
        return worker.broker.candles()

    assert ("1m", 1) in [(candle.timeframe, candle.trade_count) for candle in asyncio.run(scenario())]


def test_a_state_goes_on_behind_markers_that_were_read_and_begins_where_a_record_does() -> None:
    """What was aborted before the first record that counts does not say when the state begins."""

    async def scenario() -> None:
        worker = a_worker()
        worker.broker.earliest[0] = 0
        await worker.start()
        await worker.read(0, 10)
        await worker.read_markers(3)
        await worker.pipeline.checkpoint()
        broker = worker.broker
        broker.trades[0] += [broker.trades[0][0]] * 3  # so that the log ends there
        broker.committed = {0: worker.durable}
        again = Worker(broker, TIMEFRAMES, WindowRules(TIMEFRAMES[0]))
        await again.start()
        assert again.next == {0: 4}

        anew = WithMarkers(broker, TIMEFRAMES, WindowRules(TIMEFRAMES[0], epoch=1), begin={0: 2})
        await anew.start()
        await anew.read_markers(1)
        await anew.pipeline.checkpoint()
        assert anew.pipeline._states[0].begins_at is None
        assert anew.durable == 3

    asyncio.run(scenario())
