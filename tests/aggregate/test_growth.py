"""What trades that were brought into the log again, or from elsewhere, give: on a log in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from simulation import make_plain

from ashi.contracts import Timeframe, Trade
from ashi.contracts.records import COPY_HEADER, SINCE_HEADER, time_in
from ashi_aggregate.core.window_state import WindowRules
from kafka_topics.simulated_log import Broker, Worker
from oracle import candles_of, closed, stored
from samples.hypothesis_strategies import START

MINUTE = 60_000_000
TIMEFRAMES = (Timeframe.parse("1m"), Timeframe.parse("5m"))
RULES = WindowRules(TIMEFRAMES[0], epoch=1)
LOG = [make_plain(number, START + number * 20_000_000) for number in range(90)]
COPIED_AT = LOG[-1].traded_at + MINUTE
"""When the second half of the log is appended once more."""


def of_all(log: list[Trade]) -> dict[Any, dict[str, Any]]:
    return closed(candles_of(log, ["1m", "5m"]), log, RULES.lateness_us)


def copied(header: bool = True) -> Broker:
    """All of a log, and then the half of it that open windows need."""
    broker = Broker(partitions=1)
    for trade in LOG:
        broker.publish([trade], trade.traded_at // 1_000)
    for trade in LOG[45:]:
        broker.publish([trade], COPIED_AT // 1_000)
        if header:
            broker.trades[0][-1].headers = [(COPY_HEADER, str(trade.traded_at).encode())]
    broker.now_us = COPIED_AT
    return broker


def test_a_state_that_begins_with_copies_sends_all_windows_that_they_are_whole_in() -> None:
    """By the append time of the copies it would send none."""

    async def scenario() -> None:
        whole_from = LOG[44].traded_at + MINUTE
        for known in (whole_from, None):
            broker = copied()
            worker = Worker(broker, TIMEFRAMES, RULES, begin={0: len(LOG)}, whole_from=known)
            await worker.start()
            await worker.run_to_end()
            kept = {key: value for key, value in of_all(LOG).items() if known is not None and key[2] >= whole_from}
            assert stored(broker.candles()) == kept
            assert bool(kept) is (known is not None)
            again = Worker(broker, TIMEFRAMES, RULES, begin={0: len(LOG)}, whole_from=known)
            await again.start()
            await again.run_to_end()
            assert stored(broker.candles()) == kept

    asyncio.run(scenario())


@pytest.mark.parametrize("native", [True, False])
def test_a_market_is_as_quiet_as_it_was_before_its_trades_were_copied(native: bool) -> None:
    """Its windows up to now close at once; by the time of copying they would close as long after it as it was quiet."""

    async def scenario() -> None:
        for header in (True, False):
            broker = copied(header)
            broker.now_us = COPIED_AT + 10 * MINUTE
            worker = Worker(
                broker,
                TIMEFRAMES,
                RULES,
                begin={0: len(LOG)},
                whole_from=LOG[44].traded_at + MINUTE,
                quiet_close=True,
                native=native,
            )
            await worker.start()
            await worker.run_to_end()
            await worker.pipeline.checkpoint()
            quiet_since = COPIED_AT if not header else LOG[-1].traded_at
            assert (
                quiet_until(broker) == (broker.now_us - quiet_since + LOG[-1].traded_at - RULES.lateness_us) // MINUTE
            )

    asyncio.run(scenario())


def quiet_until(broker: Broker) -> int:
    """The minute that ends the newest candle."""
    return max(candle.close_time for candle in broker.candles()) // MINUTE


@pytest.mark.parametrize("native", [True, False])
def test_a_log_that_was_brought_from_elsewhere_leaves_out_the_windows_in_which_it_begins(native: bool) -> None:
    async def scenario() -> None:
        since = LOG[45].traded_at - 1
        for header in (True, False):
            broker = Broker(partitions=1)
            broker.now_us = COPIED_AT
            for trade in LOG[45:]:
                broker.publish([trade], COPIED_AT // 1_000)
                if header:
                    broker.trades[0][-1].headers = [(SINCE_HEADER, str(since).encode())]
            worker = Worker(broker, TIMEFRAMES, RULES, native=native)
            await worker.start()
            await worker.run_to_end()
            kept = {key: value for key, value in of_all(LOG).items() if key[2] >= since}
            found = stored(broker.candles())
            assert (found == kept) is header
            assert {key: found[key] for key in kept} == kept

    asyncio.run(scenario())


def test_what_is_no_time_in_a_header_is_none() -> None:
    for value in (None, b"", b"-1", b"1e9", b"1" * 17, "\uff11".encode()):
        assert time_in([(COPY_HEADER, value)], COPY_HEADER) is None
    assert time_in([("schema", b"1"), (COPY_HEADER, b"17")], COPY_HEADER) == 17
