"""How late candles are: from when they were due to Kafka's acknowledgment, for those that somebody waited for.

A worker also makes candles that nobody waits for: of a log that it reads once more after `ashi aggregate reconfigure`,
of a recording that is replayed, of the past of a market that begins with `--since`. Those would fill the histogram with
hours and years, and no restart is as bad as that. So a window counts by symbol: from when its trades have come as they
were made, and from when its state was there to close it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from ashi.contracts.candle import Candle
from ashi.contracts.timeframe import HOUR_US
from ashi.runtime.metrics import aggregate as metrics
from ashi.runtime.wall_clock import now_us
from ashi_aggregate.core.window_state import NO_WINDOW, StateRow

LIVE_WITHIN_US: Final = 60_000_000
"""A trade that was appended so long after it was made is of the past, which is being loaded."""
AWAITED_US: Final = HOUR_US
"""What was due so long before a state is gone on from is not awaited any more."""

Dues = Counter[tuple[str, int]]
"""How many candles of a timeframe were due at a time, µs."""


class Awaited:
    """From when on the windows of each symbol of a partition are awaited: those due later than that (µs) count."""

    def __init__(self, since: int = NO_WINDOW) -> None:
        """Nothing that was due before `since` (µs) counts."""
        self._since = since
        self._from: dict[str, int] = {}

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._from

    def look(self, symbol: str, row: StateRow) -> None:
        """See whether the trades of a symbol come as they are made: if so, its windows are awaited from now on."""
        if row.appended_at and row.appended_at - row.stream_time <= LIVE_WITHIN_US:
            self._from.setdefault(symbol, max(row.stream_time, self._since))

    def dues(self, candles: Sequence[Candle], lateness_us: int) -> Dues:
        """When those of them were due that were awaited."""
        begins = self._from
        return Counter(
            (candle.timeframe, due)
            for candle in candles
            if (due := candle.close_time + lateness_us) > begins.get(candle.symbol, NO_WINDOW)
        )


def time_acknowledgment(sent: Sequence[Awaitable[object]], dues: Dues, now_us: Callable[[], int] = now_us) -> None:
    """Measure the delays of candles when all that was sent of them is acknowledged."""
    futures = [each for each in sent if isinstance(each, asyncio.Future)]
    if not dues or not futures:
        return
    whole = futures[0] if len(futures) == 1 else asyncio.gather(*futures)
    whole.add_done_callback(partial(_observe, dues, now_us))


def _observe(dues: Dues, now_us: Callable[[], int], acknowledged: asyncio.Future[object]) -> None:
    if acknowledged.cancelled() or acknowledged.exception() is not None:
        return  # the worker ends, and whoever goes on sends them again
    now = now_us()
    for (timeframe, due), count in dues.items():
        metrics.candle_delay_seconds.labels(timeframe).observe_many(max(now - due, 0) / 1e6, count)
