"""The strategy itself, with its engines: events in, signals out, in the strategy's own thread."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from ashi.contracts.errors import StrategyError
from ashi.contracts.feed import FeedGap
from ashi.runtime.metrics import strategy as metrics
from ashi_series import Closed, Gap
from ashi_strategies.engine import REACH, Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_series import Event
    from ashi_strategies.live.feed import Item
    from ashi_strategies.live.instance import Instance


class Desk:
    """Runs all plans of an instance.

    Attributes:
        done: the signals of all candles that closed by then (µs) have been given.
        must_begin_anew: a candle was corrected that is older than those that the engines have or keep.

    """

    def __init__(
        self,
        instance: Instance,
        began: int,
        known: Sequence[Signal],
        *,
        kept_from: int = 0,
        go_on: Callable[[], None] = lambda: None,
        reach: int = REACH,
    ) -> None:
        """Raises StrategyError.

        Args:
            instance: what is run.
            began: signals are given of candles that closed after this, µs.
            known: those that stand in the topic, of all candles that will be taken.
            kept_from: what is taken first goes back so far, µs, and some more, by which the strategy decides.
            go_on: is called whenever the strategy has returned.
            reach: as of `Engine`.

        """
        self.done = 0
        self.must_begin_anew = False
        self._began = began
        self._kept_from = kept_from
        self._out_of_reach = 0
        self._unwritten: list[Signal] = []
        self._go_on = go_on
        self._engines = [Engine(plan, since=began, known=known, reach=reach) for plan in instance.plans]
        self._engines_of: defaultdict[str, list[int]] = defaultdict(list)
        for number, plan in enumerate(instance.plans):
            for symbol in plan.symbols:
                self._engines_of[symbol].append(number)

    def go_over(self, candles: Sequence[Event], now_us: int) -> None:
        """Give the strategy what was there before, by (close time, timeframe, symbol); as of `take`."""
        self._take(candles, now_us)
        self._out_of_reach = self._engines_out_of_reach()

    def take(self, events: Sequence[Event], now_us: int) -> None:
        """Give the strategy what has come. Raises StrategyError."""
        self._take(events, now_us)
        self.must_begin_anew = (
            self.must_begin_anew
            or self._engines_out_of_reach() > self._out_of_reach
            or any(self._is_from_before(event) for event in events)
        )

    def tick(self, now_us: int) -> None:
        """Say what time it is; what is awaited in vain is given up by it. Raises StrategyError."""
        for engine in self._engines:
            self._unwritten += _called(engine.tick, now_us)
            self._go_on()
        self._settle()

    def collect(self) -> list[Signal]:
        """The messages for topic `signals` since the last time, in order.

        After an error, and while the strategy does not return, too: those that it had given before.
        """
        signals, self._unwritten = self._unwritten, []
        return signals

    def _take(self, events: Sequence[Event], now_us: int) -> None:
        # One by one, so that what was given before one that the strategy fails at is not lost with it.
        for event in events:
            for number in self._engines_of.get(symbol_of(event), ()):
                engine = self._engines[number]
                began_s = time.perf_counter()
                _count(engine, event)
                self._unwritten += _called(engine.feed, (event,), now_us)
                metrics.strategy_event_seconds.observe(time.perf_counter() - began_s)
                self._go_on()
        self._settle()

    def _settle(self) -> None:
        # An engine that waits for nothing has done all that it was given, however long ago its last candle closed.
        waiting = [engine.done for engine in self._engines if engine.pending]
        self.done = min(waiting) if waiting else max(engine.done for engine in self._engines)

    def _engines_out_of_reach(self) -> int:
        return sum(engine.out_of_reach for engine in self._engines)

    def _is_from_before(self, event: Event) -> bool:
        return not isinstance(event, Gap) and self._began < event.candle.close_time < self._kept_from


def event_of(item: Item, is_complete: Callable[[Candle], bool]) -> Event:
    """What an engine is told of it. `is_complete`: whether a candle is known to lack no trade."""
    if isinstance(item, FeedGap):
        return Gap(item)
    return Closed(item, True if is_complete(item) else None)


def symbol_of(event: Event) -> str:
    """Whose it is."""
    return event.gap.symbol if isinstance(event, Gap) else event.candle.symbol


def _count(engine: Engine, event: Event) -> None:
    if isinstance(event, Gap):
        metrics.strategy_events.labels("gap").inc()
        return
    kind = "closed" if event.candle.close_time > engine.done else "corrected"
    metrics.strategy_events.labels(kind).inc()


def _called(work: Callable[..., list[Signal]], *arguments: object) -> list[Signal]:
    try:
        return work(*arguments)
    except SystemExit as error:  # a strategy may not end the process as if all were well
        raise StrategyError(f"the strategy called exit({error.code!r})") from error
