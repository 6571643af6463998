"""The rows of all markets: what is in them, when they change, and what a page is told that asks again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import pytest
from chart_samples import StoreInMemory
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import StorageError
from ashi.contracts.feed import STALE_AFTER_US, FeedState, FeedStatus
from ashi.contracts.instrument import Instrument
from ashi.contracts.timeframe import DAY_US, HOUR_US
from ashi_chart.markets.day import Step
from ashi_chart.markets.feeds import Feeds
from ashi_chart.markets.rows import Markets
from ashi_chart.markets.sweep import AGAIN_S, IDLE_S, Sweep
from ashi_sinks.protocol import CandleReader, SeriesSpan
from samples.candles import BTC, ETH, FIRST_US, a_candle

_T = TypeVar("_T")

NOW = FIRST_US + DAY_US + 100
"""A moment after the 24 hours that begin with FIRST_US and the hour that begins then."""
HOUR = Step("1h", HOUR_US)


def a_status(state: FeedState = "connected", updated: int = NOW, symbol: str = BTC) -> FeedStatus:
    return FeedStatus(symbol, state, FIRST_US, None, "7", NOW - 50, updated)


def hours(first: int, last: int, symbol: str = BTC) -> list[Any]:
    return [
        a_candle(n, symbol=symbol, timeframe="1h", price=str(100 + n), volume=Decimal(n)) for n in range(first, last)
    ]


def some_markets(*symbols: str) -> tuple[Markets, Feeds]:
    feeds = Feeds()
    markets = Markets(feeds)
    markets.know(symbols or [BTC], ["1m", "5m", "1h"])
    return markets, feeds


def said(markets: Markets, feeds: Feeds, message: FeedStatus | Instrument) -> None:
    assert feeds.take(message)
    markets.take_said(message)


def rows(markets: Markets, since: int = 0, now: int = NOW) -> dict[str, dict[str, Any]]:
    markets.tick(now)
    return {row["symbol"]: row for row in map(msgspec.json.decode, markets.rows_since(since)[0])}


def test_a_row_has_the_last_price_and_what_the_last_24_hours_were() -> None:
    markets, feeds = some_markets()
    markets.take_day(BTC, hours(0, 24), HOUR)
    said(markets, feeds, a_status())
    said(markets, feeds, Instrument(BTC, "BTC", "JPY", None, None, "halted", NOW))
    markets.take_live(a_candle(24 * 60, 5, price="150.50"))
    markets.take_live(a_candle(24, 5, timeframe="1h", price="150.50", volume=Decimal("0.25"), quote_volume=Decimal(37)))
    assert rows(markets) == {
        BTC: {
            "symbol": BTC,
            "last": "150.5",
            "change": 0.505,
            "volume": "276.25",
            "quote_volume": str(sum(100 + n for n in range(1, 24)) + 37),
            "state": "halted",
            "updated": NOW - 50,
            "feed": {"state": "connected", "since": FIRST_US, "reason": None},
            "spark": [str(100 + n) for n in range(1, 24)],
        }
    }


def test_what_is_not_known_is_null_until_the_store_was_asked() -> None:
    markets, _ = some_markets()
    assert rows(markets)[BTC] == {
        "symbol": BTC, "last": None, "change": None, "volume": None, "quote_volume": None, "state": None,
        "updated": None, "feed": None, "spark": [],
    }  # fmt: skip
    markets.take_live(a_candle(24 * 60, 5, price="7"))
    assert rows(markets)[BTC]["last"] == "7"
    markets.take_day(BTC, [], HOUR)
    row = rows(markets)[BTC]
    assert (row["last"], row["change"], row["volume"]) == ("7", None, "0")


def test_the_price_of_a_market_that_rests_is_its_last_one() -> None:
    markets, _ = some_markets()
    markets.take_day(BTC, hours(0, 1), HOUR)
    row = rows(markets, now=NOW + 10 * DAY_US)[BTC]
    assert (row["last"], row["change"], row["volume"], row["spark"]) == ("100", None, "0", [])


def test_the_last_price_is_that_of_the_newest_window_and_no_correction_of_an_older_one() -> None:
    markets, _ = some_markets()
    markets.take_closed(a_candle(5, version=10, price="5"))
    markets.take_live(a_candle(6, version=12, price="6"))
    markets.take_closed(a_candle(5, version=99, price="4"))
    markets.take_closed(a_candle(6, version=11, price="3"))
    markets.take_closed(a_candle(0, version=100, price="2", timeframe="5m"))
    assert rows(markets)[BTC]["last"] == "6"
    markets.take_closed(a_candle(6, version=13, price="7"))
    assert rows(markets)[BTC]["last"] == "7"


def test_a_page_that_asks_again_gets_what_has_changed_and_a_spark_only_when_that_did() -> None:
    markets, _ = some_markets(BTC, ETH)
    for symbol in (BTC, ETH):
        markets.take_day(symbol, hours(0, 24, symbol), HOUR)
    assert set(rows(markets)) == {BTC, ETH}
    number = markets.rows_since(0)[1]
    assert rows(markets, number) == {}
    markets.take_closed(a_candle(24 * 60, price="7"))
    changed = rows(markets, number)
    assert (changed[BTC]["last"], "spark" in changed[BTC], list(changed)) == ("7", False, [BTC])
    assert "spark" in rows(markets, 0)[BTC]
    markets.take_closed(hours(24, 25)[0])
    assert len(rows(markets, number, NOW + HOUR_US)[BTC]["spark"]) == 23


def test_what_comes_again_or_changes_nothing_is_not_told() -> None:
    markets, feeds = some_markets()
    markets.take_day(BTC, hours(0, 24), HOUR)
    said(markets, feeds, a_status())
    rows(markets)
    number = markets.rows_since(0)[1]
    markets.take_closed(hours(23, 24)[0])
    said(markets, feeds, a_status(updated=NOW + 1))
    assert rows(markets, number) == {}


def test_a_feed_that_says_nothing_any_more_is_stale_and_one_that_changes_is_told() -> None:
    markets, feeds = some_markets()
    said(markets, feeds, a_status())
    assert rows(markets)[BTC]["feed"]["state"] == "connected"
    number = markets.rows_since(0)[1]
    assert rows(markets, number, NOW + STALE_AFTER_US) == {}
    assert rows(markets, number, NOW + STALE_AFTER_US + 1)[BTC]["feed"]["state"] == "stale"
    said(markets, feeds, a_status("down", NOW + STALE_AFTER_US + 2))
    assert rows(markets, now=NOW + STALE_AFTER_US + 2)[BTC]["feed"]["state"] == "down"


def test_a_market_that_only_its_feed_tells_of_has_a_row() -> None:
    feeds = Feeds()
    markets = Markets(feeds)
    feeds.take(a_status(symbol=ETH))
    assert rows(markets)[ETH]["feed"]["state"] == "connected"


def test_days_go_on_though_nothing_comes() -> None:
    markets, _ = some_markets()
    markets.take_day(BTC, hours(0, 24), HOUR)
    assert rows(markets)[BTC]["volume"] == "276"
    assert rows(markets, now=NOW + 23 * HOUR_US)[BTC]["volume"] == "0"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 99)), max_size=40), st.integers(1, 4))
def test_with_few_rows_at_a_time_all_have_their_turn_and_each_page_ends_with_the_newest(
    prices: list[tuple[int, int]], most: int
) -> None:
    markets = Markets(Feeds())
    page: dict[str, dict[str, Any]] = {}
    number = 0
    for market, price in prices:
        markets.take_live(a_candle(price, symbol=f"binance:M{market}", price=str(price)))
        markets.tick(NOW, most)
        changed, number = markets.rows_since(number)
        assert len(changed) <= most
        for raw in changed:
            row = msgspec.json.decode(raw)
            page.setdefault(row["symbol"], {}).update(row)
    for _ in range(30):
        markets.tick(NOW, most)
    for raw in markets.rows_since(number)[0]:
        row = msgspec.json.decode(raw)
        page.setdefault(row["symbol"], {}).update(row)
    newest: dict[str, str] = {}
    for market, price in prices:
        newest[f"binance:M{market}"] = max(newest.get(f"binance:M{market}", "0"), str(price), key=int)
    assert {symbol: row["last"] for symbol, row in page.items()} == newest
    assert {row["symbol"]: row for row in map(msgspec.json.decode, markets.rows_since(0)[0])} == page


def test_days_are_made_of_another_timeframe_once_it_comes() -> None:
    markets = Markets(Feeds())
    markets.take_live(a_candle(24 * 60 - 5, timeframe="1m", price="8"))
    markets.take_live(a_candle(timeframe="5m"))
    assert (markets.step, markets.next_to_read()) == (Step("5m", HOUR_US), BTC)
    markets.take_day(BTC, [a_candle(n, timeframe="5m") for n in range(200, 204)], Step("5m", HOUR_US))
    assert rows(markets)[BTC]["volume"] == "6"
    markets.take_closed(a_candle(23, timeframe="1h"))
    assert (markets.step, markets.next_to_read()) == (HOUR, BTC)
    assert markets.take_day(BTC, [a_candle(n, timeframe="5m") for n in range(200, 204)], Step("5m", HOUR_US))
    assert rows(markets)[BTC]["volume"] is None  # what was read of the other says nothing of this one
    markets.take_day(BTC, hours(20, 23), HOUR)
    assert (rows(markets)[BTC]["volume"], rows(markets)[BTC]["last"]) == (str(Decimal("64.5")), "8")


def test_a_correction_that_only_the_store_can_tell_is_read_again() -> None:
    markets = Markets(Feeds())
    markets.know([BTC], ["5m"])
    assert markets.next_to_read() == BTC
    markets.take_day(BTC, [a_candle(n, timeframe="5m") for n in range(4)], Step("5m", HOUR_US))
    markets.take_closed(a_candle(4, timeframe="5m"))
    assert markets.next_to_read() is None
    markets.take_closed(a_candle(2, version=9, timeframe="5m"))
    assert markets.next_to_read() == BTC


class Away:
    """A store that can be away."""

    def __init__(self, *candles: Any) -> None:
        self._reader = StoreInMemory(list(candles))
        self.is_away = False
        self.asked = 0
        self.series: list[SeriesSpan] = []

    async def ask(self, question: Callable[[CandleReader], Awaitable[_T]]) -> _T:
        self.asked += 1
        if self.is_away:
            raise StorageError("the store is away")
        return await question(self._reader)

    async def spans(self) -> Sequence[SeriesSpan]:
        return self.series


def test_each_market_is_read_once_and_again_after_the_store_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ashi_chart.markets.sweep.time.time_ns", lambda: NOW * 1_000)
    markets, _ = some_markets(BTC, ETH)
    store = Away(*hours(0, 24), *hours(3, 4, ETH))
    sweep = Sweep(markets, store)

    async def read() -> None:
        store.is_away = True
        with pytest.raises(StorageError):
            await sweep.read_next()
        store.is_away = False
        for _ in range(2):
            assert await sweep.read_next() < IDLE_S
        assert await sweep.read_next() == IDLE_S

    asyncio.run(read())
    assert store.asked == 3
    read_rows = rows(markets)
    assert (read_rows[BTC]["volume"], read_rows[ETH]["volume"]) == ("276", "3")


def test_a_store_that_lags_too_far_behind_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ashi_chart.markets.sweep.time.time_ns", lambda: NOW * 1_000)
    markets, _ = some_markets()
    for candle in hours(0, 10):
        markets.take_closed(candle)
    sweep = Sweep(markets, Away(*hours(0, 2)))
    assert asyncio.run(sweep.read_next()) == AGAIN_S
    assert markets.next_to_read() == BTC


def test_the_markets_of_a_store_are_found_with_the_timeframes_that_still_come() -> None:
    markets = Markets(Feeds())
    store = Away()
    store.series = [
        SeriesSpan(BTC, "1s", FIRST_US, FIRST_US + DAY_US),  # of other settings, long ago
        SeriesSpan(BTC, "1m", FIRST_US, FIRST_US + 9 * DAY_US),
        SeriesSpan(BTC, "1h", FIRST_US, FIRST_US + 9 * DAY_US - HOUR_US),
        SeriesSpan(ETH, "1h", FIRST_US, FIRST_US),
    ]
    asyncio.run(Sweep(markets, store).find_markets())
    assert (markets.step, len(markets)) == (HOUR, 2)
    markets.take_closed(a_candle(price="7"))
    assert rows(markets)[BTC]["last"] == "7"  # of the shortest that comes
