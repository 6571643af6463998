"""The metrics of a sink."""

from __future__ import annotations

from ashi.runtime.metrics.declare import DELAYS, ROWS, SECONDS, counter, gauge, histogram

candles_read = counter("sink", "candles_read", "Candles read from topic candles.", "sink")
candles_written = counter("sink", "candles_written", "Candles handed to the store and committed there.", "sink")
write_failures = counter("sink", "write_failures", "Writes that the store refused, retried or not.", "sink")
write_seconds = histogram("sink", "write_seconds", "Time that writing one batch took.", "sink", buckets=SECONDS)
rows_lost = counter("sink", "rows_lost", "Times that a table was found emptied or replaced under the worker.", "sink")
batch_rows = histogram("sink", "batch_rows", "Candles, or trades, in a written batch.", "sink", buckets=ROWS)
messages_misplaced = counter(
    "sink", "messages_misplaced", "Messages read that do not stand on the partition of their key."
)
row_delay_seconds = histogram(
    "sink",
    "row_delay_seconds",
    "From the append of a candle to topic candles, corrections too, until it was stored, by Kafka's clock and this "
    "machine's. Without those that were appended before the sink was to have them (see docs/operations.md).",
    "sink",
    "timeframe",
    buckets=DELAYS,
)
sink_lag_records = gauge(
    "sink", "sink_lag_records", "Offsets that are not stored and committed yet.", "sink", "topic", "partition"
)
sink_lag_seconds = gauge(
    "sink",
    "sink_lag_seconds",
    "How long ago the oldest record that is not stored and committed yet was appended, at most; 0 where there is none.",
    "sink",
    "topic",
    "partition",
)
store_up = gauge("sink", "store_up", "1 while the store takes what is written, 0 while it is away.", "sink")
store_write_timestamp_seconds = gauge(
    "sink", "store_write_timestamp_seconds", "Time of the last write that the store has taken, since the epoch.", "sink"
)
