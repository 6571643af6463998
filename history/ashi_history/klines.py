"""`ashi history klines`: the venue's own candles into a store, where they stand beside those of trades and marked.

They go into no topic: a candle there is made of trades. A store gives them to whoever asks for them, and only where
there is none of trades (`ashi_sinks.joined`). What is stored is not asked for again, so the store is all that a fetch
that was killed goes on from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.contracts.symbol import make_symbol
from ashi.contracts.timeframe import Timeframe
from ashi.runtime import wall_clock
from ashi.runtime.service import StoppedError, run_service
from ashi.runtime.settings.parsers import format_duration
from ashi_history.kline_series import KlineSeries, while_away
from ashi_ingest.history.backfill import RECENT_US
from ashi_ingest.history.progress import time_in_words
from ashi_ingest.known_venues import venue_named
from ashi_ingest.markets import Choice, choose_markets
from ashi_ingest.rest.client import RestClient, RestError
from ashi_ingest.rest.klines import KlineFetch
from ashi_ingest.venues.registry import KLINE_VENUES, VENUES
from ashi_sinks.registry import make_sink, open_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_ingest.venues.base import Klines

EXIT_NOT_ALL: Final = 1
_NAMES: Final = ("1s", "1m", "3m", "5m", "10m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
"""Timeframes that venues may have, for an error that lists those of one."""


@dataclass(frozen=True, slots=True)
class KlineOptions:
    """Which candles are to be stored: those that open from `from_us` (inclusive) to `to_us` (exclusive), µs.

    `to_us`: None for those that closed a minute ago or earlier. The store is that of the settings.
    """

    venue: str
    market: str
    timeframes: Sequence[Timeframe]
    from_us: int
    to_us: int | None


def run_klines(settings: Settings, options: KlineOptions, tell: Callable[[str], None]) -> int:
    """The command; gives the exit status: 0 when all there is was stored, else 1.

    `tell` gets a line of text now and then: what is done, how long it will take, what has come of it.

    Raises:
        UsageError: the venue is not known or has no such klines, the time is none that can be fetched, or the storage
            is a URL of no store.

    """
    now_us = wall_clock.now_us()
    klines = _klines_of(options)
    if options.from_us >= (now_us if options.to_us is None else options.to_us):
        raise UsageError("--from must be before --to, and before now")
    if options.to_us is not None and options.to_us > now_us - RECENT_US:
        raise UsageError(
            f"--to {time_in_words(options.to_us)} must be at least a minute ago; leave it out to fetch everything "
            "available"
        )
    venue = VENUES[options.venue].live(has_key=False)
    symbol = make_symbol(venue.name, options.market)
    sink = make_sink(settings.storage)
    status = 0

    async def main(service: Service) -> None:
        nonlocal status
        patience_us = settings.repair_patience_us

        def on_wait(error: Exception) -> None:
            tell(f"{venue.name} does not answer ({error}), trying again for up to {format_duration(patience_us)}")

        try:
            async with RestClient(venue, settings.rest_url or venue.limits.rest_url, None) as rest:
                markets = await service.unless_stopped(choose_markets(rest, venue, Choice([options.market], None)))
                if markets.absent:
                    raise UsageError(f"{venue.name} has no market {options.market}: correct the name")
                await service.unless_stopped(while_away(sink.open))
                async with open_reader(settings.storage) as reader:
                    service.health.set_ready(True, "fetching")
                    fetch = KlineFetch(venue.name, klines, rest, patience_s=patience_us / 1e6, tell=on_wait)
                    for timeframe in options.timeframes:
                        closed_us = timeframe.open_time(now_us - RECENT_US)  # all that open before it have closed
                        until_us = closed_us if options.to_us is None else min(options.to_us, closed_us)
                        series = KlineSeries(symbol, timeframe, klines, fetch, reader=reader, sink=sink, tell=tell)
                        await series.run(options.from_us, until_us, service.unless_stopped)
        except RestError as error:
            tell(f"not all of it is there: {error}. The same command goes on there")
            status = EXIT_NOT_ALL
        except StoppedError:
            tell("not all of it is there: it was told to stop. The same command goes on there")
            status = EXIT_NOT_ALL
        finally:
            await sink.close()

    return run_service("history-klines", settings, main) or status


def _klines_of(options: KlineOptions) -> Klines:
    description = venue_named(options.venue, among=KLINE_VENUES)
    klines = description.klines
    if klines is None:
        raise UsageError(
            f"{description.title} publishes no klines, but {', '.join(KLINE_VENUES)} do: `ashi history fetch` gets its "
            "trades instead, as far back as it lists them"
        )
    for timeframe in options.timeframes:
        if not klines.covers(timeframe):
            names = [name for name in _NAMES if klines.covers(Timeframe.parse(name))]
            raise UsageError(
                f"{description.title} publishes no klines of the same windows as {timeframe}: there are "
                f"{', '.join(names)}"
            )
    return klines
