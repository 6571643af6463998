"""Fetching a stretch of time of one market over REST, however often the venue refuses or fails in between.

The venue plans it (`Venue.history`). What breaks off a plan, a maintenance or a ban, only makes it wait: the next plan
begins at the trade that was listed last. What is listed is handed on in the venue's order, and some of it twice, where
one plan goes on after another: whoever publishes it knows what it has published.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.runtime.logs import get_logger
from ashi.runtime.retry import Backoff
from ashi.runtime.wall_clock import now_us
from ashi_ingest.feed.evidence.completeness import REST_LAG_ALLOWANCE_US, says_less
from ashi_ingest.feed.repair.repair_plan import run_repair
from ashi_ingest.rest.budget import FIRST, Priority, Urgency
from ashi_ingest.venues.base import Missing, RepairEnd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.history.progress import Progress
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import Answer, Request, Venue

REQUEST_PATIENCE_S: Final = 60.0
"""For how long one request is made again before the plan is given up and another one made."""
WAIT_S: Final = (5.0, 120.0)
"""The waits between plans that bring nothing grow up to between these, seconds."""

_log = get_logger(__name__)


class Short(NamedTuple):
    """What is not to be had of a stretch: from when to when (µs), why, and whether the venue says that there is none.

    `beyond_reach`: the venue does not go back so far, or not without an API key.
    """

    from_us: int
    to_us: int
    reason: str
    final: bool
    beyond_reach: bool


class _Open:
    """Something that the plan has told to be missing, while its end is not certain yet."""

    def __init__(self, missing: Missing, from_us: int) -> None:
        self.missing = missing
        self.from_us = from_us
        self.steps = 0  # so many with trades have followed
        self.number: int | None = None  # among the shorts


class HistoryFetch:
    """Fetches the trades of one market from `since_us` on.

    Attributes:
        last: the trade that was listed last.
        known_until: everything before this time, µs, has been handed on, but for what is in `shorts`.
        shorts: what is not to be had; it is there before any later trade is handed on.
        known: trades that were published last, the oldest first: an answer that says less has shown nothing.

    """

    def __init__(
        self,
        venue: Venue,
        market: str,
        since_us: int,
        *,
        rest: Asks,
        publish: Callable[[list[Trade]], Awaitable[None]],
        progress: Progress,
        on_short: Callable[[int, Short], Awaitable[None]] | None = None,
        now_us: Callable[[], int] = now_us,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`publish` gets what is listed, in the venue's order, and perhaps again what it has got before.

        `on_short` gets the number of one of `shorts`, and what it is now, before `publish` gets what comes after it.
        """
        self.last: Trade | None = None
        self.known_until = since_us
        self.shorts: list[Short] = []
        self.known: Sequence[Trade] = ()
        self._open: list[_Open] = []
        self._on_short = on_short
        self._reached = 0
        self._venue = venue
        self._market = market
        self._since_us = since_us
        self._rest = rest
        self._publish = publish
        self._progress = progress
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._disorder_us = round(venue.limits.disorder_s * 1e6)

    @property
    def handed_on_until(self) -> int:
        """Everything before this time, µs, has been handed on, but for `shorts`, also when a plan was broken off."""
        if self.last is None:
            return self.known_until
        return max(self.known_until, self.last.traded_at - self._disorder_us)

    async def get(self, request: Request, urgency: Urgency = FIRST) -> Answer:
        """Ask the venue, and count it."""
        self._progress.on_request()
        return await self._rest.get(request, urgency)

    async def run(self, until_us: int | None, *, patience_s: float | None) -> str | None:
        """Fetch all before `until_us`, µs, or, without it, up to now. Gives why the rest could not be got, or None.

        `patience_s`: how long it may go on without bringing anything new; None: for ever.
        """
        backoff = Backoff(*WAIT_S)
        progress_s = self._monotonic_s()
        reached = self._reached
        told: str | None = None
        while True:
            end = await self._one_plan(until_us)
            now_s = self._monotonic_s()
            if self._reached > reached:  # a plan lists once more what the one before has listed last
                reached = self._reached
                progress_s, told = now_s, None
                backoff.reset()
            if end.reason is None and (until_us is None or self.known_until >= until_us):
                return None
            reason = end.reason or "the venue's REST interface does not show yet what happened before the end"
            if patience_s is not None and now_s - progress_s > patience_s:
                return reason
            wait_s = max(backoff.next_s() + WAIT_S[0], end.retry_after_s)
            if reason != told:  # once for each cause: a maintenance may last for hours
                _log.warning("history has to wait", market=self._market, reason=reason, wait_s=round(wait_s, 1))
            told = reason
            await self._sleep(wait_s)

    async def _one_plan(self, until_us: int | None) -> RepairEnd:
        """Carry out one plan. What it says is missing is noted; then its end has no reason any more."""
        begin_us = self._since_us
        if self.last is not None:
            begin_us = self.handed_on_until - self._disorder_us
        begin_us = max(begin_us, self._since_us)
        asked_us = self._now_us()
        plan = self._venue.history(self._market, begin_us, until_us)
        self._open.clear()
        is_told = False
        first_us: int | None = None
        urgency = Urgency(Priority.LOST, self._progress.left_us / 1e6)

        async def on_trades(trades: list[Trade]) -> None:
            nonlocal first_us
            if within := self._within(trades, until_us):
                first_us = within[0].traded_at if first_us is None else first_us
            await self._extend(trades, within, until_us)
            await self._on_trades(within)

        def on_missing(missing: Missing) -> None:
            nonlocal is_told
            is_told = True
            from_us = begin_us
            if self.last is not None and first_us is not None and not missing.beyond_reach:
                from_us = max(self.last.traded_at - self._disorder_us, begin_us)
            self._open.append(_Open(missing, from_us))

        end = await run_repair(self, plan, on_trades, REQUEST_PATIENCE_S, urgency=urgency, on_missing=on_missing)
        if end.reason is not None and end.shown_until is None:
            return end  # broken off
        shown_us = end.shown_until or 0
        if until_us is None or shown_us < until_us:
            less = says_less(self.known, end.shown_until, self._disorder_us, asked_us)
            if less is not None:
                return RepairEnd(less)
        self.known_until = max(self.known_until, shown_us, asked_us - REST_LAG_ALLOWANCE_US)
        to_us = self.known_until if until_us is None else min(self.known_until, until_us)
        for each in self._open:
            await self._note(each, to_us)
        if end.reason is not None and not is_told:
            to_us = first_us if end.beyond_reach and first_us is not None else to_us
            await self._note(_Open(Missing(end.reason, end.final, end.beyond_reach), begin_us), to_us)
        return end._replace(reason=None)

    def _within(self, trades: list[Trade], until_us: int | None) -> list[Trade]:
        return [
            trade
            for trade in trades
            if self._since_us <= trade.traded_at and (until_us is None or trade.traded_at < until_us)
        ]

    async def _extend(self, trades: list[Trade], within: list[Trade], until_us: int | None) -> None:
        """Note how far that which is missing reaches, before these trades are handed on: see `Missing`."""
        for each in list(self._open):
            if each.missing.beyond_reach:
                if not within:
                    continue
                await self._note(each, within[0].traded_at)
                self._open.remove(each)
                continue
            to_us = max(trade.traded_at for trade in trades) + self._disorder_us + 1
            await self._note(each, to_us if until_us is None else min(to_us, until_us))
            each.steps += 1
            if each.steps == 2:
                self._open.remove(each)

    async def _note(self, each: _Open, to_us: int) -> None:
        """It reaches up to then at least."""
        missing = each.missing
        to_us = max(to_us, each.from_us if each.number is None else self.shorts[each.number].to_us)
        if to_us == each.from_us:
            return
        short = Short(each.from_us, to_us, missing.reason, missing.final, missing.beyond_reach)
        if each.number is None:
            each.number = len(self.shorts)
            self.shorts.append(short)
        else:
            self.shorts[each.number] = short
        if self._on_short is not None:
            await self._on_short(each.number, short)

    async def _on_trades(self, within: list[Trade]) -> None:
        if not within:
            return
        self._progress.on_trades(within, self._monotonic_s())
        await self._publish(within)
        self._reached = max(self._reached, *(trade.traded_at for trade in within))
        self.last = within[-1]  # and not before: whoever is told to stop meanwhile must not take them for published
