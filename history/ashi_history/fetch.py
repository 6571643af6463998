"""`ashi history fetch`: a stretch of time of one market, fetched over REST into recordings. Kafka is not asked.

It is what `ashi ingest backfill` does, but for where the trades go: the venue's own plan, within its budget.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.contracts.symbol import make_symbol
from ashi.runtime.service import StoppedError, run_service, run_until_first_ends
from ashi.runtime.wall_clock import now_us
from ashi_history.fetched_files import FetchedFiles
from ashi_ingest.history.backfill import RECENT_US, BackfillOptions, check_stretch
from ashi_ingest.history.fetch import HistoryFetch
from ashi_ingest.history.progress import Progress, in_days, time_in_words
from ashi_ingest.markets import Choice, choose_markets
from ashi_ingest.rest.client import RestClient
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ashi.contracts.trade import Trade
    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_ingest.history.fetch import Short
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import Venue

EXIT_NOT_ALL: Final = 1
TELL_INTERVAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What is to be fetched, from when (inclusive) to when (exclusive), µs, and the directory that it is written to.

    `to_us`: None for a minute ago, or, where a fetch is gone on with, what it was there.
    """

    venue: str
    market: str
    from_us: int
    to_us: int | None
    directory: Path


def run_fetch(settings: Settings, options: FetchOptions, tell: Callable[[str], None]) -> int:
    """The command `ashi history fetch`; gives the exit status: 0 when everything was got, else 1.

    `tell` gets a line of text now and then: what is done, how long it will take, what has come of it.

    Raises:
        UsageError: the venue is not known, the time is none that can be fetched, or the directory is that of another
            fetch.

    """
    newest_us = now_us() - RECENT_US
    check_stretch(BackfillOptions(options.venue, [options.market], options.from_us, options.to_us), newest_us)
    if options.to_us is not None and options.to_us > newest_us:
        raise UsageError(
            f"--to {time_in_words(options.to_us)} must be at least a minute ago; leave it out to fetch everything "
            "available"
        )
    description = VENUES[options.venue]
    key = None if description.api_key is None else settings.secret(description.api_key.setting)
    venue = description.live(has_key=key is not None)
    symbol = make_symbol(venue.name, options.market)
    reasons: list[str] = []
    overlap = not venue.contiguous(options.market)
    with FetchedFiles(
        options.directory, symbol, options.from_us, options.to_us, newest_us=newest_us, overlap=overlap
    ) as files:

        async def main(service: Service) -> None:
            if files.state.is_whole:
                reasons.extend(tell_outcome(files, options.directory, None, tell))
                return
            async with RestClient(venue, settings.rest_url or venue.limits.rest_url, key) as rest:
                markets = await service.unless_stopped(choose_markets(rest, venue, Choice([options.market], None)))
                if markets.absent:
                    raise UsageError(f"{venue.name} has no market {options.market}: correct the name")
                service.health.set_ready(True, "fetching")
                reason = await _until_stopped(service, FileFetch(venue, options.market, files, rest=rest, tell=tell))
            reasons.extend(tell_outcome(files, options.directory, reason, tell))

        status = run_service("history-fetch", settings, main)
    return EXIT_NOT_ALL if status == 0 and reasons else status


class FileFetch:
    """The fetch of one market into files, from where they end."""

    def __init__(
        self, venue: Venue, market: str, files: FetchedFiles, *, rest: Asks, tell: Callable[[str], None]
    ) -> None:
        state = files.state
        self._ordered_ids = venue.ordered_ids
        self._files = files
        self._tell = tell
        self._progress = Progress(state.from_us, state.to_us)
        since_us = state.from_us
        if state.last is not None:
            # What comes after it in the venue's order may have happened before it, and its plan may begin as much late.
            since_us = max(since_us, state.last.traded_at - 2 * round(venue.limits.disorder_s * 1e6))
        self._since_us = since_us
        self._fetch = HistoryFetch(
            venue, market, since_us, rest=rest, publish=self._write, progress=self._progress, on_short=self._on_short
        )

    async def run(self, patience_s: float) -> str | None:
        """Why the rest could not be got, when it was asked for in vain for so long; None: all is there."""
        state = self._files.state
        self._tell(
            f"{state.symbol}: from {time_in_words(state.from_us)} to {time_in_words(state.to_us)}, "
            f"{in_days(state.to_us - state.from_us)}"
            + ("" if state.last is None else f"; going on at {time_in_words(self._since_us)}")
        )
        reason = await self._fetch.run(state.to_us, patience_s=patience_s)
        if reason is None:
            self._files.finish()
        return reason

    async def tell_progress(self) -> None:
        """Tell now and then how far it has come, for ever."""
        while True:
            await asyncio.sleep(TELL_INTERVAL_S)
            self._tell(f"{self._files.state.symbol}: {self._progress.in_words(time.monotonic())}")

    async def _write(self, trades: list[Trade]) -> None:
        """Write what is new: a plan that goes on lists once more what stands at the end of the one before."""
        last = self._files.state.last
        new = trades if last is None else [trade for trade in trades if self._place(trade) > self._place(last)]
        if new:
            self._files.write(new)
        self._progress.published += len(new)

    async def _on_short(self, number: int, short: Short) -> None:
        self._files.note_short(number, short)

    def _place(self, trade: Trade) -> tuple[int, int]:
        """Its place in the venue's order."""
        return (0 if self._ordered_ids else trade.traded_at, trade.sequence)


async def _until_stopped(service: Service, fetch: FileFetch) -> str | None:
    """Why the rest could not be got; None: it could."""
    reasons: list[str | None] = []

    async def run() -> None:
        reasons.append(await fetch.run(service.settings.repair_patience_us / 1e6))

    try:
        await service.unless_stopped(run_until_first_ends(run(), fetch.tell_progress()))
    except StoppedError:
        return "it was told to stop"
    return reasons[0]


def tell_outcome(files: FetchedFiles, directory: Path, reason: str | None, tell: Callable[[str], None]) -> list[str]:
    """Tell what is there, and what is missing; gives why something is, a sentence each. `reason`: why it has ended."""
    state = files.state
    missing = [
        f"from {time_in_words(short.from_us)} to {time_in_words(short.to_us)} trades are missing: {short.reason}"
        for short in state.shorts
    ]
    if reason is not None:
        reached = "nothing was got" if state.last is None else f"got up to {time_in_words(state.last.traded_at)}"
        missing.append(f"{reached}, and the rest not: {reason}. The same command goes on there")
    for sentence in missing:
        tell(f"{state.symbol}: {sentence}")
    names = files.names
    where = f", {names[0]} to {names[-1]} in {directory}" if names else ""
    outcome = "not all of it is there" if missing else "all of it is there"
    tell(f"{state.symbol}: {outcome}: {state.trades:,} trades in {len(names)} files{where}")
    return missing
