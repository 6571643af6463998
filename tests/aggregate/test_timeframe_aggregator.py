"""The pure core against the oracle: order, chunks, late trades, crashes of single rows."""

from __future__ import annotations

import random
from decimal import Decimal
from itertools import pairwise
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import ContractError, Trade, parse_timeframes
from ashi_aggregate import TimeframeAggregator, WindowRules
from ashi_aggregate.core.codec import decode_row, encode
from ashi_aggregate.core.fold import fold_trades
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import StateRow
from oracle import candles_of, closed, stored, timely
from samples.hypothesis_strategies import START, cuts, trades

NAMES = ["1m", "5m", "1h"]
TIMEFRAMES = parse_timeframes(",".join(NAMES))
ONE = ["binance:ETHUSDT"]


def make_trade(
    minute: float, sequence: int = 0, price: str = "100", size: str = "1", side: Literal["buy", "sell"] | None = "buy"
) -> Trade:
    traded_at = START + round(minute * 60_000_000)
    return Trade(ONE[0], str(sequence), Decimal(price), Decimal(size), side, traded_at, traded_at, sequence)


def rules(lateness_us: int = 2_000_000, horizon_us: int = 120_000_000, epoch: int = 0) -> WindowRules:
    return WindowRules(TIMEFRAMES[0], lateness_us, horizon_us, epoch)


def fold_log(log: list[Trade], places: list[int], rules: WindowRules) -> tuple[list, list, SymbolAggregator]:
    aggregator = SymbolAggregator(TIMEFRAMES, rules)
    candles, late = [], []
    for begin, end in pairwise(places):
        if begin == end:
            continue
        closed_now, late_now, *_ = aggregator.on_trades(log[begin:end], range(begin, end))
        candles += closed_now
        late += late_now
        candles += aggregator.corrections()
        aggregator.drop_final()
    return candles, late, aggregator


@given(log=trades(symbols=ONE))
def test_trades_folded_one_by_one_come_to_the_fold_of_all_of_them(log):
    whole, parts = fold_trades(log, START, 7), [fold_trades([trade], START, 7) for trade in log]
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    assert msgspec.json.encode(merged) == msgspec.json.encode(whole), "also in how the numbers are written"


def test_a_fold_writes_no_exponents_whether_of_one_trade_or_of_more():
    large, nothing = make_trade(0, 1, "1E+2", "2E+3"), make_trade(0, 2, "1E+2", "0E+3")
    for log in ([large], [large, nothing]):
        fold = fold_trades(log, START, 7)
        sums = (fold.volume, fold.quote_volume, fold.taker_buy_volume, fold.taker_buy_quote_volume)
        assert list(map(str, sums)) == ["2000", "200000", "2000", "200000"]


@given(data=st.data(), log=trades(symbols=ONE), horizon_us=st.sampled_from([2_000_000, 60_000_000, 120_000_000, 10**9]))
def test_any_log_in_any_chunks_gives_the_oracles_candles(data, log, horizon_us):
    candles, late, _ = fold_log(log, data.draw(cuts(len(log))), rules(horizon_us=horizon_us))
    counted = timely(log, "1m", horizon_us)
    assert stored(candles) == closed(candles_of(counted, NAMES), log, 2_000_000)
    assert sorted(trade.trade_id for trade, *_ in late) == sorted(
        {t.trade_id for t in log} - {t.trade_id for t in counted}
    )


@given(data=st.data(), log=trades(symbols=ONE))
def test_disorder_within_the_lateness_gives_the_candles_of_the_ordered_log_without_corrections(data, log):
    ordered = sorted(log, key=lambda trade: (trade.traded_at, trade.sequence))
    delays = data.draw(st.lists(st.integers(0, 1_999_999), min_size=len(log), max_size=len(log)))
    arrival = [t for _, t in sorted(zip(delays, ordered, strict=True), key=lambda p: p[0] + p[1].traded_at)]
    candles, late, _ = fold_log(arrival, data.draw(cuts(len(log))), rules())
    assert not late
    assert len(stored(candles)) == len(candles), "a candle was emitted twice"
    assert stored(candles) == closed(candles_of(log, NAMES), log, 2_000_000)


@given(data=st.data(), log=trades(symbols=ONE))
def test_rows_written_at_different_times_and_a_replay_from_before_them_change_nothing(data, log):
    once, _, whole = fold_log(log, [0, len(log)], rules())
    before = data.draw(st.integers(0, len(log)))
    rows = []
    candles = []
    for index in range(len(TIMEFRAMES)):
        written_at = data.draw(st.integers(before, len(log)))
        crashed = SymbolAggregator(TIMEFRAMES, rules())
        if written_at:
            candles += crashed.on_trades(log[:written_at], range(written_at))[0]
            candles += crashed.corrections()
            crashed.drop_final()
        rows.append(decode_row(encode(crashed.rows[index].row)))
    resumed = SymbolAggregator(TIMEFRAMES, rules(), rows)
    places = [before + cut for cut in data.draw(cuts(len(log) - before))]
    for begin, end in pairwise(places):
        candles += resumed.on_trades(log[begin:end], range(begin, end))[0]
        candles += resumed.corrections()
        resumed.drop_final()
    candles += resumed.corrections()
    assert stored(candles) == stored(once + whole.corrections())


