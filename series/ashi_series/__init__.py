"""Series of candles, for strategies and scripts: closed ones in order, bounded and corrected, and those in progress."""

from ashi_series.aggregator import CandleAggregator, LateTrade, LateTradeWarning
from ashi_series.events import Closed, Corrected, Event, Gap, InProgress, SeriesEvent
from ashi_series.following import Following, follow
from ashi_series.series import Series, SeriesView
from ashi_series.store import OhlcvStore

__all__ = [
    "CandleAggregator",
    "Closed",
    "Corrected",
    "Event",
    "Following",
    "Gap",
    "InProgress",
    "LateTrade",
    "LateTradeWarning",
    "OhlcvStore",
    "Series",
    "SeriesEvent",
    "SeriesView",
    "follow",
]
