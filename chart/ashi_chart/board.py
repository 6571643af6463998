"""All that the server knows, for whoever is connected: fed by the hub, asked by sessions and requests."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol

from ashi.contracts.errors import StorageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.instrument import Instrument
from ashi.contracts.signal import Signal
from ashi.contracts.timeframe import format_time
from ashi.runtime.wall_clock import now_us
from ashi_chart import wire
from ashi_chart.budget import Budget
from ashi_chart.candles.coverage import FOR_EVER, Coverage
from ashi_chart.markets.feeds import Feeds
from ashi_chart.markets.rows import Markets
from ashi_chart.markets.signals import Signals
from ashi_chart.series.active import encoded
from ashi_chart.series.history import History
from ashi_chart.series.series_set import SeriesSet
from ashi_sinks.joined import WithVenueCandles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.candle import Candle
    from ashi.runtime.settings import Settings
    from ashi_chart.series.active import ActiveSeries, Key
    from ashi_chart.series.store import ChartStore
    from ashi_chart.wire import KafkaState

TICK_S: Final = 1.0
ROWS_AT_ONCE: Final = 250
"""So many rows of markets are in one message, at most: some 100 KB."""
LARGE_MESSAGES: Final = 64 * 1024 * 1024
"""So many bytes may large messages have in memory together; a snapshot of 20,000 bars is some 2.5 MB."""


class Page(Protocol):
    """Who is connected, as far as the board tells it something that no series does."""

    def on_said(self, message: FeedStatus | FeedGap | Instrument | Signal) -> None:
        """Something was said of the symbol that it looks at."""

    def on_state(self) -> None:
        """How Kafka is has changed."""

    def on_tick(self) -> None:
        """Rows of markets may have changed."""


class Board:
    """What is known now."""

    def __init__(self, settings: Settings, store: ChartStore) -> None:
        self.store = store
        self.feeds = Feeds()
        self.signals = Signals()
        self.markets = Markets(self.feeds)
        self.series = SeriesSet(settings, store, self.feeds.coverage, self.take_said)
        self.large = Budget(LARGE_MESSAGES)
        self._pages: set[Page] = set()
        self._of_symbol: defaultdict[str, set[Page]] = defaultdict(set)
        self._symbols: set[str] = set()
        self._messages_since: dict[int, tuple[Sequence[bytes], int]] = {}
        self._kafka: KafkaState = "down"
        self._lag_s = 0.0

    # What the hub reads.

    def take_closed(self, candle: Candle) -> None:
        """A candle has closed, or was corrected."""
        self._symbols.add(candle.symbol)
        self.markets.take_closed(candle)
        self.series.take(candle, is_closed=True)

    def take_live(self, candle: Candle) -> None:
        """So far has a candle come whose window is open."""
        self._symbols.add(candle.symbol)
        self.markets.take_live(candle)
        self.series.take(candle, is_closed=False)

    def take_said(self, message: FeedStatus | FeedGap | Instrument | Signal) -> None:
        """What is said of a symbol; goes on to the pages that look at it, if it is news."""
        is_news = self.signals.take(message) if isinstance(message, Signal) else self.feeds.take(message)
        if not is_news:
            return
        self._symbols.add(message.symbol)
        self.markets.take_said(message)
        if isinstance(message, (FeedStatus, FeedGap)):
            self.series.cover(message.symbol)
        for page in self._of_symbol.get(message.symbol, ()):
            page.on_said(message)

    def begin_anew(self, reason: str) -> None:
        """Topic `candles` is another one now."""
        self.markets.read_again()
        self.series.begin_anew(reason)

    def on_kafka(self, state: KafkaState, lag_s: float) -> None:
        """How Kafka is, and how far behind we are."""
        changed, self._kafka, self._lag_s = state != self._kafka, state, lag_s
        self.series.on_topic(can_be_read=state != "down")
        if changed:
            for page in self._pages:
                page.on_state()

    async def run(self) -> None:
        """Make the rows of markets, once a second, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.markets.tick(now_us())
            self._messages_since.clear()
            for page in self._pages:
                page.on_tick()

    # Who is connected.

    def join(self, page: Page) -> None:
        """A page is connected."""
        self._pages.add(page)

    def leave(self, page: Page) -> None:
        """It is no more."""
        self._pages.discard(page)

    def look_at(self, symbol: str, page: Page) -> None:
        """It wants to know what is said of a symbol."""
        self._of_symbol[symbol].add(page)

    def look_away(self, symbol: str, page: Page) -> None:
        """It no longer does."""
        self._of_symbol[symbol].discard(page)
        if not self._of_symbol[symbol]:
            del self._of_symbol[symbol]

    # What is asked.

    @property
    def symbols(self) -> set[str]:
        """Those that something was heard of since the start."""
        return self._symbols

    def state(self) -> bytes:
        """How the server is, as a message."""
        return wire.state_message(self._kafka, self._lag_s, now_us())

    def feed(self, symbol: str) -> dict[str, Any]:
        """How trades of a symbol are received, as it is sent."""
        return wire.feed_fields(self.feeds.status(symbol), now_us())

    def markets_since(self, number: int) -> tuple[Sequence[bytes], int]:
        """Messages of the rows that have changed since, and the number to ask with next time; 0: of all rows."""
        found = self._messages_since.get(number)
        if found is None:
            rows, next_number = self.markets.rows_since(number)
            parts = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
            if not number and not parts:
                parts = [[]]
            messages = [wire.markets_message(part, is_all=not number and not place) for place, part in enumerate(parts)]
            found = self._messages_since[number] = messages, next_number
        return found

    def snapshot(self, series: ActiveSeries, bars: Sequence[bytes], *, more: bool) -> bytes:
        """A message of all that is to be drawn of a series, with these bars."""
        symbol = series.key.symbol
        start = int(bars[0][1 : bars[0].index(b",")]) if bars else now_us()
        return wire.snapshot(
            *series.key,
            bars,
            more=more,
            gaps=self.feeds.gaps(symbol, start, FOR_EVER),
            signals=self.signals.of(symbol, start, FOR_EVER),
            instrument=self.feeds.instrument(symbol),
            feed=self.feed(symbol),
        )

    async def older(self, key: Key, before: int, limit: int) -> bytes:
        """A page of bars that open before a time, µs, as `/api/bars` answers.

        Raises UsageError where there is no such series, and StorageError.
        """
        rollup = await self.series.find(key, self._symbols)
        tail = self.series.tail(key, rollup)

        async def read(reader: Any) -> bytes:
            history = History(WithVenueCandles(reader))
            page = await history.page(key.symbol, rollup, before, limit, tail)
            if page.lacking is not None:
                raise StorageError(
                    f"the store lags behind: it lacks what closed from {format_time(page.lacking[0])} to "
                    f"{format_time(page.lacking[1])} UTC"
                )
            first = page.rolled[0].candle.open_time if page.rolled else before
            known = self.feeds.gaps(key.symbol, first, before)
            gaps = await history.gaps(key.symbol, first, before, known)
            bars = encoded(page.rolled, Coverage(self.feeds.coverage(key.symbol).complete_until, gaps))
            return wire.page_of_bars(*key, bars, more=page.more, gaps=gaps)

        return await self.store.ask(read)

    async def hello(self, server: str) -> bytes:
        """The first message of a connection."""
        return wire.hello(list(await self.series.timeframes()), now_us(), server)
