"""The series of all symbols and timeframes that somebody looks at."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from ashi.client.completeness import Completeness
from ashi.contracts.errors import UsageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi_series.aggregator import CandleAggregator, LateTrade
from ashi_series.events import Closed, Corrected, Gap, InProgress
from ashi_series.script_values import amount, check_side_and_id, time_us, timeframe_of
from ashi_series.series import LIMIT, Series, check_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ashi.contracts.candle import Candle
    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Side
    from ashi_series.script_values import Amount, AnyTimeframe, Number


class OhlcvStore:
    """The series of each symbol and timeframe, bounded, made of trades in this process or of candles that Ashi made.

    >>> store = OhlcvStore(timeframes_sec=[60, 300])
    >>> store.on_trade("BTC_JPY", ts, price, size)
    >>> store.get_latest("BTC_JPY", 60)

    A series is fed in one of two ways: `on_trade`, or `apply` and `update`, as `follow` does. Symbols may be any text
    where trades are given. Not for several threads at once.
    """

    def __init__(
        self,
        timeframes_sec: Iterable[AnyTimeframe] = (60,),
        *,
        limit: int = LIMIT,
        lateness_sec: float = 0,
        flat_candles: int = 0,
        on_late: Callable[[LateTrade], None] | None = None,
    ) -> None:
        """`limit`: so many closed candles are kept of each series; for the others see `CandleAggregator`.

        Raises ContractError for a timeframe, and UsageError where there is none or the limit is less than 1.
        """
        if isinstance(timeframes_sec, str) or not isinstance(timeframes_sec, Iterable):
            raise UsageError(
                f"timeframes {timeframes_sec!r} are not a collection of timeframes: write ['1m'] or [60, 300]"
            )
        self.timeframes = tuple(sorted({timeframe_of(each) for each in timeframes_sec}))
        if not self.timeframes:
            raise UsageError("a store without timeframes keeps nothing: give it some, as timeframes_sec=[60, 300]")
        check_limit(limit)
        self.limit = limit
        self._lateness_sec = lateness_sec
        self._flat_candles = flat_candles
        self._on_late = on_late
        self._series: dict[tuple[str, Timeframe], Series] = {}
        self._aggregators: dict[str, dict[Timeframe, CandleAggregator]] = {}
        self._completeness = Completeness()

    def on_trade(
        self,
        symbol: str,
        ts: Number,
        price: Amount,
        size: Amount,
        *,
        side: Side | None = None,
        trade_id: str | None = None,
    ) -> list[Candle]:
        """Take a trade in; gives the candles that it closed, of the finest timeframe first. See `CandleAggregator`."""
        traded_at, exact_price, exact_size = time_us(ts), amount("price", price), amount("size", size)
        check_side_and_id(side, trade_id)
        aggregators = (self._aggregators.get(symbol) or self._begin(symbol)).values()
        for aggregator in aggregators:  # none takes it in unless all would
            aggregator.check_has_ids(trade_id is not None)
        closed: list[Candle] = []
        late: list[tuple[CandleAggregator, LateTrade]] = []
        for aggregator in aggregators:
            told = aggregator.take(traded_at, exact_price, exact_size, side, trade_id)
            if told is not None:
                late.append((aggregator, told))
            closed += aggregator.closed
        _tell(late)
        return closed

    def on_time(self, ts: Number) -> list[Candle]:
        """Close what is due at a time, of all symbols, though no trade has come. See `CandleAggregator.on_time`."""
        time_us(ts)  # what is wrong with it is told without any symbol, too
        closed: list[Candle] = []
        for aggregators in self._aggregators.values():
            for aggregator in aggregators.values():
                aggregator.on_time(ts)
                closed += aggregator.closed
        return closed

    def ensure_aggregator(self, symbol: str, timeframe_sec: AnyTimeframe) -> CandleAggregator:
        """What makes the candles of a symbol in a timeframe, which begins to if it does not exist yet.

        It may be of a timeframe that other symbols do not have. Raises UsageError where `apply` feeds the series.
        """
        timeframe = timeframe_of(timeframe_sec)
        aggregators = self._aggregators.get(symbol) or self._begin(symbol)
        if timeframe not in aggregators:
            made = aggregators | {timeframe: self._new_aggregator(symbol, timeframe)}
            aggregators = self._aggregators[symbol] = dict(sorted(made.items()))
        return aggregators[timeframe]

    def get_series(self, symbol: str, timeframe_sec: AnyTimeframe) -> Series:
        """The series of a symbol in a timeframe: it goes on by itself, and is empty before the first candle.

        Raises UsageError for a timeframe that the store does not keep.
        """
        timeframe = timeframe_of(timeframe_sec)
        series = self._series.get((symbol, timeframe))
        if series is None:
            if timeframe not in self.timeframes:
                kept = ", ".join(map(str, self.timeframes))
                raise UsageError(f"the store keeps {kept} and not {timeframe}: name it when the store is made")
            series = self._series[symbol, timeframe] = Series(symbol, timeframe, self.limit)
        return series

    def get_latest(self, symbol: str, timeframe_sec: AnyTimeframe) -> Candle | None:
        """The newest closed candle, or None before any has closed. Raises UsageError as `get_series`."""
        return self.get_series(symbol, timeframe_sec).last

    def get_current(self, symbol: str, timeframe_sec: AnyTimeframe) -> Candle | None:
        """The candle in progress, as far as it has come, or None. Raises UsageError as `get_series`."""
        return self.get_series(symbol, timeframe_sec).in_progress

    def apply(self, candle: Candle) -> Closed | Corrected | None:
        """Take in a closed candle of Ashi's; tells what became of its series, or None where that is no news.

        Raises UsageError as `get_series`, and where the series is made of trades.
        """
        series = self._fed_by_candles(candle)
        event = series.apply(candle)
        return Closed(candle, self.is_complete(candle)) if isinstance(event, Closed) else event

    def fill(self, candle: Candle) -> None:
        """As `apply`, where nobody wants to be told: whether a candle is complete is not looked up."""
        self._fed_by_candles(candle).apply(candle)

    def update(self, candle: Candle) -> InProgress | None:
        """Take in how far a candle in progress has come; None where that is no news. Raises as `apply`."""
        return self._fed_by_candles(candle).update(candle)

    def take(self, message: FeedGap | FeedStatus) -> Gap | None:
        """Take in what is said of a feed; tells of a gap when it is news."""
        is_news = self._completeness.update(message)
        return Gap(message) if is_news and isinstance(message, FeedGap) else None

    def is_complete(self, candle: Candle) -> bool | None:
        """Whether no trade is missing from a candle, by what has been said of its feed so far.

        None: the feed has not checked that time yet. False: a gap that is open or lost overlaps it; an open one may
        still be repaired.
        """
        if self._completeness.gaps_in(candle):
            return False
        return True if self._completeness.is_complete(candle) else None

    def _begin(self, symbol: str) -> dict[Timeframe, CandleAggregator]:
        made = {timeframe: self._new_aggregator(symbol, timeframe) for timeframe in self.timeframes}
        self._aggregators[symbol] = made
        return made

    def _new_aggregator(self, symbol: str, timeframe: Timeframe) -> CandleAggregator:
        series = self._series.setdefault((symbol, timeframe), Series(symbol, timeframe, self.limit))
        if series or series.in_progress:
            raise UsageError(f"the series {series.name} is made of candles: give its trades to another store")
        return CandleAggregator(
            timeframe,
            symbol=symbol,
            lateness_sec=self._lateness_sec,
            flat_candles=self._flat_candles,
            on_late=self._on_late,
            on_change=partial(self._take_from, series),
        )

    def _fed_by_candles(self, candle: Candle) -> Series:
        series = self.get_series(candle.symbol, candle.timeframe)
        if series.timeframe in self._aggregators.get(candle.symbol, ()):
            raise UsageError(f"the series {series.name} is made of trades: give its candles to another store")
        return series

    @staticmethod
    def _take_from(series: Series, aggregator: CandleAggregator) -> None:
        for candle in aggregator.closed:
            series.apply(candle)
        for candle in aggregator.get_open_candles():
            series.update(candle)


def _tell(late: Iterable[tuple[CandleAggregator, LateTrade]]) -> None:
    """Tell of all of them; what telling raised first is raised then."""
    failure: Exception | None = None
    for aggregator, trade in late:
        try:
            aggregator.tell(trade)
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
