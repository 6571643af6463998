"""Which trades count and which windows are whole, as docs/architecture.md ("Windows", "The checkpoint") says it.

Written from there and not from the workers' code, of which nothing is used: what is audited must not be its own proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.timeframe import DAY_US, Timeframe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.runtime.settings import Settings
    from ashi_aggregate.epoch import Epoch

COPIES_APART_US: Final = 1_000_000
"""Copies of one trade may be stamped so far apart: a venue may round its time differently on each of its ways."""
REPLAYED_US: Final = DAY_US
"""What was appended longer than this after it was traded comes from a recording, not from a feed or its repair."""


class CandleRules(msgspec.Struct, frozen=True):
    """The settings of a state that decide what candles the trades give.

    Attributes:
        finest: the finest of its timeframes; lateness is decided by a trade's window of this length.
        lateness_us: ASHI_ALLOWED_LATENESS, µs.
        horizon_us: ASHI_CORRECTION_HORIZON, µs.
        max_flat: ASHI_FLAT_CANDLES.

    """

    finest: Timeframe
    lateness_us: int = 2_000_000
    horizon_us: int = 120_000_000
    max_flat: int = 1_440

    def beyond_horizon(self, traded_at: int, clock: int) -> bool:
        """Whether a trade came too late to count: its finest window had ended more than the horizon ago.

        `traded_at`: of the trade. `clock`: the greatest `traded_at` of its symbol so far, its own included. Both µs.
        """
        window_end = self.finest.open_time(traded_at) + self.finest.length_us
        return clock - window_end > self.horizon_us

    def are_copies(self, traded_at: int, again_at: int) -> bool:
        """Whether two trades of one id, stamped so (µs), are one trade: of one finest window, or hardly apart."""
        open_time = self.finest.open_time
        return open_time(again_at - COPIES_APART_US) <= open_time(traded_at) <= open_time(again_at + COPIES_APART_US)

    def settled_until(self, clock: int) -> int:
        """Windows that ended by this time (µs) can change no more, nor can those next to them.

        Any trade of them would be beyond the horizon. The neighbours are for copies of one trade that are stamped
        apart: both must have been seen before one of them is counted.
        """
        return clock - self.horizon_us - self.finest.length_us - COPIES_APART_US

    def whole_from(self, begins_at: int, first_traded_at: int) -> int:
        """The left edge (µs): windows that began before it may lack trades that cannot be read.

        Args:
            begins_at: no trade that cannot be read is stamped later than this, µs; 0 where all can be read.
            first_traded_at: of the first trade of the symbol that can be read and came in time, µs.

        """
        if begins_at - first_traded_at > REPLAYED_US:
            # In a recording of days or years ago the time of appending says nothing of the time of trading.
            return first_traded_at + self.horizon_us + self.finest.length_us
        return begins_at


def rules_of_epoch(epoch: Epoch) -> CandleRules:
    """The rules of a state."""
    return CandleRules(
        finest=min(map(Timeframe.parse, epoch.timeframes)),
        lateness_us=epoch.allowed_lateness_us,
        horizon_us=epoch.correction_horizon_us,
        max_flat=epoch.flat_candles,
    )


def rules_of_settings(settings: Settings) -> CandleRules:
    """The rules of a state with these settings."""
    timeframes: Sequence[Timeframe] = settings.timeframes
    return CandleRules(
        finest=min(timeframes),
        lateness_us=settings.allowed_lateness_us,
        horizon_us=settings.correction_horizon_us,
        max_flat=settings.flat_candles,
    )
