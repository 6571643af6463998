"""Candles of a longer timeframe, made of those of a shorter one: each is what the trades of its window give. Pure.

A part is a candle of the shorter timeframe. As in the aggregate stage flat parts count in no longer candle: they say
only that there were no trades. What holds the newest windows and goes on with each part is in `rolling`.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.candle import Candle
from ashi.contracts.decimals import EXACT
from ashi.contracts.errors import ContractError
from ashi.contracts.venue_candle import VENUE_VERSION, source_of
from ashi_chart.candles.timeframes import ChartTimeframe, sources_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ashi.contracts.timeframe import Timeframe

NEVER: Final = -1
"""Stands for the time, µs, up to which parts have closed where none has."""


class Rolled(NamedTuple):
    """A candle of a chart, and how far it is known.

    Attributes:
        candle: of the chart's timeframe; where that is stored, the stored one itself. Its `version` is that of the
            last trade in it, the greatest of its parts' that have trades. So a correction may leave it as it was: of
            what has one version that which was made later counts. Where a part is the venue's own candle it is one too.
        closed: its window is over, and each part has closed or never comes, as a later one has closed. Else it is in
            progress.
        corrected: it has become another one since it was closed, as far as that was seen.
        whole: the series had begun when its window did. Else it lacks what was before the series' first candle.

    """

    candle: Candle
    closed: bool
    corrected: bool = False
    whole: bool = True


class Rollup(NamedTuple):
    """How the candles of a chart's timeframe are made: of `source`'s, which divides it, or these are they."""

    source: Timeframe
    target: ChartTimeframe

    @property
    def is_identity(self) -> bool:
        """Whether the timeframe is stored: each candle is the only part of itself."""
        return self.source.length_us == self.target.length_us

    @property
    def parts(self) -> int:
        """Of how many parts a candle is made at most."""
        return self.target.length_us // self.source.length_us

    def window_of(self, time_us: int) -> tuple[int, int]:
        """Start (inclusive) and end (exclusive) of the window that a time falls into, µs."""
        start = self.target.open_time(time_us)
        return start, start + self.target.length_us

    def candle_of(self, parts: Sequence[Candle]) -> Candle:
        """The candle of one window. `parts`: at least one, of one window, by open time, one of each open time.

        Raises ContractError where they are not of one window or not in order.
        """
        start, end = self.window_of(parts[0].open_time)
        before = start - 1
        for part in parts:
            if not before < part.open_time < part.close_time <= end:
                raise ContractError(
                    f"the candle of {part.symbol} {part.timeframe} at {part.open_time} is not part of the "
                    f"{self.target.name} at {start}, or comes twice"
                )
            before = part.open_time
        return self.sum_of(parts)

    def sum_of(self, parts: Sequence[Candle]) -> Candle:
        """As `candle_of`, unchecked; where parts that follow each other were summed up, their sum stands for them."""
        if self.is_identity and len(parts) == 1:
            return parts[0]
        start = self.target.open_time(parts[0].open_time)
        with_trades = [part for part in parts if part.trade_count]
        if not with_trades:
            # All carry the close before. While a correction of it goes from one to the next, the greatest has it.
            with_trades = [max(parts, key=lambda part: part.version)]
        first, last, add = with_trades[0], with_trades[-1], EXACT.add
        opened, closed, high, low = first.open, last.close, first.high, first.low
        volume, quote_volume, count = first.volume, first.quote_volume, first.trade_count
        taker_buy_volume, taker_buy_quote_volume = first.taker_buy_volume, first.taker_buy_quote_volume
        for part in with_trades[1:]:
            high, low = max(high, part.high), min(low, part.low)
            volume = add(volume, part.volume)
            quote_volume = add(quote_volume, part.quote_volume)
            taker_buy_volume = add(taker_buy_volume, part.taker_buy_volume)
            taker_buy_quote_volume = add(taker_buy_quote_volume, part.taker_buy_quote_volume)
            count += part.trade_count
        return Candle(
            symbol=first.symbol,
            timeframe=self.target.name,
            open_time=start,
            close_time=start + self.target.length_us,
            open=opened,
            high=high,
            low=low,
            close=closed,
            volume=volume,
            quote_volume=quote_volume,
            trade_count=count,
            taker_buy_volume=taker_buy_volume,
            taker_buy_quote_volume=taker_buy_quote_volume,
            first_trade_id=first.first_trade_id,
            last_trade_id=last.last_trade_id,
            version=_version(parts, with_trades),
        )

    def windows_of(self, parts: Iterable[Candle]) -> list[list[Candle]]:
        """The parts of each window that has some; `parts`: by open time, one of each."""
        windows = groupby(parts, key=lambda part: self.target.open_time(part.open_time))
        return [list(of_window) for _, of_window in windows]


def _version(parts: Sequence[Candle], with_trades: Sequence[Candle]) -> int:
    """That of the last trade; of a window of which the venue's own candles are a part, theirs."""
    if any(source_of(part) == "venue" for part in parts):
        return VENUE_VERSION
    return max(part.version for part in with_trades)


def offered(stored: Collection[Timeframe], gone: Collection[Timeframe] = ()) -> dict[str, Rollup]:
    """The timeframes of a chart by name, shortest first, where these are stored: as they are, and longer ones.

    `gone`: those of which no candle comes any more; they are shown as they are where nothing else makes them.
    """
    made = {target: Rollup(source, target) for target, source in sources_of(stored).items()}
    for timeframe in gone:
        target = ChartTimeframe.of(timeframe)
        made.setdefault(target, Rollup(timeframe, target))
    return {target.name: made[target] for target in sorted(made, key=lambda target: target.length_us)}


def same_content(one: Candle, other: Candle) -> bool:
    """Whether two candles of one window say the same, whatever their versions are."""
    return one is other or all(
        getattr(one, field) == getattr(other, field) for field in Candle.__struct_fields__ if field != "version"
    )
