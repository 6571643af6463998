"""The aggregate stage: topic `trades` in, closed candles out to topic `candles`."""

from aggregate.core.aggregator import CandleAggregator
from aggregate.core.row import WindowRules

__all__ = ["CandleAggregator", "WindowRules"]