@given(log=trades(symbols=ONE))
def test_one_by_one_is_the_same_as_all_at_once(log):
    together, _, _ = fold_log(log, [0, len(log)], rules())
    aggregators = [TimeframeAggregator(timeframe, rules()) for timeframe in TIMEFRAMES]
    single = [candle for trade in log for aggregator in aggregators for candle in aggregator.on_trade(trade)]
    single += [candle for aggregator in aggregators for candle in aggregator.corrections()]
    assert stored(single) == stored(together)


@given(log=trades(symbols=ONE, span_us=5 * 60_000_000 - 1))
def test_the_1m_candles_of_a_5m_window_merge_to_that_candle(log):
    minute_candles = candles_of(log, ["1m"])
    last = make_trade(20, 10**6)
    candles, _, _ = fold_log([*log, last], [0, len(log) + 1], rules(horizon_us=10**9))
    by_timeframe = {
        name: sorted((c for c in candles if c.timeframe == name), key=lambda c: c.open_time) for name in NAMES
    }
    for five in by_timeframe["5m"]:
        parts = [c for c in by_timeframe["1m"] if five.open_time <= c.open_time < five.close_time and c.trade_count]
        if not five.trade_count:
            assert not parts
            continue
        assert five.open == parts[0].open
        assert five.close == parts[-1].close
        assert five.high == max(c.high for c in parts)
        assert five.low == min(c.low for c in parts)
        assert five.trade_count == sum(c.trade_count for c in parts)
        assert five.first_trade_id == parts[0].first_trade_id
        assert five.last_trade_id == parts[-1].last_trade_id
    assert sum(c.trade_count > 0 for c in by_timeframe["1m"]) == len(minute_candles)


def test_trades_of_one_time_and_sequence_are_ordered_by_what_they_are_and_not_by_arrival():
    twins = [msgspec.structs.replace(make_trade(0, 7, price), trade_id=f"x{price}") for price in ("3", "1", "2")]
    results = set()
    for seed in range(6):
        random.Random(seed).shuffle(twins)
        aggregator = TimeframeAggregator("1m")
        for trade in twins:
            aggregator.on_trade(trade)
        candle = aggregator.get_current_candle()
        assert candle is not None
        results.add((candle.open, candle.close))
    assert results == {(Decimal(1), Decimal(3))}


def test_a_trade_exactly_on_the_minute_belongs_to_the_window_it_opens():
    aggregator = TimeframeAggregator("1m", rules(lateness_us=0))
    assert aggregator.on_trade(make_trade(0, 1)) == []
    (candle,) = aggregator.on_trade(make_trade(1, 2))
    assert (candle.open_time, candle.close_time, candle.trade_count) == (START, START + 60_000_000, 1)
    current = aggregator.get_current_candle()
    assert current is not None
    assert current.open_time == START + 60_000_000


def test_a_window_stays_open_for_the_allowed_lateness():
    aggregator = TimeframeAggregator("1m")
    aggregator.on_trade(make_trade(0.5, 1))
    assert aggregator.on_trade(make_trade(1 + 1.999999 / 60, 2)) == []
    assert [candle.open_time for candle in aggregator.on_trade(make_trade(1 + 2 / 60, 3))] == [START]


def test_a_quiet_window_gives_a_flat_candle_that_carries_the_close_and_its_version():
    aggregator = TimeframeAggregator("1m")
    aggregator.on_trade(make_trade(0, 1, "7"), 10)
    real, *flat = aggregator.on_trade(make_trade(4, 2, "9"), 20)
    assert [(c.open_time, c.trade_count) for c in flat] == [(START + m * 60_000_000, 0) for m in (1, 2)]
    for candle in flat:
        assert candle.open == candle.high == candle.low == candle.close == real.close == Decimal(7)
        assert candle.version == real.version == 10
        assert candle.volume == candle.quote_volume == 0
        assert candle.first_trade_id is candle.last_trade_id is None


def test_a_trade_that_comes_after_all_makes_its_flat_candle_real_and_corrects_those_that_follow():
    aggregator = TimeframeAggregator("1m")
    aggregator.on_trade(make_trade(0, 1, "7"), 10)
    aggregator.on_trade(make_trade(4.5, 2, "9"), 20)
    assert aggregator.on_trade(make_trade(2, 3, "8"), 21) == []
    real, flat = aggregator.corrections()
    assert (real.open_time, real.trade_count, real.version) == (START + 2 * 60_000_000, 1, 21)
    assert (flat.open_time, flat.trade_count, flat.close, flat.version) == (START + 3 * 60_000_000, 0, Decimal(8), 21)


