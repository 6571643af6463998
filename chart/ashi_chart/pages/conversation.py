"""What one page looks at, and what it is told of that: made when the page can take it, so each time as of then."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import UsageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.signal import Signal
from ashi.runtime.metrics import chart as metrics
from ashi_chart import wire
from ashi_chart.pages.outbox import Outbox
from ashi_chart.series.active import Key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

    from ashi.contracts.instrument import Instrument
    from ashi_chart.board import Board
    from ashi_chart.series.active import ActiveSeries

STATE_INTERVAL_S: Final = 5.0
"""A page is told so often how things are, also when nothing else is to be told: so it knows that it is connected."""
PACE_S: Final = 0.05
"""Bars are sent at most so often: what changes within is one message."""
LARGE: Final = 256 * 1024
"""Messages of more bytes have a bound together."""
BYTES_OF_BAR: Final = 130


class Conversation:
    """A page's side of the board.

    Attributes:
        outbox: what the page has still to be told of its series.
        has_some: set when there may be something to be told.

    """

    def __init__(self, board: Board, server: str) -> None:
        """`server`: the id of this process."""
        self.outbox = Outbox()
        self.has_some = asyncio.Event()
        self._board = board
        self._server = server
        self._asked: wire.AskSeries | None = None
        self._unfound: wire.AskSeries | None = None
        self._series: ActiveSeries | None = None
        self._count = 0
        self._markets: int | None = None
        self._shows_feed: str | None = None
        self._state_at_s = 0.0
        self._bars_at_s = 0.0
        board.join(self)

    def end(self) -> None:
        """The page is gone."""
        self._leave()
        self._board.leave(self)

    # What the page asks.

    def ask(self, asked: wire.Asked) -> None:
        """It wants this from now on."""
        match asked:
            case wire.AskSeries():
                self._asked, self._unfound = asked, None
            case wire.AskMarkets():
                self._markets = 0
            case wire.LeaveMarkets():
                self._markets = None
            case wire.Ping():
                self._state_at_s = 0.0
        self.has_some.set()

    def complain(self, sentence: str) -> None:
        """It has sent what is no message."""
        self.outbox.put_error("message", sentence)
        self.has_some.set()

    # What the board and the series tell.

    def on_bars(self, bars: Iterable[tuple[int, bytes]]) -> None:
        """See `Watcher`."""
        self.outbox.put_bars(bars, time.monotonic())
        self.has_some.set()

    def on_loaded(self) -> None:
        """See `Watcher`."""
        self.outbox.wants_snapshot = True
        self.has_some.set()

    def on_trouble(self, sentence: str) -> None:
        """See `Watcher`."""
        self.outbox.put_error("series", sentence)
        self.has_some.set()

    def on_said(self, message: FeedStatus | FeedGap | Instrument | Signal) -> None:
        """See `Page`."""
        if isinstance(message, FeedStatus):
            self.outbox.feed = True
        elif isinstance(message, FeedGap):
            self.outbox.put_gap(message)
        elif isinstance(message, Signal):
            self.outbox.put_signal(message)
        else:
            self.outbox.instrument = True
        self.has_some.set()

    def on_state(self) -> None:
        """See `Page`."""
        self._state_at_s = 0.0
        self.has_some.set()

    def on_tick(self) -> None:
        """See `Page`."""
        if self._markets is not None:
            self.has_some.set()

    # What it is told.

    def wait_s(self) -> float:
        """For how long nothing is to be told unless `has_some` is set."""
        at_s = self._state_at_s
        if self.outbox.has_bars and not self.outbox.wants_snapshot:
            at_s = min(at_s, self._bars_at_s)
        return max(at_s - time.monotonic(), 0.0)

    async def hello(self) -> bytes:
        """The first message."""
        return await self._board.hello(self._server)

    async def messages(self) -> AsyncGenerator[tuple[str, bytes], None]:
        """What is to be told now, by kind; each is made when the page has taken the one before."""
        if time.monotonic() >= self._state_at_s:
            yield "state", self._look_up()
        if (asked := self._asked) is not None:
            self._asked = None
            finding = asyncio.create_task(self._find(asked, is_new=asked is not self._unfound))
            async for state in self._meanwhile(finding):
                yield "state", state
            finding.result()
        async with aclosing(self._snapshot()) as snapshot:
            async for kind, message in snapshot:
                yield kind, message
        while (error := self.outbox.take_error()) is not None:
            yield "error", wire.error_message(*error)
        for message in self._rows():
            yield "markets", message
        for kind, message in self._changes():
            yield kind, message

    async def _meanwhile(self, work: asyncio.Task[Any]) -> AsyncGenerator[bytes, None]:
        """While the store is waited for, a page is told all the same that it is connected."""
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=max(self._state_at_s - time.monotonic(), 0.0))
                if not work.done():
                    yield self._look_up()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _look_up(self) -> bytes:
        """How things are; and what nobody says: that a feed has fallen silent, that what was sought has come."""
        self._state_at_s = time.monotonic() + STATE_INTERVAL_S
        if self._series is not None and self._board.feed(self._series.key.symbol)["state"] != self._shows_feed:
            self.outbox.feed = True
        self._asked = self._asked or self._unfound
        return self._board.state()

    async def _find(self, asked: wire.AskSeries, *, is_new: bool) -> None:
        """Look at the series that was asked for, and no longer at the one before."""
        self._leave()
        self._unfound = None
        key = Key(asked.symbol, asked.timeframe)
        try:
            rollup = await self._board.series.find(key, self._board.symbols, with_hint=is_new)
            self._series = self._board.series.watch(key, rollup, self)
        except UsageError as error:
            self._unfound = asked
            if is_new:
                self.outbox.put_error("series", str(error))
            return
        self._count = asked.bars
        self._board.look_at(key.symbol, self)
        self.outbox.begin_series()
        self.outbox.wants_snapshot = True
        if not self._series.is_loaded and self._series.trouble is not None:
            self.outbox.put_error("series", self._series.trouble)

    def _leave(self) -> None:
        series, self._series = self._series, None
        if series is not None:
            self._board.series.leave(series, self)
            self._board.look_away(series.key.symbol, self)
            self.outbox.begin_series()  # nothing of it is to be told any more, be there another or not

    async def _snapshot(self) -> AsyncGenerator[tuple[str, bytes], None]:
        series, out = self._series, self.outbox
        if series is None or not series.is_loaded or not out.wants_snapshot:
            return
        metrics.chart_snapshots_for_lag.inc(out.lagged)
        out.lagged = 0
        size = self._count * BYTES_OF_BAR
        async with AsyncExitStack() as held:
            room = asyncio.create_task(held.enter_async_context(self._board.large.hold(size if size > LARGE else 0)))
            async for state in self._meanwhile(room):
                yield "state", state
            room.result()
            out.begin_snapshot()
            reading = asyncio.create_task(self._board.series.newest(series, self._count))
            async for state in self._meanwhile(reading):
                yield "state", state
            bars, more = reading.result()
            if not series.is_loaded:
                out.wants_snapshot = True  # what was read is not true any more
                return
            self._shows_feed = self._board.feed(series.key.symbol)["state"]
            yield "snapshot", self._board.snapshot(series, bars, more=more)
            if series.trouble is not None:
                out.put_error("series", series.trouble)

    def _rows(self) -> Iterator[bytes]:
        if (number := self._markets) is not None:
            messages, next_number = self._board.markets_since(number)
            yield from messages
            if self._markets == number:  # it may have asked anew meanwhile
                self._markets = next_number

    def _changes(self) -> Iterator[tuple[str, bytes]]:
        """What has changed of the series since its snapshot."""
        series, out = self._series, self.outbox
        if series is None or out.wants_snapshot:
            return
        symbol = series.key.symbol
        if out.has_bars and time.monotonic() >= self._bars_at_s:
            since_s = out.since_s or time.monotonic()
            metrics.chart_conflated.inc(out.conflated)
            out.conflated = 0
            yield "bars", wire.changed_bars(*series.key, out.take_bars())
            self._bars_at_s = time.monotonic() + PACE_S
            metrics.chart_send_seconds.observe(time.monotonic() - since_s)
        if gaps := out.take_gaps():
            yield "gaps", wire.gaps_message(symbol, gaps)
        if signals := out.take_signals():
            yield "signals", wire.signals_message(symbol, signals)
        if out.feed:
            out.feed = False
            feed = self._board.feed(symbol)
            self._shows_feed = feed["state"]
            yield "feed", wire.feed_message(symbol, feed)
        instrument = self._board.feeds.instrument(symbol)
        if out.instrument and instrument is not None:
            out.instrument = False
            yield "instrument", wire.instrument_message(instrument)
