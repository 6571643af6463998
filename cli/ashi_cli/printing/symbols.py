"""`ashi symbols`: what there is in a store, a line for each symbol."""

from __future__ import annotations

import asyncio
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.contracts.feed import STALE_AFTER_US
from ashi.contracts.timeframe import format_time
from ashi.runtime import wall_clock

if TYPE_CHECKING:
    from ashi.contracts.feed import FeedStatus
    from ashi_sinks.protocol import SeriesSpan

COLUMNS: Final = ("symbol", "timeframes", "first (UTC)", "last (UTC)", "feed")
NOTHING_SAID: Final = "-"
NO_CANDLES: Final = "there are no candles in this store yet: run `ashi sink` on it while candles come"


def print_symbols(storage: str) -> int:
    """Print them to stdout; the exit status.

    Raises UsageError when there are no candles, StorageError without a store.
    """
    spans, statuses = asyncio.run(_read(storage))
    if not spans:
        raise UsageError(NO_CANDLES)
    now_us = wall_clock.now_us()
    rows = [COLUMNS]
    for symbol, group in groupby(spans, key=attrgetter("symbol")):
        series = list(group)
        finest = series[0]
        timeframes = ",".join(span.timeframe for span in series)
        times = format_time(finest.first), format_time(finest.last)
        rows.append((symbol, timeframes, *times, feed_text(statuses.get(symbol), now_us)))
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def feed_text(status: FeedStatus | None, now_us: int) -> str:
    """How a feed is now, by what was said of it last."""
    if status is None:
        return NOTHING_SAID
    if now_us - status.updated_at > STALE_AFTER_US:
        return f"unknown since {format_time(status.updated_at)}, was {status.state}"
    return status.state


async def _read(storage: str) -> tuple[list[SeriesSpan], dict[str, FeedStatus]]:
    from ashi_sinks.registry import open_reader

    async with open_reader(storage) as reader:
        return await reader.spans(), {status.symbol: status for status in await reader.statuses()}
