"""Candles of files and live candles are one series: that of one fold over all trades."""

from __future__ import annotations

import random
from decimal import Decimal
from itertools import pairwise
from operator import attrgetter

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from loading import FINEST, NAMES, SYMBOL, Loaded, live_candles, load

from ashi.contracts import Trade
from ashi.contracts.errors import UsageError
from ashi_ingest.history.settled_gaps import Span
from oracle import candles_of, closed, stored
from samples.hypothesis_strategies import START, trades

MINUTE = 60_000_000
OPEN_TIME = attrgetter("open_time")
RANDOMS = st.randoms(use_true_random=False)


def in_order(log: list[Trade]) -> list[Trade]:
    """By time, with numbers that follow each other."""
    ordered = sorted(log, key=lambda trade: (trade.traded_at, trade.sequence))
    return [
        msgspec.structs.replace(each, trade_id=str(number), sequence=number)
        for number, each in enumerate(ordered, start=100)
    ]


def a_trade(number: int, at: int) -> Trade:
    return Trade(SYMBOL, str(number), Decimal(100 + number), Decimal("0.5"), "buy", START + at, START + at, number)


def closed_live(result: Loaded, live: list, expected: dict) -> tuple[dict, dict]:
    """What is known, and what must be, where the first live candle has closed; nothing else is wrong."""
    begun = {candle.timeframe for candle in live}
    known = stored([*live, *result.candles, *result.joined])
    assert {key: value for key, value in known.items() if expected.get(key) != value} == {}
    return (
        {key: value for key, value in known.items() if key[1] in begun},
        {key: value for key, value in expected.items() if key[1] in begun},
    )


@settings(max_examples=50)
@given(trades(count=60, symbols=[SYMBOL]), st.integers(0, 60), st.integers(0, 60), RANDOMS)
def test_files_and_live_candles_are_one_series_without_a_seam(
    log: list[Trade], cut: int, reach: int, rng: random.Random
):
    ordered = in_order(log)
    before, after = ordered[:cut], ordered[cut:]
    live = live_candles(after) if after else []
    assume(before and live)
    # Files go beyond the edge, or just up to it, overlap, and are in disorder.
    of_files = ordered[: cut + reach]
    middle = rng.randint(0, len(of_files))
    files = [of_files[: middle + 3], of_files[max(middle - 3, 0) :]]
    for file in files:
        rng.shuffle(file)
    rng.shuffle(files)
    result = load([file for file in files if file], live)
    assert result.plan.reaches_edge
    assert result.plan.holes == []
    got, wanted = closed_live(result, live, closed(candles_of(ordered, NAMES), ordered, 2_000_000))
    assert got == wanted
    # Given again, nothing differs.
    again = load([of_files], live, loaded=result.candles, joined=result.joined, number=1)
    assert (again.candles, again.joined) == ([], [])


@settings(max_examples=50)
@given(trades(count=60, symbols=[SYMBOL]), st.integers(1, 60), st.sets(st.integers(0, 59), max_size=12), RANDOMS)
def test_where_no_hole_is_told_nothing_is_missing(log: list[Trade], cut: int, lost: set[int], rng: random.Random):
    ordered = in_order(log)
    live = live_candles(ordered[cut:]) if ordered[cut:] else []
    of_files = [trade for place, trade in enumerate(ordered[:cut]) if place not in lost]
    assume(live and of_files)
    middle = rng.randint(0, len(of_files))
    files = [file for file in (of_files[:middle], of_files[middle:]) if file]
    result = load(files, live, contiguous=True)
    first = of_files[0].traded_at
    expected = closed(candles_of(ordered, NAMES), ordered, 2_000_000)
    known = stored([*live, *result.candles, *result.joined])
    begun = {candle.timeframe for candle in live}
    for key, value in expected.items():
        _, timeframe, open_time = key
        window = Span(open_time, value["close_time"])
        is_told = any(
            hole.from_us < window.to_us and max(hole.to_us, hole.from_us + 1) > window.from_us
            for hole in result.plan.holes
        )
        if open_time > first and timeframe in begun and not is_told:
            assert known.get(key) == value, key
    # And each that is known has no trade that there is not, nor is it flat where a trade was lost.
    present, every = candles_of([*of_files, *ordered[cut:]], NAMES), candles_of(ordered, NAMES)
    for key, value in known.items():
        if value["trade_count"]:
            assert value["trade_count"] <= present[key]["trade_count"]
        else:
            assert key not in every, key