def test_flat_candles_end_after_their_greatest_number_and_can_be_turned_off():
    for most in (0, 3, 1440):
        aggregator = TimeframeAggregator("1m", WindowRules(TIMEFRAMES[0], max_flat=most))
        aggregator.on_trade(make_trade(0, 1))
        candles = aggregator.on_trade(make_trade(2000, 2))
        assert sum(candle.trade_count == 0 for candle in candles) == most


def test_a_flat_candle_still_comes_when_the_window_it_carries_has_been_dropped():
    aggregator = TimeframeAggregator("1m")
    aggregator.on_trade(make_trade(0, 1, "7"), 0)
    aggregator.close_due(START + 62_000_000)  # wall time: the market is quiet
    aggregator.row.stream_time = START + 1000 * 60_000_000
    aggregator.drop_final()
    assert not aggregator.row.windows
    (flat,) = aggregator.close_due(START + 122_000_000)
    assert (flat.close, flat.version, flat.trade_count) == (Decimal(7), 0, 0)


def test_a_late_trade_within_the_horizon_corrects_the_candle_with_a_greater_version():
    aggregator = TimeframeAggregator("1m", rules(epoch=3))
    aggregator.on_trade(make_trade(0, 1), 10)
    (first,) = aggregator.on_trade(make_trade(2, 2), 11)
    assert aggregator.on_trade(make_trade(0.5, 3, "200"), 12) == []
    (corrected,) = aggregator.corrections()
    assert (first.high, corrected.high) == (Decimal(100), Decimal(200))
    assert (first.version, corrected.version) == (3 * 2**40 + 10, 3 * 2**40 + 12)
    assert aggregator.corrections() == []


def test_a_trade_at_the_horizon_counts_and_one_beyond_it_does_not():
    for clock, counts in ((3.0, True), (3.0 + 1e-6, False)):  # the window ends at 1, the horizon is 2 minutes
        aggregator = TimeframeAggregator("1m")
        aggregator.on_trade(make_trade(clock, 1))
        aggregator.on_trade(make_trade(0.5, 2))
        assert (aggregator.late_reason(START) is None) is counts
        assert (len(aggregator.row.windows) == 2) is counts


def test_a_record_at_or_below_the_applied_offset_is_skipped():
    aggregator = TimeframeAggregator("1m")
    aggregator.on_trade(make_trade(0, 1), 5)
    aggregator.on_trade(make_trade(0, 2), 5)
    aggregator.on_trade(make_trade(0, 3), 4)
    current = aggregator.get_current_candle()
    assert current is not None
    assert current.trade_count == 1


def test_windows_that_may_lack_trades_are_never_emitted():
    log = [make_trade(minute, minute) for minute in range(12)]
    aggregator = SymbolAggregator(TIMEFRAMES, rules(), complete_from=START + 30_000_000)
    candles = aggregator.on_trades(log, range(12)).candles
    assert {c.open_time for c in candles if c.timeframe == "1m"} == {START + m * 60_000_000 for m in range(1, 10)}
    assert all(c.open_time >= START + 30_000_000 for c in candles)
    assert any(c.timeframe == "5m" for c in candles)


def test_open_candles_are_all_windows_not_closed_yet_but_those_that_may_lack_trades():
    aggregator = TimeframeAggregator("1m", rules(), StateRow(complete_from=START))
    assert aggregator.get_open_candles() == []
    for minute, sequence in ((-0.5, 1), (0, 2), (0.9999, 3), (1.01, 4)):
        aggregator.on_trade(make_trade(minute, sequence))  # the window of minute 0 waits for the lateness
    assert [(c.open_time, c.trade_count) for c in aggregator.get_open_candles()] == [
        (START, 2),
        (START + 60_000_000, 1),
    ]
    aggregator.on_trade(make_trade(1.5, 5))
    assert aggregator.get_open_candles() == [aggregator.get_current_candle()]


def test_an_aggregator_refuses_the_trades_of_another_symbol():
    aggregator = TimeframeAggregator("1m")
    aggregator.on_trade(make_trade(0, 1))
    other = Trade("binance:BTCUSDT", "2", Decimal(1), Decimal(1), "buy", START, START, 1)
    with pytest.raises(ContractError, match="one per symbol"):
        aggregator.on_trade(other)


def test_a_late_trade_in_the_middle_of_a_chunk_is_not_hidden_by_a_flat_candle_of_a_later_one():
    # Found by Hypothesis: nothing has closed yet, and the chunk's first window is also its last to get a trade.
    log = [make_trade(minute, sequence) for sequence, minute in enumerate((122 / 60, 0, 1, 0))]
    candles, _, _ = fold_log(log, [0, 4], rules())
    assert stored(candles) == closed(candles_of(log, NAMES), log, 2_000_000)
