"""The metrics of an aggregate worker."""

from __future__ import annotations

from ashi.runtime.metrics.declare import DELAYS, SECONDS, counter, gauge, histogram

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
records_slow = counter(
    "aggregate",
    "records_slow",
    "Records of topic trades that Python folded, some times slower, beside the native fold.",
    "reason",
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
candle_delay_seconds = histogram(
    "aggregate",
    "candle_delay_seconds",
    "From when a candle was due, the end of its window and ASHI_ALLOWED_LATENESS, to Kafka's acknowledgment, by this "
    "machine's clock. Closed candles that were awaited: no corrections, and nothing of a past that is read once more "
    "or loaded (see docs/operations.md).",
    "timeframe",
    buckets=DELAYS,
)
event_timestamp_seconds = gauge(
    "aggregate",
    "event_timestamp_seconds",
    "Greatest time of a trade that was folded, by the venues' clocks, since the epoch.",
    "partition",
)
aggregate_lag_records = gauge(
    "aggregate", "aggregate_lag_records", "Offsets of topic trades that have not been folded yet.", "partition"
)
aggregate_lag_seconds = gauge(
    "aggregate",
    "aggregate_lag_seconds",
    "How long ago the oldest record that has not been folded yet was appended, at most; 0 where there is none.",
    "partition",
)
aggregate_partitions = gauge(
    "aggregate", "aggregate_partitions", "Partitions of topic trades: those of all workers together."
)
aggregate_info = gauge(
    "aggregate",
    "aggregate_info",
    "1, with the epoch of the state and the timeframes that it is built for.",
    "epoch",
    "timeframes",
)
restore_remaining_records = gauge(
    "aggregate", "restore_remaining_records", "Records of changelogs that are left to read before trades are read on."
)
standstill_seconds = counter(
    "aggregate",
    "standstill_seconds",
    "Time in which this worker read no trades as partitions were handed over, by kind as ashi_handover_seconds: join "
    "and state.",
    "kind",
)
row_bytes = gauge(
    "aggregate", "row_bytes", "Size of the greatest row of state that was written in the last minutes, uncompressed."
)
row_limit_bytes = gauge("aggregate", "row_limit_bytes", "Greatest size that a row of state may have.")
id_intervals = gauge(
    "aggregate",
    "id_intervals",
    "Intervals of trade ids that are kept of one symbol within the horizon, the most of those written in the last "
    "minutes.",
)
id_intervals_limit = gauge(
    "aggregate",
    "id_intervals_limit",
    "Intervals from which on a symbol's oldest window is given up, so that its later trades are late.",
)