def test_a_missing_file_becomes_a_hole_and_no_flat_candles():
    files = [[a_trade(1, 0), a_trade(2, 90_000_000)], [a_trade(8, 10 * MINUTE), a_trade(9, 11 * MINUTE)]]
    live = live_candles([a_trade(10, 12 * MINUTE), a_trade(11, 16 * MINUTE)])
    for contiguous, adjacent_us in ((True, 0), (False, 0), (False, 5 * MINUTE)):
        result = load(files, live, contiguous=contiguous, adjacent_us=adjacent_us)
        assert result.plan.holes == [Span(START + 90_000_000, START + 10 * MINUTE + 1)]
        of_minutes = [(each.open_time - START) // MINUTE for each in result.candles if each.timeframe == "1m"]
        assert of_minutes == [0, 1, 10, 11]
    assert load(files, live, adjacent_us=9 * MINUTE).plan.holes == []


def test_files_that_end_before_the_live_candles_begin_say_so():
    live = live_candles([a_trade(20, 12 * MINUTE), a_trade(21, 16 * MINUTE)])
    result = load([[a_trade(1, 0), a_trade(2, 90_000_000)]], live, contiguous=True)
    assert not result.plan.reaches_edge
    assert result.plan.holes == [Span(START + 90_000_000, START + 13 * MINUTE)]
    assert [(each.timeframe, each.open_time - START) for each in result.candles] == [("1m", 0), ("5m", -4 * MINUTE)]
    assert result.plan.known_spans() == [Span(START + 1, START + 90_000_000)]


def test_numbers_a_little_out_of_order_are_no_holes():
    log = [a_trade(number, number * 20_000_000) for number in range(1, 12)]
    log[2], log[3] = (
        a_trade(4, log[2].traded_at - START),  # on the other side of a minute's end, and a later number
        a_trade(3, log[3].traded_at - START),
    )
    live = live_candles([a_trade(12, 12 * MINUTE), a_trade(13, 16 * MINUTE)])
    assert load([log], live, contiguous=True).plan.holes == []


def test_a_candle_with_more_trades_is_left_and_one_with_fewer_is_replaced():
    live = live_candles([a_trade(12, 12 * MINUTE), a_trade(13, 16 * MINUTE)])
    whole = [a_trade(number, number * 20_000_000) for number in range(1, 12)]
    part = [trade for trade in whole if trade.trade_id != "4"]
    poor = load([part], live, number=0)
    better = load([whole], live, loaded=poor.candles, joined=poor.joined, number=1)
    changed = {(each.timeframe, each.version) for each in better.candles}
    assert changed == {("1m", 1), ("5m", 1)}
    again = load([part], live, loaded=[*poor.candles, *better.candles], joined=poor.joined, number=2)
    assert again.candles == []
    assert again.plan.richer is not None


def test_a_live_candle_that_may_still_change_is_joined_by_a_later_load():
    live = live_candles([a_trade(12, 12 * MINUTE + 30_000_000), a_trade(13, 17 * MINUTE)])
    assert {each.timeframe for each in live} == {"1m", "5m"}
    files = [[a_trade(number, 11 * MINUTE + number * 7_000_000) for number in range(5, 12)]]
    early = load(files, live, final_until=START + 13 * MINUTE)
    assert [each.timeframe for each in early.joined] == ["1m"]
    assert list(map(str, early.plan.not_yet)) == ["5m", "1h"]
    later = load(files, live, loaded=early.candles, joined=early.joined, number=1)
    assert (later.candles, [each.timeframe for each in later.joined]) == ([], ["5m"])
    assert list(map(str, later.plan.not_yet)) == ["1h"]
    assert later.joined[0].trade_count == 8


def test_files_without_a_trade_from_before_are_refused():
    live = live_candles([a_trade(12, 12 * MINUTE), a_trade(13, 16 * MINUTE)])
    with pytest.raises(UsageError, match="nothing to load"):
        load([[a_trade(14, 17 * MINUTE)]], live)


def test_each_overlap_counts_a_trade_once_however_many_files_have_it():
    log = [a_trade(number, number * 7_000_000) for number in range(1, 60)]
    live = live_candles([a_trade(60, 12 * MINUTE), a_trade(61, 16 * MINUTE)])
    files = [log[start : start + 17] for start in range(0, 60, 5)]
    assert all(set(one) & set(other) for one, other in pairwise(files[:-3]))
    result = load(files, live, contiguous=True)
    wanted = candles_of(log, ["1m"])
    assert {
        (each.symbol, each.timeframe, each.open_time): each.trade_count
        for each in result.candles
        if each.timeframe == "1m" and each.trade_count
    } == {key: value["trade_count"] for key, value in wanted.items()}
    assert FINEST.open_time(log[-1].traded_at) == max(key[2] for key in wanted)


def test_a_candle_that_was_rebuilt_where_the_topic_had_lost_it_is_joined_as_it_is_now():
    log = [a_trade(number, (number - 100) * MINUTE // 10) for number in range(100, 130)]
    log.append(a_trade(130, 120 * MINUTE))
    late = log[13]
    live = live_candles([trade for trade in log[12:] if trade is not late])
    written_down = [min((each for each in live if each.timeframe == name), key=OPEN_TIME) for name in NAMES]
    opened = {(each.timeframe, each.open_time) for each in written_down}
    kept = [each for each in live if (each.timeframe, each.open_time) not in opened]
    rebuilt = [each for each in live_candles(log[12:], epoch=2) if (each.timeframe, each.open_time) in opened]
    result = load([log[:20]], [*kept, *rebuilt], written_down=written_down)
    expected = candles_of(log, NAMES)
    known = stored(result.joined)
    assert {key[1] for key in known} == set(NAMES)
    assert known == {key: expected[key] for key in known}
