"""Which symbols of a partition have something to tell of their candles in progress, and since when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

NEVER_TOLD: Final = -1
"""Before the first offset."""


class LiveQueue:
    """The symbols that wait to be told, those that became due first in front. Times are monotonic, s.

    A symbol that was told rests for the interval. However often it changes meanwhile, it waits once, and what is told
    then is what its windows hold by then: nothing is queued but its name.

    Attributes:
        paused_until_s: none is told before, as Kafka has not taken the last that was.

    """

    def __init__(self) -> None:
        self._waiting: dict[str, float] = {}
        self._resting: dict[str, float] = {}
        self._changed: set[str] = set()
        self._told: dict[str, int] = {}
        self.paused_until_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def due_since(self) -> float | None:
        """When the one in front became due; None where none waits."""
        return next(iter(self._waiting.values()), None)

    def changed(self, symbol: str, now_s: float) -> None:
        """A symbol has taken in trades."""
        if symbol in self._resting:
            self._changed.add(symbol)
        elif symbol not in self._waiting:
            self._waiting[symbol] = now_s

    def wake(self, now_s: float, interval_s: float) -> None:
        """Those that were told an interval ago have rested; what has changed meanwhile waits from then on."""
        rested = []
        for symbol, told_at in self._resting.items():
            if now_s - told_at < interval_s:
                break
            rested.append(symbol)
        for symbol in rested:
            told_at = self._resting.pop(symbol)
            if symbol in self._changed:
                self._changed.discard(symbol)
                self._waiting[symbol] = told_at + interval_s

    def take(self) -> str:
        """Take away the one in front. Raises KeyError where none waits."""
        symbol = next(iter(self._waiting), None)
        if symbol is None:
            raise KeyError("no symbol waits")
        del self._waiting[symbol]
        return symbol

    def told_up_to(self, symbol: str) -> int:
        """Up to which offset of the log (inclusive) what has been told of a symbol goes."""
        return self._told.get(symbol, NEVER_TOLD)

    def told(self, symbol: str, offset: int, now_s: float) -> None:
        """What a symbol holds up to `offset` is on its way; it rests from now on."""
        self._told[symbol] = offset
        self._resting[symbol] = now_s

    def not_told(self, symbols: Iterable[str], now_s: float) -> None:
        """What was on its way of these was not taken: they are told anew, with all that their windows hold then."""
        for symbol in symbols:
            self._told.pop(symbol, None)
            self.changed(symbol, now_s)
