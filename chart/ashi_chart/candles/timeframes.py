"""The timeframes of a chart: those that are stored, and longer ones that are rolled up of them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import DAY_US, Timeframe

if TYPE_CHECKING:
    from collections.abc import Collection

    from ashi_sinks.protocol import SeriesSpan

WEEK_US: Final = 7 * DAY_US
FIRST_MONDAY_US: Final = 4 * DAY_US
"""The epoch began on a Thursday; weeks begin on Monday, 00:00 UTC."""

LONGER: Final = ("5m", "15m", "30m", "1h", "2h", "4h", "12h", "1d", "1w")
"""What is offered though it may not be stored, where something that is stored divides it."""
MOST_PARTS: Final = 20_000
"""Of so many candles one bar is rolled up at most: a week of minutes is, a day of seconds would take a second each."""


class ChartTimeframe(NamedTuple):
    """The length of a chart's bars: a timeframe of candles, or a week.

    Attributes:
        name: `15m`, `1w`.
        length_us: µs.
        origin_us: a time at which a window begins, µs since the epoch: 0, but for weeks.

    """

    name: str
    length_us: int
    origin_us: int = 0

    @classmethod
    def parse(cls, text: str) -> ChartTimeframe:
        """Read `1w` or what `Timeframe.parse` reads. Raises ContractError for anything else."""
        if text in {"1w", "7d"}:
            return cls("1w", WEEK_US, FIRST_MONDAY_US)
        try:
            return cls.of(Timeframe.parse(text))
        except ContractError as error:
            raise ContractError(f"{error}; weeks are 1w") from None

    @classmethod
    def of(cls, timeframe: Timeframe) -> ChartTimeframe:
        """That of candles."""
        return cls(str(timeframe), timeframe.length_us)

    def open_time(self, time_us: int) -> int:
        """Start (µs, inclusive) of the window that `time_us` falls into."""
        return time_us - (time_us - self.origin_us) % self.length_us


def sources_of(stored: Collection[Timeframe]) -> dict[ChartTimeframe, Timeframe]:
    """What a chart can show where these are stored, shortest first, and of which of these each is made.

    What is stored is shown as it is. The others are made of the longest that divides them: of the fewest candles.
    """
    sources = {ChartTimeframe.of(timeframe): timeframe for timeframe in stored}
    for target in map(ChartTimeframe.parse, LONGER):
        divisors = [each for each in stored if target.length_us % each.length_us == 0]
        if target not in sources and divisors and target.length_us // max(divisors).length_us <= MOST_PARTS:
            sources[target] = max(divisors)
    return dict(sorted(sources.items(), key=lambda item: item[0].length_us))


def timeframes_that_come(spans: Collection[SeriesSpan]) -> set[Timeframe]:
    """Those of a store whose newest candle is about as new as that of the others.

    It may have candles of other settings, too: those come no more, and what was made of them would stand still.
    """
    newest: dict[Timeframe, int] = {}
    for span in spans:
        timeframe = Timeframe.parse(span.timeframe)
        newest[timeframe] = max(newest.get(timeframe, 0), span.last + timeframe.length_us)
    now = max(newest.values(), default=0)
    return {timeframe for timeframe, until in newest.items() if until >= now - 2 * timeframe.length_us}
