"""Candles of longer timeframes, against the oracle: what the trades of the whole window give."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from chart_samples import candles_of
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from ashi.contracts import Candle, ContractError, Timeframe, Trade
from ashi.contracts.decimals import EXACT
from ashi_chart.candles.rollup import Rollup, offered
from ashi_chart.candles.timeframes import ChartTimeframe, sources_of, timeframes_that_come
from ashi_sinks.protocol import SeriesSpan
from samples import hypothesis_strategies
from samples.candles import FIRST_US, a_candle

DAY_US = 86_400_000_000


def parse(*names: str) -> list[Timeframe]:
    return [Timeframe.parse(name) for name in names]


def rollup(source: str, target: str) -> Rollup:
    return Rollup(Timeframe.parse(source), ChartTimeframe.parse(target))


def candles(trades: list[Trade], timeframe: str, flat: int = 3) -> list[Candle]:
    """The oracle's candles of one symbol, each with the number of its last trade as its version, and flat ones."""
    made = oracle.candles_of(trades, [timeframe])
    length = Timeframe.parse(timeframe).length_us
    result = []
    for (symbol, name, start), fields in made.items():
        version = max(trade.sequence for trade in trades if start <= trade.traded_at < start + length)
        result.append(Candle(symbol=symbol, timeframe=name, open_time=start, version=version, **fields))
        for number in range(1, flat + 1):
            later = start + number * length
            if (symbol, name, later) in made:
                break
            result.append(flat_after(result[-1], later, length))
    return sorted(result, key=lambda candle: candle.open_time)


def flat_after(candle: Candle, open_time: int, length: int) -> Candle:
    prices = dict.fromkeys(("open", "high", "low", "close"), candle.close)
    sums = dict.fromkeys(("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume"), Decimal(0))
    return msgspec.structs.replace(
        candle,
        open_time=open_time,
        close_time=open_time + length,
        trade_count=0,
        first_trade_id=None,
        last_trade_id=None,
        **prices,
        **sums,
    )


@given(
    trades=hypothesis_strategies.trades(span_us=20 * DAY_US, symbols=["bitflyer:BTC_JPY"]),
    chosen=st.sampled_from([("1m", "5m"), ("1m", "1h"), ("5m", "4h"), ("1h", "12h"), ("1h", "1d"), ("15m", "1d")]),
)
def test_a_candle_of_parts_is_what_the_trades_of_its_window_give(trades: list[Trade], chosen: tuple[str, str]) -> None:
    source, target = chosen
    rolled = candles_of(rollup(source, target), candles(trades, source))
    with_trades = [candle for candle in rolled if candle.trade_count]
    assert with_trades == candles(trades, target, flat=0)


