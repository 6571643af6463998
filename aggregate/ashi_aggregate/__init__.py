"""The aggregate stage: topic `trades` in, closed candles out to topic `candles`."""

from ashi_aggregate.core.aggregator import TimeframeAggregator
from ashi_aggregate.core.window_state import WindowRules

__all__ = ["TimeframeAggregator", "WindowRules"]
