"""The rhythm of a market: how long nothing may come of it before one asks whether something is wrong.

Pure: no I/O and no clock. A deadline is never less than `LEAST_S`, so it is worked out only for a market that has been
quiet for that long, from the trades that are kept anyway: what comes live costs nothing, and after a start the trades
published last are the rhythm.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.trade import Trade

LEAST_S: Final = 45.0
"""Nobody is asked sooner about one market. With the request, its turn and the time to wait for what is on its way, a
market that has gone mute is so found within 60 s."""
MEDIANS: Final = 8
"""After so many of its median intervals a market is suspected, and so found within ten."""
INTERVALS: Final = 100
"""The last ones count."""


def deadline_s(trades: Sequence[Trade], least_s: float = LEAST_S) -> float:
    """How long nothing may come of a market before it is suspected of having gone mute, seconds.

    `trades`: of the market, the last ones. The median, because neither a burst nor a night should count for more than
    it is. In a market that trades in bursts only it is the interval within them, so such a market is asked after as
    soon as any; that costs a request and is no mistake.
    """
    times = sorted(trade.traded_at for trade in trades)[-INTERVALS - 1 :]
    if len(times) < 2:
        return least_s
    return max(least_s, MEDIANS * median_low([later - earlier for earlier, later in pairwise(times)]) / 1e6)