@given(trades=hypothesis_strategies.trades(span_us=40 * DAY_US, symbols=["bitflyer:BTC_JPY"]))
def test_a_week_is_what_its_trades_give_from_monday_on(trades: list[Trade]) -> None:
    made = candles_of(rollup("1h", "1w"), candles(trades, "1h"))
    weeks = {candle.open_time: candle for candle in made if candle.trade_count}
    by_week: dict[str, list[Trade]] = {}
    for trade in trades:
        by_week.setdefault(datetime.fromtimestamp(trade.traded_at // 10**6, UTC).strftime("%G %V"), []).append(trade)
    assert len(weeks) == len(by_week)
    for start, week in weeks.items():
        monday = datetime.fromtimestamp(start / 10**6, UTC)
        assert (monday.weekday(), monday.hour, monday.minute, week.timeframe) == (0, 0, 0, "1w")
        members = sorted(by_week[monday.strftime("%G %V")], key=lambda trade: (trade.traded_at, trade.sequence))
        volume = Decimal(0)
        for trade in members:
            volume = EXACT.add(volume, trade.size)
        assert (week.open, week.close) == (members[0].price, members[-1].price)
        assert (week.high, week.low) == (max(t.price for t in members), min(t.price for t in members))
        assert (week.volume, week.trade_count) == (volume, len(members))
        assert week.close_time == start + 7 * DAY_US


@given(
    trades=hypothesis_strategies.trades(span_us=3 * DAY_US, symbols=["bitflyer:BTC_JPY"]),
    middle=st.sampled_from(["5m", "15m", "1h"]),
)
def test_a_roll_up_of_a_roll_up_is_that_of_the_finest(trades: list[Trade], middle: str) -> None:
    finest = candles(trades, "1m")
    between = candles_of(rollup("1m", middle), finest)
    assert candles_of(rollup(middle, "1d"), between) == candles_of(rollup("1m", "1d"), finest)


@settings(deadline=None)
@given(
    trades=hypothesis_strategies.trades(count=15, span_us=4 * 3_600_000_000, symbols=["bitflyer:BTC_JPY"]),
    cut=st.integers(1, 300),
)
def test_the_sum_of_the_first_parts_stands_for_them(trades: list[Trade], cut: int) -> None:
    day = rollup("1m", "1d")
    start, end = day.window_of(trades[0].traded_at)
    parts = [part for part in candles(trades, "1m", flat=100) if start <= part.open_time < end]
    head, rest = parts[:cut], parts[cut:]
    assert day.sum_of([day.sum_of(head), *rest]) == day.candle_of(parts)


def test_flat_parts_alone_are_a_flat_candle_at_the_close_before_as_it_was_corrected_last() -> None:
    first = a_candle(version=7, price="100")
    flat = [flat_after(first, FIRST_US + number * 60_000_000, 60_000_000) for number in range(5, 8)]
    corrected = flat_after(a_candle(version=9, price="99"), flat[1].open_time, 60_000_000)
    made = rollup("1m", "5m").candle_of([flat[0], corrected, flat[2]])
    expected = a_candle(version=9, price="99", timeframe="5m")
    assert made == flat_after(expected, FIRST_US + 300_000_000, 300_000_000)


def test_a_flat_part_counts_in_no_candle_with_trades() -> None:
    traded = a_candle(2, version=3, price="100")
    parts = [flat_after(a_candle(version=1, price="5"), FIRST_US, 60_000_000), traded]
    made = rollup("1m", "5m").candle_of(parts)
    assert (made.low, made.trade_count, made.first_trade_id, made.version) == (Decimal(100), 3, "1", 3)


def test_the_version_is_that_of_the_last_trade() -> None:
    parts = [a_candle(0, version=50), a_candle(1, version=60), a_candle(2, version=55)]
    assert rollup("1m", "5m").candle_of(parts).version == 60


def test_a_stored_candle_is_its_own() -> None:
    candle = a_candle()
    assert rollup("1m", "1m").candle_of([candle]) is candle


@pytest.mark.parametrize("windows", [[0, 0], [1, 0], [4, 5]], ids=["one twice", "in another order", "of two windows"])
def test_parts_that_are_not_of_one_window_in_order_are_refused(windows: list[int]) -> None:
    with pytest.raises(ContractError, match="bitflyer:BTC_JPY 1m at 16409"):
        rollup("1m", "5m").candle_of([a_candle(window) for window in windows])


def test_each_timeframe_is_made_of_the_longest_stored_one_that_divides_it() -> None:
    sources = {target.name: str(source) for target, source in sources_of(parse("1h", "1m", "5m", "8h")).items()}
    assert sources == {
        "1m": "1m", "5m": "5m", "15m": "5m", "30m": "5m", "1h": "1h", "2h": "1h", "4h": "1h", "8h": "8h", "12h": "1h",
        "1d": "8h", "1w": "8h",
    }  # fmt: skip
    assert list(sources)[-3:] == ["12h", "1d", "1w"]


def test_what_nothing_stored_divides_is_not_offered_nor_what_is_made_of_too_many() -> None:
    assert list(offered(parse("45m"))) == ["45m", "12h", "1d", "1w"]
    assert list(offered(parse("1s"))) == ["1s", "5m", "15m", "30m", "1h", "2h", "4h"]
    assert list(offered([])) == []


def test_a_stored_timeframe_is_shown_as_it_is() -> None:
    made = offered(parse("1m", "1d"))
    assert made["1d"].is_identity
    assert (made["1w"].source, made["1w"].parts) == (Timeframe.parse("1d"), 7)


def test_a_timeframe_that_comes_no_more_makes_no_other_and_is_shown_where_nothing_makes_it() -> None:
    day = DAY_US

    def span(timeframe: str, last: int) -> SeriesSpan:
        return SeriesSpan("bitflyer:BTC_JPY", timeframe, 0, last)

    spans = [span("1m", 9 * day), span("1h", 9 * day - day // 24), span("4h", 3 * day), span("1s", 3 * day)]
    coming = timeframes_that_come(spans)
    assert coming == set(parse("1m", "1h"))
    made = offered(coming, gone=set(parse("4h", "1s")))
    assert (str(made["4h"].source), str(made["1d"].source), str(made["1s"].source)) == ("1h", "1h", "1s")
    assert list(made)[:2] == ["1s", "1m"]
    assert timeframes_that_come([]) == set()


def test_what_is_no_timeframe_is_refused_with_what_could_be_written() -> None:
    with pytest.raises(ContractError, match="weeks are 1w"):
        ChartTimeframe.parse("2w")
    assert ChartTimeframe.parse("60m") == ChartTimeframe("1h", 3_600_000_000)
