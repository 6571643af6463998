"""Series of candles, for strategies and scripts: closed ones in order, bounded and corrected, and those in progress."""

from ashi_series.events import Closed, Corrected, Event, Gap, InProgress, SeriesEvent
from ashi_series.series import Series, SeriesView

__all__ = ["Closed", "Corrected", "Event", "Gap", "InProgress", "Series", "SeriesEvent", "SeriesView"]
