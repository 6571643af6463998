"""All markets in a row each: last price, what the last 24 hours were, how the feed is. Pure, and in little memory.

Changes wait until `tick`, which makes the rows that are due, as many at a time as there is time for. So of a market
that changes all the time the newest row is made, and all have their turn. A row is encoded once, whoever is sent it.
"""

from __future__ import annotations

from collections import OrderedDict
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ashi.contracts.decimals import format_decimal
from ashi.contracts.feed import FeedStatus, is_stale
from ashi.contracts.instrument import Instrument
from ashi.contracts.timeframe import Timeframe
from ashi_chart.candles.rollup import NEVER
from ashi_chart.markets.day import Day, Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.contracts.signal import Signal
    from ashi_chart.markets.feeds import Feeds

ROWS_AT_ONCE: Final = 2_000
"""So many rows are made by a `tick` at most: some 40 ms, for which pages wait."""
SUM: Final = 10
"""A row whose day is to be added up anew takes the time of so many."""

_encode = msgspec.json.Encoder().encode


class _Market:
    __slots__ = ("day", "feed_state", "last", "last_of", "number", "row", "spark", "spark_number")

    def __init__(self, step: Step | None) -> None:
        self.day = Day(step)
        self.last: Decimal | None = None
        self.last_of = NEVER, NEVER  # open time and version of the candle that `last` is from
        self.row = b""
        self.number = 0
        self.spark: tuple[str, ...] | None = None
        self.spark_number = 0
        self.feed_state: str | None = None


