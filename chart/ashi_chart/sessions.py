"""One page that is connected: what it asks, and what it is told as fast as it takes it."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

from aiohttp import WSCloseCode, WSMsgType, web

from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.signal import Signal
from ashi.runtime.metrics import chart as metrics
from ashi_chart import wire
from ashi_chart.active import Key
from ashi_chart.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from ashi.contracts.instrument import Instrument
    from ashi_chart.active import ActiveSeries
    from ashi_chart.board import Board

STATE_INTERVAL_S: Final = 5.0
"""A page is told so often how things are, also when nothing else is to be told: so it knows that it is connected."""
HEARTBEAT_S: Final = 60.0
"""A page that answers no ping within half of this is gone: its machine sleeps, or the network in between is no more."""
SLOW_S: Final = 30.0
"""A page that takes nothing at all of what was sent to it for so long is given up."""
LOOK_S: Final = 1.0
"""So often it is looked whether it does."""
PACE_S: Final = 0.05
"""Bars are sent at most so often: what changes within is one message."""
MOST_MISTAKES: Final = 10
"""So many messages that are none may come of one page."""
ASKS_PER_S: Final = 5.0
BURST: Final = 20.0
"""A page may ask so much at once, and then so often; what comes faster waits in the network."""
BUFFERED: Final = 64 * 1024
"""About so much of what is sent to a page waits here for its machine to take it, bytes; the rest waits unmade."""
LARGE: Final = 256 * 1024
"""Messages of more bytes have a bound together."""
BYTES_OF_BAR: Final = 130


class Session:
    """One websocket; made for a request, and run to its end."""

    def __init__(self, request: web.Request, board: Board, server: str) -> None:
        """`server`: the id of this process."""
        self._request = request
        self._board = board
        self._server = server
        # Without compression, which would keep a quarter of a megabyte for each page. The limit of 0 makes each message
        # wait until the transport has room, so that what is sent next is as of then.
        self._socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, compress=False, max_msg_size=wire.MOST_BYTES_ASKED, writer_limit=0, autoclose=False
        )
        self._out = Outbox()
        self._has_some = asyncio.Event()
        self._asked: wire.AskSeries | None = None
        self._unfound: wire.AskSeries | None = None
        self._count = 0
        self._series: ActiveSeries | None = None
        self._shows_feed: str | None = None
        self._state_at_s = 0.0
        self._bars_at_s = 0.0
        self._mistakes = 0
        self._ended = ""

    async def run(self) -> web.WebSocketResponse:
        """Talk with the page until it goes, or has to."""
        await self._socket.prepare(self._request)
        self._hold_little_back()
        self._board.join(self)
        metrics.chart_clients.inc()
        telling = asyncio.create_task(self._tell())
        listening = asyncio.create_task(self._listen())
        try:
            await asyncio.wait({telling, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (telling, listening):
                task.cancel()
            results = await asyncio.gather(telling, listening, return_exceptions=True)
            self._leave()
            self._board.leave(self)
            metrics.chart_clients.dec()
            metrics.chart_connections_ended.labels(self._ended or "closed").inc()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                raise result
        return self._socket

    @property
    def waiting_bytes(self) -> int:
        """What was made for the page and waits here for its machine to take it."""
        transport = self._request.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    async def close(self) -> None:
        """Send the page away, to come again: the server stops."""
        self._ended = self._ended or "stopping"
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")

    # What the board and the series tell.

    def on_bars(self, bars: Iterable[tuple[int, bytes]]) -> None:
        """See `Watcher`."""
        self._out.put_bars(bars, time.monotonic())
        self._has_some.set()

    def on_loaded(self) -> None:
        """See `Watcher`."""
        self._out.wants_snapshot = True
        self._has_some.set()

    def on_trouble(self, sentence: str) -> None:
        """See `Watcher`."""
        self._out.put_error("series", sentence)
        self._has_some.set()

    def on_said(self, message: FeedStatus | FeedGap | Instrument | Signal) -> None:
        """See `Page`."""
        if isinstance(message, FeedStatus):
            self._out.feed = True
        elif isinstance(message, FeedGap):
            self._out.put_gap(message)
        elif isinstance(message, Signal):
            self._out.put_signal(message)
        else:
            self._out.instrument = True
        self._has_some.set()

    def on_state(self) -> None:
        """See `Page`."""
        self._state_at_s = 0.0
        self._has_some.set()

    # What the page asks.

    async def _listen(self) -> None:
        left, at_s = BURST, time.monotonic()
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.ERROR:
                self._ended = "gone"
                return
            if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                if self._socket.close_code == WSCloseCode.MESSAGE_TOO_BIG:
                    self._ended = "refused"
                await self._socket.close()
                return
            now_s = time.monotonic()
            left, at_s = min(left + (now_s - at_s) * ASKS_PER_S, BURST) - 1.0, now_s
            if left < 0.0:
                await asyncio.sleep(-left / ASKS_PER_S)
            try:
                if message.type is WSMsgType.BINARY:
                    raise ContractError("not understood: messages are text")  # noqa: TRY301
                self._answer(wire.decode_asked(message.data))
            except ContractError as error:
                self._mistakes += 1
                if self._mistakes > MOST_MISTAKES:
                    self._ended = "refused"
                    await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too much that is no message")
                    return
                self._out.put_error("message", str(error))
            self._has_some.set()

    def _answer(self, asked: wire.Asked) -> None:
        match asked:
            case wire.AskSeries():
                self._asked, self._unfound = asked, None
            case wire.AskMarkets() | wire.LeaveMarkets():
                self._out.put_error("markets", "markets are not served yet")
            case wire.Ping():
                self._state_at_s = 0.0

    # What it is told.

    async def _tell(self) -> None:
        await self._send("hello", await self._board.hello(self._server))
        while True:
            self._has_some.clear()
            async with aclosing(self._messages()) as messages:
                async for kind, message in messages:
                    await self._send(kind, message)
            wait_s = self._state_at_s - time.monotonic()
            if self._out.has_bars:
                wait_s = min(wait_s, self._bars_at_s - time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, 0.0)):
                    await self._has_some.wait()

    async def _messages(self) -> AsyncGenerator[tuple[str, bytes], None]:
        """What is to be told now, each made when the page has taken the one before."""
        out = self._out
        if time.monotonic() >= self._state_at_s:
            self._state_at_s = time.monotonic() + STATE_INTERVAL_S
            yield "state", self._board.state()
            if self._series is not None and self._board.feed(self._series.key.symbol)["state"] != self._shows_feed:
                out.feed = True  # nobody says that it has fallen silent
            self._asked = self._asked or self._unfound
        if (asked := self._asked) is not None:
            self._asked = None
            await self._find(asked, is_new=asked is not self._unfound)
        series = self._series
        if series is not None and series.is_loaded and out.wants_snapshot:
            async with aclosing(self._snapshot(series)) as snapshot:
                async for message in snapshot:
                    yield "snapshot", message
        while (error := out.take_error()) is not None:
            yield "error", wire.error_message(*error)
        series = self._series
        if series is None or out.wants_snapshot:
            return
        if out.has_bars and time.monotonic() >= self._bars_at_s:
            since_s = out.since_s or time.monotonic()
            yield "bars", wire.changed_bars(*series.key, out.take_bars())
            self._bars_at_s = time.monotonic() + PACE_S
            metrics.chart_send_seconds.observe(time.monotonic() - since_s)
        if gaps := out.take_gaps():
            yield "gaps", wire.gaps_message(series.key.symbol, gaps)
        if signals := out.take_signals():
            yield "signals", wire.signals_message(series.key.symbol, signals)
        if out.feed:
            out.feed = False
            feed = self._board.feed(series.key.symbol)
            self._shows_feed = feed["state"]
            yield "feed", wire.feed_message(series.key.symbol, feed)
        instrument = self._board.feeds.instrument(series.key.symbol)
        if out.instrument and instrument is not None:
            out.instrument = False
            yield "instrument", wire.instrument_message(instrument)

    async def _snapshot(self, series: ActiveSeries) -> AsyncGenerator[bytes, None]:
        out, size = self._out, self._count * BYTES_OF_BAR
        metrics.chart_snapshots_for_lag.inc(out.lagged)
        out.lagged = 0
        async with self._board.large.hold(size if size > LARGE else 0):
            out.begin_snapshot()
            bars, more = await self._board.series.newest(series, self._count)
            if series is not self._series or not series.is_loaded:
                return  # it looks at another one now, or what was read is not true any more
            message = self._board.snapshot(series, bars, more=more)
            self._shows_feed = self._board.feed(series.key.symbol)["state"]
            yield message
            if series.trouble is not None:
                out.put_error("series", series.trouble)

    async def _find(self, asked: wire.AskSeries, *, is_new: bool) -> None:
        """Look at the series that was asked for, and no longer at the one before; what is not there is sought again."""
        self._leave()
        self._unfound = None
        key = Key(asked.symbol, asked.timeframe)
        try:
            rollup = await self._board.series.find(key, self._board.symbols)
            self._series = self._board.series.watch(key, rollup, self)
        except UsageError as error:
            self._unfound = asked
            if is_new:
                self._out.put_error("series", str(error))
            return
        self._count = asked.bars
        self._board.look_at(key.symbol, self)
        self._out.begin_series()
        self._out.wants_snapshot = True
        if not self._series.is_loaded and self._series.trouble is not None:
            self._out.put_error("series", self._series.trouble)

    def _leave(self) -> None:
        series, self._series = self._series, None
        if series is not None:
            self._board.series.leave(series, self)
            self._board.look_away(series.key.symbol, self)

    async def _send(self, kind: str, message: bytes) -> None:
        """Send a message, and wait until there is room for another. Gives up a page that takes nothing."""
        try:
            async with asyncio.timeout(SLOW_S):
                await self._socket.send_frame(message, WSMsgType.TEXT)
        except TimeoutError:
            await self._wait_for_room()
        except ConnectionError:
            self._ended = self._ended or "gone"
            raise
        metrics.chart_messages.labels(kind).inc()
        metrics.chart_bytes.inc(len(message))

    async def _wait_for_room(self) -> None:
        """As long as the page takes something. Raises ConnectionError when it does not."""
        transport = self._request.transport
        left, since_s = float("inf"), time.monotonic()
        while transport is not None and (waiting := transport.get_write_buffer_size()) > BUFFERED:
            if waiting < left:
                left, since_s = waiting, time.monotonic()
            elif time.monotonic() - since_s > SLOW_S:
                self._ended = "slow"
                transport.abort()
                raise ConnectionError(f"the page took nothing for {SLOW_S:.0f} s")
            await asyncio.sleep(LOOK_S)

    def _hold_little_back(self) -> None:
        transport = self._request.transport
        if transport is None:
            return
        transport.set_write_buffer_limits(high=BUFFERED)
        raw = transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Else the kernel holds megabytes for a page that is slow, all of them old by the time that they get there.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, BUFFERED)
