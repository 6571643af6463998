"""The signals of running strategies, the newest of each symbol; bounded. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

from ashi.contracts.signal import signal_rank, signal_slot

if TYPE_CHECKING:
    from ashi.contracts.signal import Signal

OF_A_SYMBOL: Final = 2_000
"""So many signals of a symbol are remembered: those that were given, or taken back, last."""
SYMBOLS: Final = 2_000
"""Of so many symbols: those that had one last."""

_Slot: TypeAlias = tuple[str, str, str, int]


class Signals:
    """What strategies want, by candle; messages may come in any order, and again."""

    def __init__(self, of_a_symbol: int = OF_A_SYMBOL, symbols: int = SYMBOLS) -> None:
        self._of_a_symbol = of_a_symbol
        self._symbols = symbols
        self._signals: OrderedDict[str, OrderedDict[_Slot, Signal]] = OrderedDict()

    def take(self, signal: Signal) -> bool:
        """Take a message in; False when it is not newer than what is known of the same candle and strategy.

        One that is `superseded` is remembered, too, so that what it takes back does not come again behind it.
        """
        signals = self._signals.setdefault(signal.symbol, OrderedDict())
        self._signals.move_to_end(signal.symbol)
        if len(self._signals) > self._symbols:
            self._signals.popitem(last=False)
        slot = signal_slot(signal)
        known = signals.get(slot)
        if known is not None and signal_rank(signal) <= signal_rank(known):
            return False
        signals[slot] = signal
        signals.move_to_end(slot)
        if len(signals) > self._of_a_symbol:
            signals.popitem(last=False)
        return True

    def of(self, symbol: str, start: int, end: int) -> list[Signal]:
        """Those that hold and whose target begins at a time from `start` to `end`, µs, inclusive; by time and strategy.

        They are of all timeframes: a signal counts from its candle's close on, whatever that candle's length is.
        """
        signals = self._signals.get(symbol, OrderedDict[_Slot, "Signal"]())
        chosen = [each for each in signals.values() if each.status == "active" and start <= each.close_time <= end]
        return sorted(chosen, key=lambda signal: (signal.close_time, signal.strategy, signal.timeframe))
