"""The order in which candles are told and strategies take their steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal


def step_order(of: Candle | Signal) -> tuple[int, int, str]:
    """Sorts by close time, then timeframe (both µs), then symbol; a signal as the candle that it came from."""
    return of.close_time, of.close_time - of.open_time, of.symbol
