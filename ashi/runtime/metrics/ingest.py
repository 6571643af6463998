"""The metrics of an ingest worker."""

from __future__ import annotations

from ashi.runtime.metrics.declare import SECONDS, counter, gauge, histogram

frames = counter("ingest", "frames", "Frames read, by outcome: trades, skipped or dead.", "venue", "outcome")
trades_published = counter("ingest", "trades_published", "Trades acknowledged by Kafka in topic trades.", "venue")
feed_connections = gauge("ingest", "feed_connections", "Websocket connections that are open.", "venue")
feed_symbols = gauge(
    "ingest",
    "feed_symbols",
    "Symbols by state: connected, silent, repairing or down.",
    "venue",
    "state",
)
feed_shared_symbols = gauge(
    "ingest",
    "feed_shared_symbols",
    "Symbols that another worker reads too, by kind: rival (nobody asked for it) or redundant (--redundant).",
    "venue",
    "kind",
)
reconnects = counter(
    "ingest", "reconnects", "Connections that ended, by reason: see docs/venues.md.", "venue", "reason"
)
subscriptions = counter(
    "ingest", "subscriptions", "Subscriptions by outcome: accepted, refused or unanswered.", "venue", "outcome"
)
duplicates_removed = counter(
    "ingest", "duplicates_removed", "Trades that came again and were not published again.", "venue"
)
feed_holes = counter(
    "ingest",
    "feed_holes",
    "Stretches without trades by outcome: found, then repaired, absent (the venue has none there either) or lost.",
    "venue",
    "outcome",
)
comparisons = counter(
    "ingest",
    "comparisons",
    "Markets compared with REST by outcome: same, missing (it lists trades that had not come) or failed. Those that a "
    "venue states in one answer for all markets are not counted.",
    "venue",
    "outcome",
)
trades_recovered = counter("ingest", "trades_recovered", "Trades fetched over REST and published.", "venue")
rest_requests = counter("ingest", "rest_requests", "REST requests: ok, limited, failed.", "venue", "outcome")
clock_ahead_seconds = gauge(
    "ingest",
    "clock_ahead_seconds",
    "How far a clock is ahead of this machine's, by the last minute; kind: venue (times of trades) or kafka (appends).",
    "venue",
    "kind",
)
trades_held = gauge(
    "ingest", "trades_held", "Trades in memory: waiting for a repair or for Kafka to take them.", "venue"
)
trade_delay_seconds = histogram(
    "ingest",
    "trade_delay_seconds",
    "From the venue's time of a trade to Kafka's acknowledgment, the oldest trade of each batch; clocks may differ.",
    "venue",
    buckets=SECONDS,
)
frame_to_ack_seconds = histogram(
    "ingest",
    "frame_to_ack_seconds",
    "From the receipt of a live frame to Kafka's acknowledgment, the oldest trade of each batch.",
    "venue",
    buckets=SECONDS,
)
last_trade_timestamp_seconds = gauge(
    "ingest",
    "last_trade_timestamp_seconds",
    "Greatest time of a trade handed to Kafka, of all markets, by the venue's clock, since the epoch.",
    "venue",
)
