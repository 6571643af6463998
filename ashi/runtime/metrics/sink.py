"""The metrics of a sink."""

from __future__ import annotations

from ashi.runtime.metrics.declare import ROWS, SECONDS, counter, histogram

candles_read = counter("sink", "candles_read", "Candles read from topic candles.", "sink")
candles_written = counter("sink", "candles_written", "Candles handed to the store and committed there.", "sink")
write_failures = counter("sink", "write_failures", "Writes that the store refused, retried or not.", "sink")
write_seconds = histogram("sink", "write_seconds", "Time that writing one batch took.", "sink", buckets=SECONDS)
rows_lost = counter("sink", "rows_lost", "Times that a table was found emptied or replaced under the worker.", "sink")
batch_rows = histogram("sink", "batch_rows", "Candles, or trades, in a written batch.", "sink", buckets=ROWS)
messages_misplaced = counter(
    "sink", "messages_misplaced", "Messages read that do not stand on the partition of their key."
)
