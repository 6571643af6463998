"""What is known of one symbol in one timeframe between two trades: its rules, its windows, its row."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from ashi.contracts.candle import Candle
from ashi.contracts.timeframe import DAY_US, Timeframe
from ashi_aggregate.core.fold import Fold
from ashi_aggregate.core.trade_ids import WindowIds

NEVER: Final = -1
"""The `emitted` of a window that has not been emitted yet."""
NO_WINDOW: Final = 2**63
"""Later than any window."""

RECENT_US: Final = DAY_US
"""Trades appended longer than this after they were made come from a recording, not from a feed or its repair."""


class WindowRules(msgspec.Struct, frozen=True):
    """What belongs to an epoch: with other rules the same trades give other candles.

    Attributes:
        finest: the finest of all timeframes; lateness is decided by a trade's window of this length.
        lateness_us: a window stays open this long (µs of the stream time) after its end.
        horizon_us: until this long after the end of its finest window a late trade still corrects candles.
        epoch: see `ashi.contracts.candle.make_version`.
        max_flat: at most so many windows in a row without trades give flat candles; 0 for none at all.

    """

    finest: Timeframe
    lateness_us: int = 2_000_000
    horizon_us: int = 120_000_000
    epoch: int = 0
    max_flat: int = 1_440

    def final_until(self, stream_time: int) -> int:
        """Finest windows that began before this (µs) ended more than the horizon before the stream time (µs).

        Nothing changes them any more, nor any coarser window that has ended by then.
        """
        return self.finest.open_time(max(stream_time - self.horizon_us - 1, 0))


class Window(msgspec.Struct, array_like=True, gc=False):
    """A window that is open or can still be corrected; `emitted` is the offset its candle was last sent with."""

    fold: Fold
    emitted: int = NEVER


class StateRow(msgspec.Struct, gc=False):
    """All that is known of one (symbol, timeframe): one row of the table `ohlcv-<timeframe>`, self-contained.

    Attributes:
        epoch: in which it was written; a row of an earlier one is no part of the state.
        applied_offset: of the last record seen; records at or below it are skipped.
        stream_time: greatest `traded_at` seen, µs; what Kafka Streams calls so.
        appended_at: append time in the log of the last record seen, µs.
        dropped_until: windows that began before this (µs) have been dropped and are never begun anew.
        complete_from: windows that began before this (µs) may lack trades that the log no longer had; never emitted.
        closed_until: windows that began before this (µs) have closed, those without trades too; 0 before any has.
        windows: by open time, µs.
        ids: of the trades within the horizon, by the start of their finest window, µs.
        dropped: the newest candle of trades that has no window any more: flat candles may still carry its close.

    """

    symbol: str = ""
    epoch: int = 0
    applied_offset: int = -1
    stream_time: int = 0
    appended_at: int = 0
    dropped_until: int = 0
    complete_from: int = 0
    closed_until: int = 0
    windows: dict[int, Window] = {}
    ids: dict[int, WindowIds] = {}
    dropped: Candle | None = None

    @property
    def closes_from(self) -> int:
        """Start of the window that closes next, µs; `NO_WINDOW` where there has been none yet."""
        return self.closed_until or min(self.windows, default=NO_WINDOW)


def find_complete_from(rules: WindowRules, begins_at: int, first_traded_at: int) -> int:
    """The `complete_from` (µs) of a symbol that begins anew in a state that does not begin with the log.

    Windows that began before it may lack trades that are not read. `begins_at` is an upper bound for the time of all
    of those: when the first record was appended, and a minute for clocks that are ahead. In a recording of days or
    years ago that would be for ever; there the symbol's own first trade serves: those before it that count are not
    further ahead of it than the correction horizon.
    """
    if begins_at - first_traded_at <= RECENT_US:
        return begins_at
    return first_traded_at + rules.horizon_us + rules.finest.length_us


class LateReason(StrEnum):
    """Why a trade is too late to count, by the name it has in the metric's label."""

    BEYOND_HORIZON = "beyond_horizon"
    """Its finest window ended more than the horizon before the stream time."""
    WINDOW_DROPPED = "below_floor"
    """Its finest window was dropped for another reason than the time."""


def late_reason(rules: WindowRules, stream_time: int, dropped_until: int, traded_at: int) -> LateReason | None:
    """Why a trade of that time is too late to count, or None when it is not. All times in µs."""
    if traded_at < rules.final_until(stream_time):
        return LateReason.BEYOND_HORIZON
    # Both are times at which a finest window begins, so the trade's own time tells for its window.
    return LateReason.WINDOW_DROPPED if traded_at < dropped_until else None
