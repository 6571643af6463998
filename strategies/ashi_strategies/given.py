"""The signals that were given, and what has to be published so that they are what the strategy says now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from ashi.contracts.signal import Signal, signal_rank
from ashi_series.events import Closed, Corrected
from ashi_series.order import step_order

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from ashi.contracts.candle import Candle
    from ashi_strategies.run import Step
    from ashi_strategies.target import Target

_Slot: TypeAlias = tuple[str, str, int]
"""Symbol, timeframe and close time: where a signal may be."""
_PRUNE_AT: Final = 10_000
"""From so many on, what is known of old candles is forgotten now and then."""


class GivenSignals:
    """The last signal of each candle of one strategy, and whether those candles are complete."""

    def __init__(self, strategy: str, series: Collection[tuple[str, str]], since: int, known: Iterable[Signal]) -> None:
        """`strategy`: its name; `series`: symbol and timeframe of each; `since`, `known`: as of the engine."""
        self._strategy = strategy
        self._series = series
        self._since = since
        self._completeness: dict[_Slot, bool] = {}
        self._signals: dict[_Slot, Signal] = {}
        self._prune_at = _PRUNE_AT
        for signal in known:
            self._remember(signal)

    def __len__(self) -> int:
        """How much is known."""
        return len(self._signals) + len(self._completeness)

    def in_order(self) -> list[Signal]:
        """The last of each, by (close time, timeframe, symbol)."""
        return sorted(self._signals.values(), key=step_order)

    def note_completeness(self, event: Closed | Corrected) -> None:
        """Take in whether a candle is complete, as far as its event says."""
        if isinstance(event, Closed) and event.is_complete is not None:
            self._completeness[_slot(event.candle)] = event.is_complete
        elif self._completeness:
            self._completeness.pop(_slot(event.candle), None)

    def compare(self, step: Step, now: int | None) -> Iterator[Signal]:
        """What has to be published so that the signals at a close time are these answers.

        Where they do not count, what is known stands: this instance knows less than the one that gave it.
        """
        if not step.counts:
            return
        for _, candle, target, all_closed in step.answers:
            if candle.close_time <= self._since:
                return
            known = self._signals.get(_slot(candle))
            if known is None and target is None:
                continue
            if known is not None and known.version > candle.version:
                continue  # it was given at a candle that is still to come
            new = None if target is None else self._signal(candle, target, all_closed, now)
            if known is not None and known.status == "active":
                if new is not None and content_of(new) == content_of(known):
                    continue
                known = msgspec.structs.replace(known, status="superseded", updated_at=_made_at(candle, now))
                yield self._remember(known)
            if new is not None:
                revision = known.revision + 1 if known is not None and known.version == new.version else 0
                yield self._remember(msgspec.structs.replace(new, revision=revision))

    def forget(self, oldest: Callable[[], int]) -> None:
        """Forget now and then what is known of candles that closed before `oldest()`, µs."""
        if len(self) <= self._prune_at:
            return
        first = oldest()
        self._signals = {slot: signal for slot, signal in self._signals.items() if slot[2] >= first}
        self._completeness = {slot: known for slot, known in self._completeness.items() if slot[2] >= first}
        self._prune_at = 2 * len(self) + _PRUNE_AT

    def _signal(self, candle: Candle, target: Target, all_closed: bool, now: int | None) -> Signal:
        return Signal(
            strategy=self._strategy,
            symbol=candle.symbol,
            timeframe=candle.timeframe,
            open_time=candle.open_time,
            close_time=candle.close_time,
            version=candle.version,
            revision=0,
            target=target.target,
            strength=target.strength,
            price=candle.close,
            reason=target.reason,
            labels=dict(target.labels),
            all_closed=all_closed,
            is_complete=self._completeness.get(_slot(candle)),
            status="active",
            updated_at=_made_at(candle, now),
        )

    def _remember(self, signal: Signal) -> Signal:
        slot = _slot(signal)
        if signal.strategy == self._strategy and slot[:2] in self._series:
            known = self._signals.get(slot)
            if known is None or signal_rank(signal) > signal_rank(known):
                self._signals[slot] = signal
        return signal


def _slot(of: Candle | Signal) -> _Slot:
    return of.symbol, of.timeframe, of.close_time


def _made_at(candle: Candle, now: int | None) -> int:
    return candle.close_time if now is None else now


def content_of(signal: Signal) -> tuple[object, ...]:
    """What of a signal must not change in silence, and is the same in a backtest.

    Not whether its candle is complete, which is found out later, nor its revision and the time it was made.
    """
    return (
        signal.version,
        signal.target,
        signal.strength,
        signal.price,
        signal.reason,
        signal.labels,
        signal.all_closed,
    )
