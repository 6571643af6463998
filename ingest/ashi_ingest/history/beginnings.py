"""Symbols that begin at a time in the past (`--since`): fetched over REST up to the present, then read as any other.

While one is being fetched no connection delivers it: what is published is one sequence, the oldest trade first. When
only seconds are left it is handed over, as a symbol that a worker goes on with after a restart: subscribed to, and what
happened since the last trade is fetched while live ones wait. A worker that is killed in the middle leaves a gap
without an end, whose reason names the time; by that the next start with the same command knows where to go on.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from ashi.contracts.symbol import make_symbol
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.wall_clock import now_us
from ashi_ingest.feed.symbol.sequencer import TradeSequencer
from ashi_ingest.history.fetch import HistoryFetch, Short
from ashi_ingest.history.progress import Progress, in_days, time_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ashi.contracts.feed import FeedGap
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.reporting.status import FeedReporter
    from ashi_ingest.publish.backpressure import Backpressure
    from ashi_ingest.publish.buffer import PublishBuffer
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import Venue

HAND_OVER_S: Final = 10.0
"""A symbol is handed over when the last plan took no longer: so much is left for the repair that follows."""
TELL_INTERVAL_S: Final = 30.0
BEFORE: Final = "nothing was asked for that happened before the time of --since"

_log = get_logger(__name__)


def reason_of(since_us: int) -> str:
    """The reason of the gap of a symbol that begins at this time and has not come to the present yet."""
    return f"begun by --since {time_in_words(since_us)}: being fetched up to the present"


def is_to_begin(resume_point: Sequence[Trade], gaps: Sequence[FeedGap], since_us: int | None) -> bool:
    """Whether a symbol begins at that time: nothing of it was published, or it has begun then and not been finished."""
    if since_us is None:
        return False
    return not resume_point or any(gap.to_time is None and gap.reason == reason_of(since_us) for gap in gaps)


class Beginnings:
    """The symbols of a worker that are being fetched from the past."""

    def __init__(
        self,
        venue: Venue,
        since_us: int | None,
        *,
        rest: Asks,
        publish_buffer: PublishBuffer,
        backpressure: Backpressure,
        reporter: FeedReporter,
        hand_over: Callable[[str, list[Trade]], None],
        now_us: Callable[[], int] = now_us,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[None, None, None]] = asyncio.sleep,
    ) -> None:
        """`since_us`: µs; None: no symbol begins in the past.

        `hand_over` gets a market that has come to the present, and the trades published last.
        """
        self._venue = venue
        self._since_us = since_us or 0
        self._is_used = since_us is not None
        self._rest = rest
        self._publish_buffer = publish_buffer
        self._backpressure = backpressure
        self._reporter = reporter
        self._hand_over = hand_over
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._disorder_us = round(venue.limits.disorder_s * 1e6)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed = asyncio.Event()

    @property
    def markets(self) -> list[str]:
        """Those that have not come to the present yet."""
        return list(self._tasks)

    def concerns(self, resume_point: Sequence[Trade], gaps: Sequence[FeedGap]) -> bool:
        """Whether a symbol begins here: see `is_to_begin`."""
        return self._is_used and is_to_begin(resume_point, gaps, self._since_us)

    def add(self, market: str, resume_point: Sequence[Trade]) -> None:
        """Begin with a market, or go on after what an earlier process has published of it."""
        symbol = make_symbol(self._venue.name, market)
        reason = reason_of(self._since_us)
        if not resume_point:
            if self._since_us > EARLIEST_US:
                self._reporter.end_gap(symbol, self._since_us, "lost", 0, BEFORE, from_time=EARLIEST_US)
            self._reporter.open_gap(symbol, self._since_us, reason)
        self._reporter.set_state(symbol, "repairing", reason)
        task = asyncio.create_task(self._fetch(market, symbol, resume_point))
        self._tasks[market] = task
        task.add_done_callback(lambda _: self._failed.set())

    def drop(self, market: str, reason: str) -> None:
        """The venue has it no more."""
        task = self._tasks.pop(market, None)
        if task is not None:
            task.cancel()
            self._reporter.set_state(make_symbol(self._venue.name, market), "down", reason)

    async def run(self) -> None:
        """Go on for ever. Raises what fails by a mistake of ours."""
        while True:
            await self._failed.wait()
            self._failed.clear()
            for market, task in list(self._tasks.items()):
                if task.done():
                    del self._tasks[market]
                    task.result()

    async def stop(self, reason: str) -> None:
        """No more; what was not finished is down."""
        tasks = dict(self._tasks)
        self._tasks.clear()
        for market, task in tasks.items():
            task.cancel()
            self._reporter.set_state(make_symbol(self._venue.name, market), "down", reason)
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _fetch(self, market: str, symbol: str, resume_point: Sequence[Trade]) -> None:
        """Fetch one market up to the present, then hand it over."""
        sequencer = TradeSequencer(
            symbol,
            contiguous=self._venue.contiguous(market),
            ordered_ids=self._venue.ordered_ids,
            resume_point=resume_point,
        )
        since_us = self._since_us
        if resume_point:
            since_us = max(resume_point[-1].traded_at - self._disorder_us, since_us)
        progress = Progress(since_us, self._now_us())

        async def publish(trades: list[Trade]) -> None:
            new = sequencer.on_repaired(trades)
            if new:
                sequencer.compared(sequencer.resume_point)  # older ids need not be remembered: REST lists in order
                self._publish_buffer.put(new, streamed=False)
                self._reporter.on_trade(symbol, new[-1])
                progress.published += len(new)
                metrics.trades_recovered.labels(self._venue.name).inc(len(new))
            progress.reach(self._now_us())
            await self._backpressure.room_to_repair()

        async def on_short(number: int, short: Short) -> None:
            # A gap is named by its beginning, and that of all of it begins where this one may.
            begun = short.from_us + 1 + number
            before = self._reporter.lost_gap(symbol, begun)  # an earlier process may have said more
            to_us = max(short.to_us + number, 0 if before is None else before.to_time or 0)
            self._reporter.end_gap(symbol, to_us, "lost", 0, short.reason, from_time=begun, final=short.final)
            await self._reporter.flush()

        fetch = HistoryFetch(
            self._venue,
            market,
            since_us,
            rest=self._rest,
            publish=publish,
            progress=progress,
            on_short=on_short,
            now_us=self._now_us,
            monotonic_s=self._monotonic_s,
            sleep=self._sleep,
        )
        fetch.known = resume_point
        _log.info(
            "begins in the past, its trades are fetched up to the present first",
            symbol=symbol,
            since=time_in_words(self._since_us),
            fetched_from=time_in_words(since_us),
            to_fetch=in_days(progress.left_us),
        )
        telling = asyncio.create_task(self._tell(symbol, progress))
        try:
            took_s = HAND_OVER_S + 1
            while took_s > HAND_OVER_S:
                begun_s = self._monotonic_s()
                await fetch.run(None, patience_s=None)
                took_s = self._monotonic_s() - begun_s
        finally:
            telling.cancel()
        self._settle(symbol, fetch, progress.published)
        _log.info("has come to the present", symbol=symbol, progress=progress.in_words(self._monotonic_s()))
        self._hand_over(market, sequencer.resume_point)
        self._tasks.pop(market, None)  # and not before: `run` raises what the task has failed of

    def _settle(self, symbol: str, fetch: HistoryFetch, recovered: int) -> None:
        """Tell what is known now: all up to the last trade but what was told to be lost. The rest is still a gap."""
        reason = reason_of(self._since_us)
        if fetch.last is None:
            return
        known_us = fetch.last.traded_at - self._disorder_us
        self._reporter.end_gap(symbol, known_us, "repaired", recovered, reason)
        self._reporter.open_gap(symbol, known_us, "the worker has come to the present")

    async def _tell(self, symbol: str, progress: Progress) -> None:
        """A line in the log now and then, and in `feed.status`."""
        while True:
            await self._sleep(TELL_INTERVAL_S)
            progress.reach(self._now_us())
            _log.info("is fetched", symbol=symbol, progress=progress.in_words(self._monotonic_s()))
