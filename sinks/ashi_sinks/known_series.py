"""Whether there are candles of the series that somebody asks for, and what there is where there are none."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.runtime.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi_sinks.protocol import SeriesSpan

NAMED: Final = 20
"""Of more symbols than this an error does not list them."""


def check_known(spans: Sequence[SeriesSpan], wanted: Iterable[tuple[str, str]], none_at_all: str) -> None:
    """Raise UsageError that says what there is, unless each series, (symbol, timeframe), is among `spans`.

    `spans`: as `ashi_sinks.protocol.CandleReader.spans` gives them; `none_at_all`: what is said where there are none.
    """
    there = {(span.symbol, span.timeframe) for span in spans}
    for symbol, timeframe in wanted:
        if (symbol, timeframe) in there:
            continue
        if not spans:
            raise UsageError(none_at_all)
        timeframes = [span.timeframe for span in spans if span.symbol == symbol]
        if timeframes:
            right = did_you_mean(timeframe, timeframes)
            raise UsageError(f"there are no {timeframe} candles of {symbol}; there are {', '.join(timeframes)}{right}")
        symbols = [name for name, _ in groupby(span.symbol for span in spans)]
        names = f"there are {', '.join(symbols)}" if len(symbols) <= NAMED else "`ashi symbols` lists all there are"
        raise UsageError(f"there are no candles of {symbol!r}; {names}{did_you_mean(symbol, symbols)}")
