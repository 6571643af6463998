"""Trades too late to count leave gaps: candles that lack them are not complete until `ashi rebuild`. Pure.

One gap tells of all late trades of a symbol and a minute (of a finest window, where those are longer), so there are
never more gaps than minutes. Candles of other times are told as they are; of timeframes below a minute those of the
same minute count as incomplete with it, though they may be whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.feed import FeedGap
from ashi.contracts.late_gaps import LATE_REASON
from ashi.contracts.timeframe import format_time
from ashi.contracts.trade import EARLIEST_US, LATEST_US

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi_aggregate.chunk import LogRecord
    from ashi_aggregate.core.symbol import LateTrade

LEAST_US: Final = 60_000_000
AFTER_US: Final = 1
"""A gap is named by its beginning. Those of feeds begin with a trade's time, whole milliseconds at most venues, and
those of refused records just before one; so this one begins just after the beginning of its window, µs."""


def late_gaps(
    late: Iterable[tuple[LogRecord, LateTrade]], timeframes: Sequence[Timeframe], epoch: int
) -> list[FeedGap]:
    """The gaps that late trades leave, with the records they came in. `timeframes`: the finest first.

    What is said last of a gap, by `updated_at`, is the same however often and in whatever pieces the log is read: it is
    when the last of its trades was appended. A rebuild says of it, 1 µs later, that it is repaired, which counts until
    another late trade comes. A later epoch makes candles without them again, and what it says is later by 2 µs, so it
    counts again.
    """
    finest_us = timeframes[0].length_us
    length_us = -(-LEAST_US // finest_us) * finest_us
    appended: dict[tuple[str, int], int] = {}
    for record, each in late:
        key = each.trade.symbol, each.trade.traded_at // length_us * length_us
        appended[key] = max(appended.get(key, 0), record.timestamp * 1000)
    return [
        _gap(symbol, start, start + length_us, min(max(at_us, EARLIEST_US) + 2 * epoch, LATEST_US - 1), timeframes)
        for (symbol, start), at_us in sorted(appended.items())
    ]


def _gap(symbol: str, start: int, end: int, updated_at: int, timeframes: Sequence[Timeframe]) -> FeedGap:
    begin, until = candles_around(start, end, timeframes)
    reason = (
        f"{LATE_REASON} and are only in trades.late: "
        f"`ashi rebuild --from {_iso(begin)} --to {_iso(until)} --symbol {symbol}` takes them in"
    )
    from_time = max(start, EARLIEST_US) + AFTER_US
    return FeedGap(symbol, from_time, min(end, LATEST_US), "lost", 0, reason, updated_at, final=True)


def candles_around(start: int, end: int, timeframes: Iterable[Timeframe]) -> tuple[int, int]:
    """From when until when the candles go that have a part of the time from `start` to `end` (exclusive), µs."""
    spans = [
        (timeframe.open_time(start), timeframe.open_time(end - 1) + timeframe.length_us) for timeframe in timeframes
    ]
    return min(begin for begin, _ in spans), max(until for _, until in spans)


def _iso(time_us: int) -> str:
    return format_time(time_us).replace(" ", "T") + "Z"
