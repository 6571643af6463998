"""Every metric of Ashi: name, meaning, labels.

`docs/metrics.md` is generated: python -m ashi.runtime.metrics.catalogue > docs/metrics.md

Names have the prefix `ashi_` and base units; labels are bounded (no symbol, no error text). A metric `trades_late` of
this module is `ashi_trades_late_total` on `/metrics` when it is a counter, else `ashi_trades_late`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY: Final = CollectorRegistry()
"""Our own, so that what a library registers by itself (Faust does) is not served."""
PREFIX: Final = "ashi_"


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric as the documentation shows it; `stage` says which process has it."""

    stage: str
    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


CATALOGUE: Final[list[Entry]] = []


def _counter(stage: str, name: str, text: str, *labels: str) -> Counter:
    CATALOGUE.append(Entry(stage, f"{PREFIX}{name}_total", "counter", labels, text))
    return Counter(f"{PREFIX}{name}", text, labels, registry=REGISTRY)


def _gauge(stage: str, name: str, text: str, *labels: str) -> Gauge:
    CATALOGUE.append(Entry(stage, f"{PREFIX}{name}", "gauge", labels, text))
    return Gauge(f"{PREFIX}{name}", text, labels, registry=REGISTRY)


def _histogram(stage: str, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    CATALOGUE.append(Entry(stage, f"{PREFIX}{name}", "histogram", labels, text))
    return Histogram(f"{PREFIX}{name}", text, labels, registry=REGISTRY, buckets=buckets)


_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0)

frames = _counter("ingest", "frames", "Frames read, by outcome: trades, skipped or dead.", "venue", "outcome")
trades_published = _counter("ingest", "trades_published", "Trades acknowledged by Kafka in topic trades.", "venue")
dead_letters = _counter(
    "all", "dead_letters", "Messages that could not be used, by class of reason.", "stage", "reason"
)

feed_connections = _gauge("ingest", "feed_connections", "Websocket connections that are open.", "venue")
feed_symbols = _gauge(
    "ingest",
    "feed_symbols",
    "Symbols by state: connected, silent, repairing or down.",
    "venue",
    "state",
)
reconnects = _counter(
    "ingest", "reconnects", "Connections that ended, by reason: see docs/venues.md.", "venue", "reason"
)
subscriptions = _counter(
    "ingest", "subscriptions", "Subscriptions by outcome: accepted, refused or unanswered.", "venue", "outcome"
)
duplicates_removed = _counter(
    "ingest", "duplicates_removed", "Trades that came again and were not published again.", "venue"
)
feed_holes = _counter(
    "ingest",
    "feed_holes",
    "Stretches without trades by outcome: found, then repaired, absent (the venue has none there either) or lost.",
    "venue",
    "outcome",
)
trades_recovered = _counter("ingest", "trades_recovered", "Trades fetched over REST and published.", "venue")
rest_requests = _counter("ingest", "rest_requests", "REST requests: ok, limited, failed.", "venue", "outcome")
trades_held = _gauge(
    "ingest", "trades_held", "Trades in memory: waiting for a repair or for Kafka to take them.", "venue"
)
trade_delay_seconds = _histogram(
    "ingest",
    "trade_delay_seconds",
    "From the venue's time of a trade to Kafka's acknowledgment, the oldest trade of each batch; clocks may differ.",
    "venue",
    buckets=_SECONDS,
)
frame_to_ack_seconds = _histogram(
    "ingest",
    "frame_to_ack_seconds",
    "From the receipt of a live frame to Kafka's acknowledgment, the oldest trade of each batch.",
    "venue",
    buckets=_SECONDS,
)

trades_aggregated = _counter("aggregate", "trades_aggregated", "Trades folded into candles.", "partition")
candles_emitted = _counter(
    "aggregate", "candles_emitted", "Candles sent to topic candles, by kind: closed or corrected.", "timeframe", "kind"
)
trades_late = _counter("aggregate", "trades_late", "Trades too late for any candle, sent to trades.late.", "reason")
records_skipped = _counter(
    "aggregate", "records_skipped", "Records of topic trades that changed no candle, such as repeated ones.", "reason"
)
chunk_holes = _counter("aggregate", "chunk_holes", "Chunks that began beyond the next offset and were fetched again.")
rows_written = _counter("aggregate", "rows_written", "Rows of state made durable.", "timeframe")
checkpoint_seconds = _histogram(
    "aggregate", "checkpoint_seconds", "Time that a checkpoint of all partitions of a worker took.", buckets=_SECONDS
)
checkpoint_timestamp_seconds = _gauge(
    "aggregate", "checkpoint_timestamp_seconds", "Time of the last checkpoint, since the epoch.", "partition"
)
position = _gauge(
    "aggregate", "position", "Offset of the last record of topic trades whose effects are durable.", "partition"
)

candles_read = _counter("sink", "candles_read", "Candles read from topic candles.", "sink")
candles_written = _counter("sink", "candles_written", "Candles handed to the store and committed there.", "sink")
write_failures = _counter("sink", "write_failures", "Writes that the store refused, retried or not.", "sink")
write_seconds = _histogram("sink", "write_seconds", "Time that writing one batch took.", "sink", buckets=_SECONDS)
batch_rows = _histogram("sink", "batch_rows", "Candles, or trades, in a written batch.", "sink", buckets=_ROWS)

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)


def metrics_document() -> str:
    """The text of `docs/metrics.md`."""
    lines = [
        "<!-- Generated: python -m ashi.runtime.metrics.catalogue > docs/metrics.md -->",
        "# Metrics",
        "",
        "Every process serves these of its stage, with the usual `process_…` and `python_info`, at `/metrics` of",
        "`ASHI_METRICS_HOST` and `ASHI_METRICS_PORT`, in Prometheus' text format.",
        "",
        "| metric | type | labels | process | meaning |",
        "|---|---|---|---|---|",
    ]
    for entry in CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in entry.labels) or "none"
        lines.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.stage} | {entry.text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(metrics_document())
