"""Candles made and encoded before their windows close, where so many close at once that this takes a while.

A window stays open for the lateness after its end, and nearly always nothing comes for it any more. Of 10,000 symbols
30,000 windows may end with an hour, and to make and to encode their candles is half of what it takes to close them. So
that is done while they wait. What comes for a window nevertheless raises its version, and its candle is made anew when
it closes: nothing is decided here, and nothing changes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import Final

from ashi.contracts.errors import StateError
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.output import Output
from ashi_aggregate.partition import PartitionState

MANY: Final = 300
"""So many symbols that are due at about one time are worth it. Of fewer the candles are made in a few milliseconds."""
AT_ONCE: Final = 50
"""Of so many symbols candles are made before others have their turn, half a millisecond."""
MOST_AHEAD_US: Final = 1_000_000
"""Sooner than that before a window closes something may come for it yet; half of the lateness, where that is less."""
LOOK_EVERY_S: Final = 0.1
FORGET_EVERY_US: Final = 5_000_000
"""What was made so long ago at least, and is kept still, is not sent any more."""


class Preparation:
    """Makes candles of the windows that will close soon by the clock, if they are many."""

    def __init__(self, output: Output, rules: WindowRules, now_us: Callable[[], int]) -> None:
        """The clock gives µs; where it is wrong, too much or nothing is made ahead, and no harm done."""
        self._output = output
        self._ahead_us = min(rules.lateness_us // 2, MOST_AHEAD_US)
        self._now_us = now_us
        self._done_until = 0
        self._forgot_at = 0

    async def look(self, own: Callable[[], Collection[PartitionState]]) -> float:
        """Make what is worth it now; gives after how long to do it again, s.

        `own`: the partitions whose state counts, asked for again before each turn.
        """
        if not self._ahead_us:
            return math.inf
        now = self._now_us()
        end = now + self._ahead_us
        begin = min(max(self._done_until, now), end)
        soon = {state: symbols for state in own() if (symbols := state.symbols.soon_due(begin, end))}
        if sum(map(len, soon.values())) >= MANY:
            self._done_until = end
            for state, symbols in soon.items():
                for place in range(0, len(symbols), AT_ONCE):
                    if state in own():
                        self._make(state, symbols[place : place + AT_ONCE])
                    await asyncio.sleep(0)
        if not 0 <= now - self._forgot_at < FORGET_EVERY_US:
            self._output.forget_encoded()
            self._forgot_at = now
        return LOOK_EVERY_S

    def _make(self, state: PartitionState, symbols: Collection[str]) -> None:
        for symbol in symbols:
            if symbol in state.symbols:
                try:
                    aggregator = state.symbols.look_at(symbol)
                except StateError:
                    continue  # whoever needs the row will say so
                self._output.encode_ahead(aggregator.prepare())
