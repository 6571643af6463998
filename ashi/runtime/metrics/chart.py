"""The metrics of the chart's server."""

from __future__ import annotations

from ashi.runtime.metrics import common  # noqa: F401  (which every process has)
from ashi.runtime.metrics.declare import counter, gauge

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
    "Requests that were refused, by reason: host, origin, token or full (too many pages).",
    "reason",
)
