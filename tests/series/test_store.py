"""A store that is fed with candles and with what is said of their feeds."""

from __future__ import annotations

import msgspec

from ashi.contracts.feed import FeedGap, FeedStatus
from ashi_series import Closed, Corrected, Gap, InProgress, OhlcvStore
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US, a_candle


def a_status(complete_until: int | None, updated: int, symbol: str = BTC) -> FeedStatus:
    return FeedStatus(symbol, "connected", FIRST_US, None, "7", FIRST_US, FIRST_US + updated, complete_until)


def test_candles_go_to_their_series_and_tell_what_became_of_it() -> None:
    store = OhlcvStore(["1m", 300])
    assert store.update(a_candle(0, 1)) == InProgress(a_candle(0, 1))
    assert store.get_current(BTC, "1m") == a_candle(0, 1)
    assert store.apply(a_candle(0, 2)) == Closed(a_candle(0, 2), None)
    assert store.update(a_candle(0, 3)) is None
    assert store.apply(a_candle(0, 2)) is None
    assert store.apply(a_candle(0, 5)) == Corrected(a_candle(0, 5), a_candle(0, 2))
    assert store.apply(a_candle(0, 7, ETH, "5m")) == Closed(a_candle(0, 7, ETH, "5m"))
    assert store.get_latest(BTC, 60) == a_candle(0, 5)
    assert store.get_latest(ETH, 300) == a_candle(0, 7, ETH, "5m")
    assert (store.get_latest(ETH, 60), store.get_latest(BTC, 300)) == (None, None)


def test_a_candle_is_complete_or_not_or_it_is_not_known_yet() -> None:
    store = OhlcvStore()
    first, second = a_candle(0), a_candle(1)
    assert store.is_complete(first) is None
    assert store.take(a_status(None, 1)) is None
    assert store.is_complete(first) is None
    store.take(a_status(FIRST_US + MINUTE_US, 2))
    assert (store.is_complete(first), store.is_complete(second)) == (True, None)
    assert store.apply(first) == Closed(first, True)
    gap = FeedGap(BTC, FIRST_US + MINUTE_US, FIRST_US + MINUTE_US + 7, "open", 0, "silent", FIRST_US)
    assert store.take(gap) == Gap(gap)
    assert store.take(gap) is None, "that is known"
    assert store.is_complete(second) is False, "whatever the status will say"
    assert store.apply(second) == Closed(second, False)
    repaired = msgspec.structs.replace(gap, state="repaired", updated_at=FIRST_US + 1)
    assert store.take(repaired) == Gap(repaired)
    assert store.is_complete(second) is None
    store.take(a_status(FIRST_US + 2 * MINUTE_US, 3))
    assert store.is_complete(second) is True
