"""The settings of a strategy's process."""

from __future__ import annotations

from dataclasses import dataclass, field

from ashi.runtime.settings.declare import setting
from ashi.runtime.settings.parsers import duration_between, integer_between


@dataclass(frozen=True)
class StrategySettings:
    """What a strategy that runs may take of its machine, in time and in memory."""

    strategy_timeout_us: int = field(
        metadata=setting(
            duration_between("100ms", "1h"),
            "10s",
            "Longest that a strategy may take for one candle (or for all that a correction makes it go through again): "
            "beyond it the process is not live and its log says where the strategy stands; after three times as long "
            "the process ends.",
        )
    )
    strategy_memory_mb: int = field(
        metadata=setting(
            integer_between(0, 1_000_000),
            "2048",
            "Most memory that a strategy's process may have, MB: beyond it the process ends, and from four fifths of "
            "it on it says so; `0`: no limit.",
        )
    )
