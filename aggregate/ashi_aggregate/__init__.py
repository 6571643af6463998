"""The aggregate stage: topic `trades` in, closed candles out to topic `candles`."""

from ashi_aggregate.core.aggregator import CandleAggregator
from ashi_aggregate.core.window_state import WindowRules

__all__ = ["CandleAggregator", "WindowRules"]
