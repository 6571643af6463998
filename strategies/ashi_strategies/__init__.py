"""Strategies: series of candles in, signals out, by one engine for live and for backtests.

Described in docs/strategies.md.
"""

from ashi_strategies.handed import StrategySeries
from ashi_strategies.plan import Plan, load_strategy, plans_of
from ashi_strategies.strategy import Strategy
from ashi_strategies.target import Target, flat, long, short

__all__ = ["Plan", "Strategy", "StrategySeries", "Target", "flat", "load_strategy", "long", "plans_of", "short"]