class Markets:
    """The rows of all markets of which there is a candle, a status or an instrument."""

    def __init__(self, feeds: Feeds) -> None:
        """`feeds`: what is known of feeds beside; it is told before the markets are."""
        self.step: Step | None = None
        """Which candles days are made of; None while there are none."""
        self._timeframes: dict[str, Timeframe] = {}
        self._finest = ""
        self._feeds = feeds
        self._markets: OrderedDict[str, _Market] = OrderedDict()  # the one whose row has changed last at the end
        self._due: OrderedDict[str, None] = OrderedDict()
        self._to_read: OrderedDict[str, None] = OrderedDict()
        self._to_look_at: list[str] = []
        self._number = 0
        self._slot = NEVER

    # What comes.

    def know(self, symbols: Iterable[str], timeframes: Iterable[str] = ()) -> None:
        """There are these markets, and candles of these timeframes, which still come."""
        new = set(timeframes) - self._timeframes.keys()
        if new:
            self._choose(new)
        for symbol in symbols:
            self._market(symbol)
            self._due[symbol] = None

    def take_closed(self, candle: Candle) -> None:
        """Take in a closed candle, of whichever timeframe."""
        market, is_part = self._take(candle)
        if is_part and not market.day.take_closed(candle):
            self._to_read[candle.symbol] = None

    def take_live(self, candle: Candle) -> None:
        """Take in how far a candle has come, of whichever timeframe."""
        market, is_part = self._take(candle)
        if is_part:
            market.day.take_live(candle)

    def take_said(self, message: FeedStatus | FeedGap | Instrument | Signal) -> None:
        """Something is said of a symbol, and was news."""
        if isinstance(message, (FeedStatus, Instrument)):
            market = self._market(message.symbol)
            if isinstance(message, Instrument) or message.state != market.feed_state:
                self._due[message.symbol] = None

    # What is read from a store: see `sweep`.

    def next_to_read(self) -> str | None:
        """A symbol whose day is to be read from the store, and is taken for read now; None: there is none."""
        return self._to_read.popitem(last=False)[0] if self._to_read else None

    def read_again(self, symbols: Iterable[str] = ()) -> None:
        """Have the day of these symbols, or of all, read: something of it may have been missed."""
        self._to_read.update(dict.fromkeys(list(symbols) or self._markets))

    def take_day(self, symbol: str, candles: list[Candle], step: Step) -> bool:
        """The closed candles of `step` that a store has of the day and the slot before it, or else the last one before.

        False: it lacks some that have come; it is to be asked again when its worker is not so far behind.
        """
        market = self._market(symbol)
        self._due[symbol] = None
        if step != self.step:
            return True  # by now it waits to be read for another step
        if not market.day.take_all(candles):
            return False
        if market.last is None and candles:
            market.last = candles[-1].close
        return True

    # What is told.

    def tick(self, now: int, most: int = ROWS_AT_ONCE) -> None:
        """Make rows that are due, at most `most` of them; `now`: µs. To be called once a second."""
        self._look_at_some(now, most)
        while self._due and most > 0:
            symbol, _ = self._due.popitem(last=False)
            most -= SUM if self._markets[symbol].day.is_to_be_summed(now) else 1
            self._make(symbol, now)

    def rows_since(self, number: int) -> tuple[list[msgspec.Raw], int]:
        """The rows that have changed since, and the number to ask with next time; 0: all.

        A row is without its spark where that has not changed since.
        """
        rows: list[msgspec.Raw] = []
        for market in reversed(self._markets.values()):
            if market.number <= number:
                break
            row = market.row
            if market.spark_number > number:
                row = row[:-1] + b',"spark":' + _encode(market.spark) + b"}"
            rows.append(msgspec.Raw(row))
        return rows[::-1], self._number

    def __len__(self) -> int:
        return len(self._markets)

    def _market(self, symbol: str) -> _Market:
        market = self._markets.get(symbol)
        if market is None:
            market = self._markets[symbol] = _Market(self.step)
            self._markets.move_to_end(symbol, last=False)  # it has no row yet
            self._to_read[symbol] = None
        return market

    def _choose(self, new: Iterable[str]) -> None:
        self._timeframes.update({name: Timeframe.parse(name) for name in new})
        self._finest = str(min(self._timeframes.values()))
        step = Step.of(self._timeframes.values())
        if step == self.step:
            return
        self.step = step
        for market in self._markets.values():
            market.day = Day(step)
        self.read_again()

    def _take(self, candle: Candle) -> tuple[_Market, bool]:
        """Take in the price; the market, and whether the candle is a part of its day."""
        if candle.timeframe not in self._timeframes:
            self._choose([candle.timeframe])
        market = self._market(candle.symbol)
        if candle.timeframe == self._finest and (candle.open_time, candle.version) > market.last_of:
            market.last_of = candle.open_time, candle.version
            market.last = candle.close
            self._due[candle.symbol] = None
        is_part = self.step is not None and candle.timeframe == self.step.timeframe
        if is_part:
            self._due[candle.symbol] = None
        return market, is_part

    def _look_at_some(self, now: int, most: int) -> None:
        """What changes though nothing comes: days go on, and statuses become old. All have their turn."""
        if not self._to_look_at:
            self._to_look_at = list(self._markets.keys() | self._feeds.symbols())
            if self.step is not None and self._slot != (slot := now // self.step.slot_us):
                self._slot = slot
                self._due.update(dict.fromkeys(self._to_look_at))
        for symbol in self._to_look_at[-most:]:
            market = self._markets.get(symbol)
            if market is None or market.feed_state != self._feed_state(symbol, now):
                self.know([symbol])
        del self._to_look_at[-most:]

    def _feed_state(self, symbol: str, now: int) -> str | None:
        status = self._feeds.status(symbol)
        return None if status is None else "stale" if is_stale(status, now) else status.state

    def _make(self, symbol: str, now: int) -> None:
        market = self._markets[symbol]
        day, status, instrument = market.day.look(now), self._feeds.status(symbol), self._feeds.instrument(symbol)
        last = market.last if market.last is not None or day is None else day.last
        market.feed_state = self._feed_state(symbol, now)
        row: dict[str, Any] = {
            "symbol": symbol,
            "last": None if last is None else format_decimal(last),
            "change": None if day is None else _change(day.before, last),
            "volume": None if day is None else format_decimal(day.volume),
            "quote_volume": None if day is None else format_decimal(day.quote_volume),
            "state": None if instrument is None else instrument.state,
            "updated": None if status is None else status.last_traded_at,
            "feed": None
            if status is None
            else {"state": market.feed_state, "since": status.since, "reason": status.reason},
        }
        encoded = _encode(row)
        spark = () if day is None else day.closes
        if (encoded, spark) == (market.row, market.spark):
            return
        self._number += 1
        if spark != market.spark:
            market.spark, market.spark_number = spark, self._number
        market.row, market.number = encoded, self._number
        self._markets.move_to_end(symbol)


def _change(before: Decimal | None, last: Decimal | None) -> float | None:
    """By which part of the price before the last one is greater, or less."""
    if before is None or last is None or not before:
        return None
    return round(float(last) / float(before) - 1, 6)
