"""The metrics of an aggregate worker."""

from __future__ import annotations

from ashi.runtime.metrics.declare import SECONDS, counter, gauge, histogram

trades_aggregated = counter("aggregate", "trades_aggregated", "Trades folded into candles.", "partition")
candles_emitted = counter(
    "aggregate", "candles_emitted", "Candles sent to topic candles, by kind: closed or corrected.", "timeframe", "kind"
)
live_updates = counter("aggregate", "live_updates", "Candles in progress sent to topic candles.live.", "timeframe")
live_seconds = counter("aggregate", "live_seconds", "CPU time that it took to make and encode candles in progress.")
live_interval_seconds = gauge(
    "aggregate",
    "live_interval_seconds",
    "How long it is now from one update of a market that trades all the time to the next: ASHI_LIVE_INTERVAL, or more "
    "where its share of the CPU does not go as far.",
)
trades_late = counter("aggregate", "trades_late", "Trades too late for any candle, sent to trades.late.", "reason")
records_skipped = counter(
    "aggregate", "records_skipped", "Records of topic trades that changed no candle, such as repeated ones.", "reason"
)
chunk_holes = counter("aggregate", "chunk_holes", "Chunks that began beyond the next offset and were fetched again.")
records_held_back = gauge(
    "aggregate",
    "records_held_back",
    "Offsets of a partition of trades that no reader gets yet, as a transaction before them is still open.",
    "partition",
)
rows_written = counter("aggregate", "rows_written", "Rows of state made durable.", "timeframe")
restored_records = counter("aggregate", "restored_records", "Records of changelogs that the state was restored from.")
restore_seconds = gauge(
    "aggregate", "restore_seconds", "Time from the last assignment until the changelogs had been read to their ends."
)
symbols_waiting = gauge(
    "aggregate",
    "symbols_waiting",
    "Symbols whose rows of state have changed and are written later, as the last checkpoint has written enough.",
    "partition",
)
checkpoint_seconds = histogram(
    "aggregate", "checkpoint_seconds", "Time that a checkpoint of all partitions of a worker took.", buckets=SECONDS
)
checkpoint_timestamp_seconds = gauge(
    "aggregate", "checkpoint_timestamp_seconds", "Time of the last checkpoint, since the epoch.", "partition"
)
clock_offset_seconds = gauge(
    "aggregate",
    "clock_offset_seconds",
    "How far this machine's clock is ahead of that of the partition's broker, by the append times of the state.",
    "partition",
)
position = gauge(
    "aggregate", "position", "Offset of the last record of topic trades whose effects are durable.", "partition"
)
handover_seconds = gauge(
    "aggregate",
    "handover_seconds",
    "How long the last start or hand-over took, by kind: process and checks (of a start), join, and state (until "
    "trades are read on; a restore is part of it).",
    "kind",
)
