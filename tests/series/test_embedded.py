"""Candles and series of trades that a script gives, against an oracle that looks at all trades at once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.candle import Candle, check_candle
from ashi.contracts.errors import ContractError, UsageError
from ashi_series import CandleAggregator, LateTrade, LateTradeWarning, OhlcvStore
from samples.candles import a_candle

START = 1_723_161_000
"""The start of five minutes, s."""
MINUTE_US = 60_000_000


@dataclass
class Given:
    """A trade as the script gave it: seconds, price, size, side."""

    ts: int
    price: int
    size: int
    side: str | None


trades = st.lists(
    st.builds(
        Given,
        st.one_of(st.integers(0, 400), st.sampled_from([0, 59, 60, 119, 120, 300])).map(lambda second: START + second),
        st.integers(1, 50),
        st.integers(0, 5),
        st.sampled_from(["buy", "sell", None]),
    ),
    max_size=40,
)
nearly_in_order = st.tuples(trades, st.integers(0, 90)).map(
    lambda drawn: sorted(drawn[0], key=lambda trade: trade.ts + (trade.price * 7919) % (drawn[1] + 1))
)


def expected(given: list[Given], length_s: int, lateness_s: int) -> tuple[dict[int, list[Given]], list[Given]]:
    """The trades of each window by its start, those in progress too, in order of arrival; and those that are late.

    A window closes when a trade comes that is `lateness_s` or more past its end.
    """
    windows: dict[int, list[Given]] = {}
    late = []
    newest = None
    for trade in given:
        newest = trade.ts if newest is None else max(newest, trade.ts)
        start = trade.ts - trade.ts % length_s
        if start + length_s + lateness_s <= newest:
            late.append(trade)
        else:
            windows.setdefault(start, []).append(trade)
    return windows, late


def assert_is_of(candle: Candle, start: int, length_s: int, of_window: list[Given]) -> None:
    in_time = sorted(of_window, key=lambda trade: trade.ts)  # stable: trades of one time as they came
    prices = [trade.price for trade in of_window]
    bought = [trade for trade in of_window if trade.side == "buy"]
    assert (candle.open_time, candle.close_time) == (start * 1_000_000, (start + length_s) * 1_000_000)
    assert (candle.open, candle.close) == (in_time[0].price, in_time[-1].price)
    assert (candle.high, candle.low) == (max(prices), min(prices))
    assert candle.volume == sum(trade.size for trade in of_window)
    assert candle.quote_volume == sum(trade.size * trade.price for trade in of_window)
    assert candle.trade_count == len(of_window)
    assert candle.taker_buy_volume == sum(trade.size for trade in bought)
    assert candle.taker_buy_quote_volume == sum(trade.size * trade.price for trade in bought)


@given(nearly_in_order, st.sampled_from([0, 5, 70]))
def test_candles_are_those_of_the_trades_and_each_late_trade_is_told(given: list[Given], lateness_s: int) -> None:
    late: list[LateTrade] = []
    store = OhlcvStore(timeframes_sec=[300, 60], lateness_sec=lateness_s, on_late=late.append)
    returned: dict[int, list[Candle]] = {60: [], 300: []}
    for trade in given:
        for candle in store.on_trade("BTC_JPY", trade.ts, trade.price, trade.size, side=trade.side):  # type: ignore[arg-type]
            returned[(candle.close_time - candle.open_time) // 1_000_000].append(candle)
    for length_s, closed in returned.items():
        windows, too_late = expected(given, length_s, lateness_s)
        newest = max((trade.ts for trade in given), default=0)
        over = [start for start in sorted(windows) if start + length_s + lateness_s <= newest]
        series = store.get_series("BTC_JPY", length_s)
        assert list(series) == closed
        assert store.get_latest("BTC_JPY", length_s) == (closed[-1] if closed else None)
        assert [candle.open_time // 1_000_000 for candle in closed] == over
        still_open = series.open_candles()
        assert store.get_current("BTC_JPY", length_s) == (still_open[-1] if still_open else None)
        candles = closed + still_open
        for candle, start in zip(candles, sorted(windows), strict=True):
            assert_is_of(candle, start, length_s, windows[start])
        told = [each for each in late if each.timeframe.length_us == length_s * 1_000_000]
        assert [each.traded_at for each in told] == [trade.ts * 1_000_000 for trade in too_late]
        if given:
            assert store.ensure_aggregator("BTC_JPY", length_s).late_trades == len(too_late)


def test_one_aggregator_gives_the_candle_that_a_trade_closed() -> None:
    aggregator = CandleAggregator(timeframe_sec=60)
    assert (aggregator.get_current_candle(), aggregator.get_last_closed_candle()) == (None, None)
    assert aggregator.on_trade(START, 100.5, "0.1") is None
    assert aggregator.on_trade((START + 59) * 1_000, Decimal("99.25"), 0.2) is None
    current = aggregator.get_current_candle()
    assert current is not None
    assert (current.open, current.close, current.volume) == (Decimal("100.5"), Decimal("99.25"), Decimal("0.3"))
    closed = aggregator.on_trade(START + 60, 7, 1)
    assert closed == aggregator.get_last_closed_candle() == current
    assert aggregator.closed == (closed,)
    assert aggregator.on_trade(START + 61, 8, 1) is None
    assert aggregator.closed == ()
    assert aggregator.get_last_closed_candle() == closed
    assert aggregator.on_trade(START + 3_600, 8, 1) == aggregator.get_last_closed_candle() != closed


def test_trades_of_one_time_keep_their_order_of_arrival() -> None:
    aggregator = CandleAggregator()
    for price in (5, 9, 1, 7):
        aggregator.on_trade(START, price, 1)
    candle = aggregator.get_current_candle()
    assert candle is not None
    assert (candle.open, candle.close, candle.first_trade_id, candle.last_trade_id) == (5, 7, "1", "4")


def test_a_late_trade_is_a_warning_that_names_the_line_that_gave_it() -> None:
    store, aggregator = OhlcvStore(), CandleAggregator()
    for give in (lambda *trade: store.on_trade("BTC_JPY", *trade), aggregator.on_trade):
        give(START + 60, 1, 1)
        with pytest.warns(
            LateTradeWarning, match="from 2024-08-08 23:50:59 UTC came after its window had closed"
        ) as told:
            give(START + 59, 5, 1)
        assert [warning.filename for warning in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.on_trade("BTC_JPY", START + 60, 1, 1)
    candle = store.get_current("BTC_JPY", 60)
    assert candle is not None
    assert (candle.trade_count, candle.high) == (2, 1)


def test_the_last_microsecond_of_a_window_that_has_closed_is_late() -> None:
    late: list[LateTrade] = []
    aggregator = CandleAggregator(on_late=late.append)
    aggregator.on_trade((START + 60) * 1_000_000, 1, 1)
    aggregator.on_trade((START + 60) * 1_000_000 - 1, 1, 1)
    assert [each.traded_at for each in late] == [(START + 60) * 1_000_000 - 1]


def test_what_has_closed_is_not_kept_by_the_aggregator() -> None:
    aggregator = CandleAggregator(timeframe_sec=1)
    for second in range(50):
        aggregator.on_trade(START + second, 1, 1)
    assert len(aggregator._core.row.windows) <= 2
    assert len(aggregator._core.row.ids) <= 5


def test_a_trade_that_is_late_for_the_minute_may_be_in_time_for_five() -> None:
    late: list[LateTrade] = []
    store = OhlcvStore([60, 300], on_late=late.append)
    store.on_trade("X", START + 60, 1, 1)
    store.on_trade("X", START, 5, 1)
    five = store.get_current("X", 300)
    assert five is not None
    assert (five.high, five.trade_count) == (5, 2)
    assert [(str(each.timeframe), each.closed_until) for each in late] == [("1m", (START + 60) * 1_000_000)]


def test_a_quiet_market_closes_by_the_time_it_is_told_and_what_comes_then_is_late() -> None:
    late: list[LateTrade] = []
    store = OhlcvStore([60, 300], on_late=late.append)
    assert store.on_time(START) == []
    store.on_trade("X", START, 5, 1)
    assert store.on_time(START + 59.999) == []
    assert store.on_time(START + 60) == [store.get_latest("X", 60)]
    assert store.get_current("X", 60) is None
    assert store.on_time(START + 61) == []
    store.on_trade("X", START + 59, 5, 1)
    assert [str(each.timeframe) for each in late] == ["1m"]
    aggregator = store.ensure_aggregator("X", 60)
    assert aggregator.on_time((START + 300) * 1_000) is None


def test_windows_without_trades_give_flat_candles_where_they_are_asked_for() -> None:
    without, with_flat = CandleAggregator(), CandleAggregator(flat_candles=2)
    for aggregator in (without, with_flat):
        aggregator.on_trade(START, 5, 1)
        aggregator.on_trade(START + 300, 7, 1)
    assert [candle.trade_count for candle in without.closed] == [1]
    assert [candle.trade_count for candle in with_flat.closed] == [1, 0, 0]
    assert with_flat.get_last_closed_candle() == with_flat.closed[-1]
    assert with_flat.closed[-1].close == 5


def test_a_trade_that_comes_again_counts_once_where_trades_have_ids() -> None:
    aggregator = CandleAggregator()
    for trade_id in ("17", "18", "17", "a", "a"):
        aggregator.on_trade(START, 5, 1, trade_id=trade_id)
    candle = aggregator.get_current_candle()
    assert candle is not None
    assert candle.trade_count == 3
    with pytest.raises(UsageError, match="for all of a market or for none"):
        aggregator.on_trade(START, 5, 1)
    with pytest.raises(UsageError, match="1 to 128 characters"):
        aggregator.on_trade(START, 5, 1, trade_id="")


@pytest.mark.parametrize("wrong", [(float("nan"), 1, 1), (START, -1, 1), (START, 1, "x"), (START, float("nan"), 1)])
def test_a_trade_that_is_none_changes_nothing(wrong: tuple[Any, Any, Any]) -> None:
    store = OhlcvStore([60, 300])
    store.on_trade("X", START, 5, 1)
    before = store.get_current("X", 60)
    with pytest.raises(ContractError):
        store.on_trade("X", *wrong)
    assert store.get_current("X", 60) == before


def test_a_store_is_bounded_and_parts_symbols() -> None:
    store = OhlcvStore(limit=3)
    for minute in range(9):
        store.on_trade("A", START + 60 * minute, minute, 1)
        store.on_trade("B", START + 60 * minute, 100, 1)
    assert store.get_series("A", 60).closes().tolist() == [5, 6, 7]
    assert [candle.symbol for candle in store.get_series("B", "1m")] == ["B"] * 3


def test_a_candle_of_a_symbol_of_ashis_is_one_that_its_contract_accepts() -> None:
    store = OhlcvStore()
    store.on_trade("bitflyer:BTC_JPY", START, 8_763_519.5, 0.01)
    [candle] = store.on_trade("bitflyer:BTC_JPY", START + 60, 8_763_519, 0.01)
    check_candle(candle)


def test_a_timeframe_may_be_added_for_one_symbol() -> None:
    store = OhlcvStore([60])
    aggregator = store.ensure_aggregator("A", 300)
    assert store.ensure_aggregator("A", "5m") is aggregator
    store.on_trade("A", START, 5, 1)
    store.on_trade("B", START, 5, 1)
    assert store.get_current("A", 300) == aggregator.get_current_candle() is not None
    assert store.get_current("A", 60) is not None
    with pytest.raises(UsageError, match="the store keeps 1m and not 5m"):
        store.get_latest("B", 300)
    assert store.get_latest("never heard of", 60) is None


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="lateness_sec -1"):
        CandleAggregator(lateness_sec=-1)
    with pytest.raises(UsageError, match="nor endless"):
        CandleAggregator(lateness_sec=float("inf"))
    with pytest.raises(UsageError, match="flat_candles -1"):
        CandleAggregator(flat_candles=-1)
    with pytest.raises(UsageError, match="lateness_sec '2'"):
        CandleAggregator(lateness_sec="2")  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="does not divide a day"):
        CandleAggregator(timeframe_sec=61)
    with pytest.raises(ContractError, match=r"timeframe 60.0 is not a whole number of seconds: give 60"):
        CandleAggregator(timeframe_sec=60.0)  # type: ignore[arg-type]
    for wrong in (60, "1m"):
        with pytest.raises(UsageError, match="are not a collection of timeframes"):
            OhlcvStore(wrong)  # type: ignore[arg-type]
    for limit in (10.0, True, "10"):
        with pytest.raises(UsageError, match=f"limit {limit!r} is not a whole number"):
            OhlcvStore(limit=limit)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="ts 'x' is not a number"):
        OhlcvStore().on_time("x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="without timeframes"):
        OhlcvStore([])


def test_a_series_is_made_of_trades_or_of_candles_and_not_of_both() -> None:
    candle = a_candle()
    store = OhlcvStore()
    store.on_trade(candle.symbol, START, 5, 1)
    for take in (store.apply, store.update):
        with pytest.raises(UsageError, match="is made of trades"):
            take(candle)
    for feed in (OhlcvStore.apply, OhlcvStore.update):
        store = OhlcvStore()
        feed(store, candle)
        with pytest.raises(UsageError, match="is made of candles"):
            store.on_trade(candle.symbol, START, 5, 1)


@pytest.mark.parametrize("trade_id", ["uuid-{:032x}", None])
def test_no_trade_in_time_is_late_however_many_ids_a_window_has(
    trade_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ashi_aggregate.core.trade_ids.MAX_IDS", 50)
    late: list[LateTrade] = []
    aggregator = CandleAggregator("1h", lateness_sec=600, on_late=late.append)
    day = START - START % 86_400
    for number in range(100):  # of two windows by turns, so that numbers counted in this process are no interval either
        for ts in (day + 3_000, day + 3_600):
            aggregator.on_trade(ts + number / 100, 1, 1, trade_id=trade_id and trade_id.format(int(ts) + number))
    assert [candle.trade_count for candle in aggregator.get_open_candles()] == [100, 100]
    if trade_id:
        aggregator.on_trade(day + 3_000, 1, 1, trade_id=trade_id.format(day + 3_000))
        assert aggregator.get_open_candles()[0].trade_count == 100, "one that comes again counts once"
    assert late == []


def test_what_an_aggregator_of_a_store_is_given_is_in_its_series() -> None:
    store = OhlcvStore([60, 300])
    aggregator = store.ensure_aggregator("X", 60)
    for minute in range(5):
        aggregator.on_trade(START + 60 * minute, minute, 1)
    assert [candle.close for candle in store.get_series("X", 60)] == [0, 1, 2, 3]
    assert store.get_current("X", 60) == aggregator.get_current_candle() is not None
    aggregator.on_time(START + 300)
    assert store.get_latest("X", 60) == aggregator.get_last_closed_candle()
    assert store.get_current("X", 60) is None
    assert [candle.timeframe for candle in store.on_trade("X", START + 300, 5, 1)] == []
    assert len(store.get_series("X", 60)) == 5


def test_a_late_trade_whose_telling_raises_is_in_all_candles_it_is_in_time_for_and_is_told_of_all_others() -> None:
    told: list[str] = []

    def tell(late: LateTrade) -> None:
        told.append(str(late.timeframe))
        raise RuntimeError(f"late for {late.timeframe}")

    store = OhlcvStore([60, 120, 300], on_late=tell)
    store.on_trade("X", START + 120 - START % 120 + 120, 1, 1)
    with pytest.raises(RuntimeError, match="late for 1m"):
        store.on_trade("X", START + 1, 9, 1)
    assert told == ["1m", "2m"]
    five = store.get_current("X", 300)
    assert five is not None
    assert (five.trade_count, five.high) == (2, 9)
    store = OhlcvStore([60, 300])
    store.on_trade("X", START + 60, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LateTradeWarning):
            store.on_trade("X", START + 1, 9, 1)
    five = store.get_current("X", 300)
    assert five is not None
    assert five.trade_count == 2


def test_each_late_trade_is_warned_of_though_its_text_is_that_of_another_and_no_text_is_kept() -> None:
    store = OhlcvStore()
    store.on_trade("X", START + 60, 1, 1)
    kept = len(globals().get("__warningregistry__", {}))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for price in (5, 5, 6):
            store.on_trade("X", START, price, 1)
    assert [warning.filename for warning in told] == [__file__] * 3
    assert len(globals().get("__warningregistry__", {})) == kept


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"side": "BUY"}, "side 'BUY' is not a side: give 'buy' or 'sell'"),
        ({"side": ["buy"]}, "side"),
        ({"trade_id": 7}, "trade_id 7 must be a str"),
        ({"trade_id": ""}, "1 to 128 characters"),
        ({"trade_id": "x" * 129}, "1 to 128 characters"),
    ],
)
def test_a_side_or_an_id_that_is_none_is_refused_and_changes_nothing(wrong: dict[str, Any], told: str) -> None:
    store, aggregator, unused = OhlcvStore([60]), CandleAggregator(), a_candle(symbol="X")
    for give in (lambda *trade, **more: store.on_trade("X", *trade, **more), aggregator.on_trade):
        with pytest.raises((ContractError, UsageError), match=told):
            give(START, 1, 1, **wrong)
    aggregator.on_trade(START, 1, 1)
    current = aggregator.get_current_candle()
    assert current is not None
    assert (current.trade_count, current.taker_buy_volume) == (1, 0)
    store.apply(unused)  # the symbol is still one that nobody has given trades of


def test_where_one_trade_of_a_market_has_no_id_no_timeframe_takes_it() -> None:
    store = OhlcvStore([60])
    store.on_trade("X", START, 1, 1, trade_id="1")
    store.ensure_aggregator("X", 15)
    with pytest.raises(UsageError, match="for all of a market or for none"):
        store.on_trade("X", START + 1, 5, 1)
    assert store.get_current("X", 15) is None
    store.on_trade("X", START + 2, 6, 1, trade_id="2")
    for length_s, trades_in in ((15, 1), (60, 2)):
        current = store.get_current("X", length_s)
        assert current is not None
        assert (current.trade_count, current.high) == (trades_in, 6)
