"""The metrics of the chart's server."""

from __future__ import annotations

from ashi.runtime.metrics import common  # noqa: F401  (which every process has)
from ashi.runtime.metrics.declare import SECONDS, counter, gauge, histogram

chart_clients = gauge("chart", "chart_clients", "Pages that are connected.")
chart_messages = counter(
    "chart", "chart_messages", "Messages sent to pages, by kind: the field t of docs/chart.md.", "kind"
)
chart_bytes = counter("chart", "chart_bytes", "Bytes of the messages sent to pages.")
chart_connections_ended = counter(
    "chart",
    "chart_connections_ended",
    "Connections of pages that have ended, by reason: closed (by the page), gone (nothing was heard of it), slow (it "
    "took nothing for too long), refused (it sent what is no message) or stopping.",
    "reason",
)
chart_refused = counter(
    "chart",
    "chart_refused",
    "Requests that were refused, by reason: host, origin, token, full (too many pages) or idle (a connection that is "
    "no page, and nothing came of it for too long, or there were too many).",
    "reason",
)
chart_series = gauge("chart", "chart_series", "Series that are held, as somebody looks at them or did so a moment ago.")
chart_load_seconds = histogram(
    "chart",
    "chart_load_seconds",
    "Time until a series that somebody wants to see was loaded from the store and the topic.",
    buckets=SECONDS,
)
chart_conflated = counter(
    "chart", "chart_conflated", "Changes of bars that a later change replaced before a page had taken them."
)
chart_snapshots_for_lag = counter(
    "chart",
    "chart_snapshots_for_lag",
    "Snapshots sent to pages that were so far behind that the changes would have been too many.",
)
chart_send_seconds = histogram(
    "chart",
    "chart_send_seconds",
    "From when a bar has changed here until it is handed to the network, the oldest change of each message.",
    buckets=SECONDS,
)
chart_lag_seconds = gauge(
    "chart",
    "chart_lag_seconds",
    "How far the reading of candles and candles.live is behind what stands there; NaN while Kafka does not say.",
)
chart_store_failures = counter("chart", "chart_store_failures", "Questions that the store did not answer.")
chart_unreadable = counter("chart", "chart_unreadable", "Records of topics that hold no message and were passed over.")
