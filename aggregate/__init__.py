"""The aggregate stage: topic `trades` in, closed candles out to topic `candles`."""

from aggregate.core.aggregator import CandleAggregator, WindowRules

__all__ = ["CandleAggregator", "WindowRules"]
