"""What is remembered of feeds, venues and strategies: the last word on each, bounded."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ashi.client import Completeness
from ashi.contracts.feed import FeedGap, FeedStatus, GapState
from ashi.contracts.instrument import Instrument
from ashi.contracts.signal import Signal
from ashi_chart.markets.feeds import REPAIRED, SPARE, Feeds
from ashi_chart.markets.signals import Signals
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US, a_candle

STATES: list[GapState] = ["open", "repaired", "lost"]


def a_gap(number: int, updated: int = 0, state: GapState = "open", symbol: str = BTC) -> FeedGap:
    start = FIRST_US + number * MINUTE_US
    return FeedGap(symbol, start, start + MINUTE_US, state, 0, "why", FIRST_US + updated)


def a_status(updated: int, until: int | None = None, symbol: str = BTC) -> FeedStatus:
    return FeedStatus(symbol, "connected", FIRST_US, None, None, None, FIRST_US + updated, until)


messages = st.one_of(
    st.builds(a_gap, st.integers(0, 5), st.integers(0, 9), st.sampled_from(STATES), st.sampled_from([BTC, ETH])),
    st.builds(
        lambda updated, until, symbol: a_status(updated, FIRST_US + until * MINUTE_US, symbol),
        st.integers(0, 9),
        st.integers(0, 8),
        st.sampled_from([BTC, ETH]),
    ),
)


@given(st.lists(messages, max_size=30))
def test_what_is_known_is_what_the_client_knows_of_the_same_messages(said: list[FeedGap | FeedStatus]) -> None:
    feeds, oracle = Feeds(), Completeness()
    for message in said:
        before = feeds.coverage(message.symbol)
        is_news = oracle.update(message)
        assert feeds.take(message) == is_news
        if not is_news:
            assert feeds.coverage(message.symbol) is before
    for symbol in (BTC, ETH):
        coverage = feeds.coverage(symbol)
        assert coverage.complete_until == oracle.complete_until(symbol)
        for number in range(10):
            candle = a_candle(number, symbol=symbol)
            assert coverage.has_all(candle.open_time, candle.close_time) == oracle.is_complete(candle)
            assert coverage.lacks(candle.open_time, candle.close_time) == bool(oracle.gaps_in(candle))


def test_gaps_of_a_time_come_in_order_in_whatever_state() -> None:
    feeds = Feeds()
    for gap in (a_gap(7), a_gap(3, state="repaired"), a_gap(5, state="lost"), a_gap(4, symbol=ETH)):
        feeds.take(gap)
    at = [FIRST_US + number * MINUTE_US for number in range(10)]
    assert [gap.from_time for gap in feeds.gaps(BTC, at[3], at[7])] == [at[3], at[5]]
    assert [gap.from_time for gap in feeds.gaps(BTC, at[4], at[8])] == [at[5], at[7]]


def test_of_many_gaps_the_oldest_repaired_ones_are_forgotten_and_none_where_trades_are_missing() -> None:
    feeds = Feeds()
    feeds.take(a_gap(0, state="lost"))
    for number in range(1, REPAIRED + 3 * SPARE):
        feeds.take(a_gap(number, state="open"))
        feeds.take(a_gap(number, updated=1, state="repaired"))
    kept = feeds.gaps(BTC, 0, 2**60)
    assert (kept[0].from_time, kept[0].state) == (FIRST_US, "lost")
    newest = FIRST_US + (REPAIRED + 3 * SPARE - 1) * MINUTE_US
    assert [gap.from_time for gap in kept[1:]][-REPAIRED:] == list(
        range(newest - (REPAIRED - 1) * MINUTE_US, newest + 1, MINUTE_US)
    )
    assert len(kept) <= 1 + REPAIRED + SPARE


def test_of_an_instrument_and_a_status_the_newer_counts() -> None:
    feeds = Feeds()
    new = Instrument(BTC, "BTC", "JPY", Decimal(1), None, "trading", FIRST_US + 2)
    assert feeds.take(new)
    assert not feeds.take(msgspec.structs.replace(new, updated_at=FIRST_US + 1, state="halted"))
    assert feeds.instrument(BTC) == new
    assert feeds.instrument(ETH) is None
    assert feeds.status(BTC) is None
    feeds.take(a_status(5, symbol=ETH))
    feeds.take(a_status(4, symbol=ETH))
    status = feeds.status(ETH)
    assert status is not None
    assert status.updated_at == FIRST_US + 5
    assert feeds.symbols() == {BTC, ETH}


def a_signal(number: int = 0, version: int = 1, symbol: str = BTC, **more: object) -> Signal:
    candle = a_candle(number)
    signal = Signal(
        "ma_cross(fast=9,slow=21)", symbol, "1m", candle.open_time, candle.close_time, version, 0, "long", None,
        candle.close, None, {}, True, None, "active", FIRST_US,
    )  # fmt: skip
    return msgspec.structs.replace(signal, **more)


def test_a_signal_that_is_taken_back_is_gone_and_does_not_come_again_behind_that() -> None:
    signals, of_all = Signals(), (0, 2**60)
    assert signals.take(a_signal())
    assert not signals.take(a_signal())
    assert signals.of(BTC, *of_all) == [a_signal()]
    assert signals.take(a_signal(status="superseded"))
    assert signals.of(BTC, *of_all) == []
    assert not signals.take(a_signal())
    assert signals.take(a_signal(version=2, target="short"))
    assert signals.of(BTC, *of_all) == [a_signal(version=2, target="short")]


def test_signals_are_chosen_by_when_they_begin_to_count_and_come_in_that_order() -> None:
    signals = Signals()
    for number in (5, 3, 4):
        signals.take(a_signal(number))
    signals.take(a_signal(4, strategy="another"))
    signals.take(a_signal(4, symbol=ETH))
    chosen = signals.of(BTC, a_signal(4).close_time, a_signal(5).close_time)
    assert chosen == [a_signal(4, strategy="another"), a_signal(4), a_signal(5)]


def test_of_many_signals_and_symbols_those_that_came_last_are_remembered() -> None:
    signals = Signals(of_a_symbol=3, symbols=2)
    for number in range(5):
        signals.take(a_signal(number))
    signals.take(a_signal(2, version=2))
    signals.take(a_signal(6))
    assert [signal.open_time for signal in signals.of(BTC, 0, 2**60)] == [
        a_signal(number).open_time for number in (2, 4, 6)
    ]
    for symbol in ("binance:AUSDT", "binance:BUSDT"):
        signals.take(a_signal(symbol=symbol))
    assert signals.of(BTC, 0, 2**60) == []
    assert len(signals.of("binance:AUSDT", 0, 2**60)) == 1
