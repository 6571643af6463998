"""The metrics of a strategy's process."""

from __future__ import annotations

from ashi.runtime.metrics import common  # noqa: F401  (which every process has)
from ashi.runtime.metrics.declare import DELAYS, SECONDS, counter, gauge, histogram

strategy_info = gauge(
    "strategy", "strategy_info", "1, with the name of the strategy that this process runs.", "strategy"
)
strategy_events = counter(
    "strategy",
    "strategy_events",
    "What the strategy was given, by kind: closed, corrected, gap.",
    "kind",
)
strategy_event_seconds = histogram(
    "strategy",
    "strategy_event_seconds",
    "Time that the strategy took for one candle, or for all that a correction made it go through again.",
    buckets=SECONDS,
)
strategy_signals = counter(
    "strategy", "strategy_signals", "Messages written to topic signals, by state: active or superseded.", "state"
)
strategy_incomplete_signals = counter(
    "strategy",
    "strategy_incomplete_signals",
    "Signals given though a series of the strategy was awaited in vain; if its candle comes they are superseded.",
)
strategy_close_timestamp_seconds = gauge(
    "strategy",
    "strategy_close_timestamp_seconds",
    "Close time of the last candles whose signals are durable, since the epoch.",
)
strategy_delay_seconds = gauge(
    "strategy",
    "strategy_delay_seconds",
    "How long after their close time the signals of the last candles were durable.",
)
strategy_blocked = gauge(
    "strategy",
    "strategy_blocked",
    "1 while the strategy takes longer than ASHI_STRATEGY_TIMEOUT for one event, else 0.",
)
strategy_memory_limit_bytes = gauge(
    "strategy",
    "strategy_memory_limit_bytes",
    "Memory (process_resident_memory_bytes) at which the process ends; 0: none is set.",
)
strategy_signal_delay_seconds = histogram(
    "strategy",
    "strategy_signal_delay_seconds",
    "From the close time of the candle to when its signal was durable, by this machine's clock. Of candles that closed "
    "since this process began.",
    buckets=DELAYS,
)
