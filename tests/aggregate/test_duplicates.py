"""A trade that comes again is counted once, whatever the order and however its times were rounded."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import Trade, parse_timeframes
from ashi_aggregate import TimeframeAggregator, WindowRules
from ashi_aggregate.core import trade_ids as ids_module
from ashi_aggregate.core.codec import decode_row, encode
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.trade_ids import TradeIds, WindowIds, as_number, as_numbers
from oracle import candles_of, closed, stored, timely, unique
from samples.hypothesis_strategies import START, cuts, trades

NAMES = ["1m", "5m", "1h"]
TIMEFRAMES = parse_timeframes(",".join(NAMES))
RULES = WindowRules(TIMEFRAMES[0])
ONE = ["binance:ETHUSDT"]


def fold(log: list[Trade], places: list[int], rules: WindowRules = RULES) -> tuple[list, list, int, SymbolAggregator]:
    aggregator = SymbolAggregator(TIMEFRAMES, rules)
    candles, late, duplicates = [], [], 0
    for begin, end in pairwise(places):
        if begin < end:
            outcome = aggregator.on_trades(log[begin:end], range(begin, end))
            candles += outcome.candles
            late += outcome.late
            duplicates += outcome.duplicates
            candles += aggregator.corrections()
            aggregator.drop_final()
    return candles, late, duplicates, aggregator


@given(data=st.data(), log=trades(symbols=ONE), texts=st.booleans())
def test_any_duplication_in_any_order_and_chunks_gives_the_oracles_candles(data, log, texts):
    if texts:
        log = [msgspec.structs.replace(trade, trade_id=f"t{trade.trade_id}") for trade in log]
    log = data.draw(st.permutations(log + data.draw(st.lists(st.sampled_from(log), max_size=20))))
    candles, late, duplicates, aggregator = fold(log, data.draw(cuts(len(log))))
    timely_trades = timely(log, "1m", RULES.horizon_us)
    counted = unique(timely_trades)
    assert stored(candles) == closed(candles_of(counted, NAMES), log, RULES.lateness_us)
    assert len(late) == len(log) - len(timely_trades)
    assert duplicates == len(timely_trades) - len(counted)
    assert decode_row(encode(aggregator.rows[0].row)) == aggregator.rows[0].row


@given(data=st.data(), log=trades(symbols=ONE))
def test_rows_of_different_positions_count_a_trade_once_each(data, log):
    log = data.draw(st.permutations(log + log[: len(log) // 2]))
    rows, candles = [], []
    for index in range(len(TIMEFRAMES)):
        written_at = data.draw(st.integers(0, len(log)))
        before, _, _, crashed = fold(log[:written_at], [0, written_at])
        candles += before
        rows.append(decode_row(encode(crashed.rows[index].row)))
    resumed = SymbolAggregator(TIMEFRAMES, RULES, rows)
    places = data.draw(cuts(len(log)))
    for begin, end in pairwise(places):
        if begin < end:
            candles += resumed.on_trades(log[begin:end], range(begin, end)).candles
            candles += resumed.corrections()
            resumed.drop_final()
    counted = unique(timely(log, "1m", RULES.horizon_us))
    assert stored(candles) == closed(candles_of(counted, NAMES), log, RULES.lateness_us)


def test_a_copy_whose_time_was_rounded_into_the_next_window_is_the_same_trade():
    aggregator = TimeframeAggregator("1m")
    first = Trade(ONE[0], "7", Decimal(5), Decimal(1), None, START + 59_999_500, START + 59_999_500, 7)
    aggregator.on_trade(first)
    aggregator.on_trade(msgspec.structs.replace(first, traded_at=START + 60_000_000))
    (candle,) = aggregator.get_open_candles()
    assert (candle.open_time, candle.trade_count) == (START, 1)


def test_newest_first_repeated_and_hours_late_is_counted_once_within_a_horizon_of_hours():
    rules = WindowRules(TIMEFRAMES[0], horizon_us=6 * 3600 * 10**6)
    ordered = [
        Trade(
            ONE[0], str(n * n), Decimal(n + 1), Decimal(1), "buy", START + n * 47_000_000, START + n * 47_000_000, n * n
        )
        for n in range(400)
    ]
    log = []
    for end in range(20, 401, 20):  # each message repeats the one before, newest first
        log += ordered[max(end - 40, 0) : end][::-1]
    candles, late, duplicates, _ = fold(log, [0, 13, 400, len(log)], rules)
    assert not late
    assert duplicates == len(log) - 400
    assert stored(candles) == closed(candles_of(ordered, NAMES), ordered, rules.lateness_us)


@given(data=st.data(), log=trades(symbols=ONE))
def test_with_few_ids_kept_chunks_and_crashes_still_change_nothing(data, log):
    log = data.draw(
        st.permutations([msgspec.structs.replace(each, trade_id=str(int(each.trade_id) * 2)) for each in log])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "MAX_IDS", 3)
        _, _, _, single = fold(log, list(range(len(log) + 1)))
        _, _, _, chunks = fold(log, data.draw(cuts(len(log))))
        written_at = data.draw(st.integers(0, len(log)))
        _, _, _, crashed = fold(log[:written_at], [0, written_at])
        rows = [decode_row(encode(crashed.rows[0].row)), None, None]
        resumed = SymbolAggregator(TIMEFRAMES, RULES, rows)
        resumed.on_trades(log, range(len(log)))
        for aggregator in (chunks, resumed):
            aggregator.corrections()
            aggregator.drop_final()
            for one, other in zip(single.rows, aggregator.rows, strict=True):
                assert one.row.dropped_until == other.row.dropped_until
                assert one.row.ids == other.row.ids
                assert one.row.windows == other.row.windows


@pytest.mark.parametrize("places", [1, 7, 1000])
def test_when_too_many_ids_are_kept_the_oldest_window_is_given_up_whatever_the_chunks(monkeypatch, places):
    monkeypatch.setattr(ids_module, "MAX_IDS", 50)
    log = [
        Trade(
            ONE[0],
            str(n * 2),
            Decimal(5),
            Decimal(1),
            None,
            START + n * 1_500_000 - n % 7 * 10**7,
            START + n * 1_500_000 - n % 7 * 10**7,
            n * 2,
        )
        for n in range(300)
    ]
    results = set()
    for size in (1, places):
        candles, late, _, aggregator = fold(log, [*range(0, len(log), size), len(log)])
        kept = sum(len(window) for window in aggregator.rows[0].row.ids.values())
        assert kept <= 50
        assert late
        results.add((aggregator.rows[0].row.dropped_until, len(late), len(stored(candles))))
    assert len(results) == 1


@given(numbers=st.lists(st.integers(0, 60), unique=True))
def test_intervals_hold_exactly_what_was_added(numbers):
    window = WindowIds()
    for count, number in enumerate(numbers):
        assert number not in window
        window.add(number)
        added = set(numbers[: count + 1])
        assert {n for n in range(-1, 62) if n in window} == added
        assert len(window) == sum(n - 1 not in added for n in added)
        assert window.numbers == sorted(set(window.numbers))


@given(runs=st.lists(st.sets(st.integers(0, 10), min_size=1), min_size=1, max_size=5))
def test_ascending_ids_are_added_as_one_by_one(runs):
    single, together = TradeIds({}, 60_000_000), TradeIds({}, 60_000_000)
    for number, run in enumerate(runs):
        ids = [number * 11 + n for n in sorted(run)]
        assert together.all_new(ids)
        together.add_ascending(START, ids)
        assert all(single.admit(str(n), START) for n in ids)
    assert single.windows == together.windows


@given(texts=st.lists(st.one_of(st.integers(0, 10**20).map(str), st.text(max_size=4)), min_size=1))
def test_ids_are_numbers_only_if_the_number_says_all_of_them(texts):
    single = [as_number(text) for text in texts]
    assert [str(number) for number in single] == texts
    together = as_numbers(texts)
    if together is not None:
        assert together == single
    elif all(isinstance(number, int) for number in single):
        assert "0" in texts  # looks like a leading zero; the slow path takes it


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(["a", "b", "c-1", "0x7", "7b", "x" * 40]), st.just("17")),
            st.one_of(
                st.integers(START, START + 180_000_000), st.sampled_from([START + 60_000_000, START + 59_500_000])
            ),
        ),
        min_size=1,
    ),
    st.sampled_from([1_000_000, 60_000_000]),
    st.sampled_from([4, 1000]),
)
def test_ids_that_are_texts_are_admitted_together_as_one_by_one(of, finest_us, most):
    texts, times = [text for text, _ in of], [at - START % finest_us for _, at in of]
    single, together = TradeIds({}, finest_us, most), TradeIds({}, finest_us, most)
    admitted = together.admit_texts(texts, times)
    if admitted is None:
        assert "17" in texts or sum(1 + len(text) // 16 for text in texts) > most, "else it is no reason"
        assert together.windows == {}
        return
    assert list(admitted) == [single.admit(text, at) for text, at in zip(texts, times, strict=True)]
    assert together.windows == single.windows
    assert len(together) == len(single) <= most
