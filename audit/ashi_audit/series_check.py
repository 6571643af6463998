"""One stored series against its trades: which candles are right, and why others may differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.candle import EPOCH_BITS
from ashi.runtime import words
from ashi_audit.recomputed import flat_candle, flat_candles
from ashi_audit.report import NONE, WHOLE, Difference, excused, field_differences, same_content

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from ashi.contracts.candle import Candle
    from ashi_audit.recomputed import Totals
    from ashi_audit.recount import LateTrade, SeriesRange, WindowTrades
    from ashi_audit.rules import CandleRules

_OFFSET: Final = (1 << EPOCH_BITS) - 1


class SeriesCheck:
    """Compares the candles of one series, range after range.

    Attributes:
        compared: candles looked at.
        open: windows that may still change, or close, and were left out.

    """

    def __init__(
        self,
        rules: CandleRules,
        *,
        offsets: bool,
        excuse: Callable[[str, int, int], str | None] = lambda *_: None,
        joined: Container[Candle] = (),
    ) -> None:
        """`offsets`: the trades' offsets are those that the versions of the candles are made of.

        `excuse` says for a window of a symbol (from, to, µs) why its trades may not be comparable, if they may not.
        `joined`: candles that have trades of files besides those that are counted here.
        """
        self._rules = rules
        self._offsets = offsets
        self._excuse = excuse
        self._joined = joined
        self._carried: Candle | None = None
        self._live: Candle | None = None  # what the workers carry, who do not know of a rebuilt candle
        self.compared = 0
        self.open = 0

    def check(self, counted: SeriesRange, stored: Mapping[int, Candle], clock: int) -> Iterator[list[Difference]]:
        """The differences of each candle that has some. `stored`: by open time. `clock`: of the newest trade, µs."""
        windows = {window.open_time: window for window in counted.windows}
        length_us = counted.timeframe.length_us
        next_open = counted.begin
        for open_time in sorted({*windows, *stored}):
            yield from self._missing_flat(counted, next_open, open_time)
            next_open = open_time + length_us
            window, candle = windows.get(open_time), stored.get(open_time)
            found = list(self._check(counted, window, candle, clock))
            if found:
                yield self._excused(found, counted, open_time)
        yield from self._missing_flat(counted, next_open, counted.until)

    def _excused(self, found: list[Difference], counted: SeriesRange, open_time: int) -> list[Difference]:
        why = self._excuse(counted.symbol, open_time, open_time + counted.timeframe.length_us)
        return excused(found, why)

    def _check(
        self, counted: SeriesRange, window: WindowTrades | None, candle: Candle | None, clock: int
    ) -> Iterator[Difference]:
        if window is None:
            assert candle is not None  # noqa: S101
            if candle.trade_count and self._offsets and not counted.settled:
                self.open += 1  # its trades are from beyond what was read
                self._carry(candle)
                return
            self.compared += 1
            yield from self._check_without_trades(candle)
            return
        totals = window.everything()
        if totals is None:
            return
        expected = _candle(counted, totals)
        if candle is None:
            yield from self._absent(counted, window, expected, clock)
            return
        if not counted.settled and self._is_ahead(window, candle):
            self.open += 1
            self._carry(candle)
            return
        self.compared += 1
        yield from self._check_content(counted, window, candle, expected)

    def _check_content(
        self, counted: SeriesRange, window: WindowTrades, candle: Candle, expected: Candle
    ) -> Iterator[Difference]:
        in_time = None if window.in_time is None else _candle(counted, window.in_time)
        others = list(self._others(counted, window, candle))
        if candle.trade_count:
            self._carry(candle, in_time or self._live or self._carried)
        if same_content(candle, expected):
            return
        if candle in self._joined and _adds_to(candle, in_time or expected):
            why = "it has trades of files as well, from before the live ones (`ashi history load`)"
            yield from field_differences(candle, expected, why, explained=True)
            return
        nearest = list(field_differences(candle, expected, _guess(window, candle, expected), explained=False))
        for other in others:
            found = list(field_differences(candle, other, _guess(window, candle, other), explained=False))
            if not found:
                yield from field_differences(candle, expected, _late_reason(window), explained=True)
                return
            nearest = min(nearest, found, key=len)
        yield from nearest

    def _others(self, counted: SeriesRange, window: WindowTrades, candle: Candle) -> Iterator[Candle]:
        """What a candle may be and still be right, besides one of all the trades."""
        if not window.late:
            return
        included: list[list[LateTrade]] = [
            [],
            # Too late in an earlier epoch of a shorter horizon, and not in this one.
            [late for late in window.late if not late.beyond_horizon],
            # The others came after the candle was rebuilt.
            [late for late in window.late if late.offset <= candle.version & _OFFSET],
        ]
        for late_trades in included:
            totals = window.with_late(late_trades)
            if totals is not None:
                yield _candle(counted, totals)
                continue
            # What it carries may be from before the trades that are looked at.
            known = [before for before in (self._carried, self._live) if before is not None]
            for carried in known or [candle]:
                yield flat_candle(carried, window.open_time)

    def _check_without_trades(self, candle: Candle) -> Iterator[Difference]:
        if candle.trade_count:
            why = "the trades of this time have no such window"
            yield _whole(candle, words.counted(candle.trade_count, "trade"), "no trades", why)
            self._carry(candle)
            return
        if self._carried is None:
            return  # what it carries is from before the trades that are looked at
        expected = flat_candle(self._carried, candle.open_time)
        if same_content(candle, expected):
            return
        if self._live is not None and same_content(candle, flat_candle(self._live, candle.open_time)):
            why = (
                "the close it carries was rebuilt with late trades afterwards; `ashi rebuild` of this time corrects it"
            )
            yield from field_differences(candle, expected, why, explained=True)
            return
        yield from field_differences(candle, expected, "a flat candle must carry the close before it", explained=False)

    def _absent(self, counted: SeriesRange, window: WindowTrades, expected: Candle, clock: int) -> Iterator[Difference]:
        if expected.close_time + self._rules.lateness_us > clock and not counted.settled:
            self.open += 1
            return
        self.compared += 1
        if window.in_time is None:
            yield _whole(
                expected, NONE, words.counted(expected.trade_count, "trade"), _late_reason(window), explained=True
            )
            return
        self._carry(expected)
        yield _whole(expected, NONE, words.counted(expected.trade_count, "trade"), "the store does not have it")

    def _missing_flat(self, counted: SeriesRange, begin: int, until: int) -> Iterator[list[Difference]]:
        """One difference for all flat candles that a hole should have been filled with."""
        carried = self._carried
        if carried is None or not counted.settled:
            return
        missing = flat_candles(carried, begin, until, self._rules.max_flat)
        if missing:
            self.compared += len(missing)
            found = [_whole(missing[0], NONE, f"{len(missing)} flat", "windows without trades must have flat candles")]
            yield self._excused(found, counted, begin)

    def _is_ahead(self, window: WindowTrades, candle: Candle) -> bool:
        """Whether the candle has trades from beyond the part of the log that was read."""
        if not self._offsets or window.in_time is None:
            return False
        last = max([window.in_time.offset, *(late.offset for late in window.late)])
        return candle.version & _OFFSET > last

    def _carry(self, candle: Candle, live: Candle | None = None) -> None:
        self._carried, self._live = candle, live


def _adds_to(candle: Candle, live: Candle) -> bool:
    """Whether a candle may be another one with some earlier trades."""
    return (
        candle.trade_count > live.trade_count
        and (candle.close, candle.last_trade_id) == (live.close, live.last_trade_id)
        and candle.low <= live.low
        and candle.high >= live.high
        and candle.volume >= live.volume
        and candle.quote_volume >= live.quote_volume
    )


def _candle(counted: SeriesRange, totals: Totals) -> Candle:
    return totals.candle(counted.timeframe, version=totals.offset)


def _whole(candle: Candle, stored: str, expected: str, why: str, *, explained: bool = False) -> Difference:
    return Difference(
        candle.symbol, candle.timeframe, candle.open_time, WHOLE, stored, expected, why, explained=explained
    )


def _late_reason(window: WindowTrades) -> str:
    return (
        f"{words.counted(len(window.late), 'trade')} came too late for it (topic trades.late), so it is without them "
        "by design; `ashi rebuild` takes them in"
    )


def _guess(window: WindowTrades, candle: Candle, expected: Candle) -> str:
    if candle.trade_count < expected.trade_count:
        return f"it lacks {words.counted(expected.trade_count - candle.trade_count, 'trade')}"
    if candle.trade_count > expected.trade_count:
        return (
            f"it has {words.counted(candle.trade_count - expected.trade_count, 'trade')} that the source does not have"
        )
    return "it has as many trades, and others" if not window.late else "late trades do not explain it"
