"""The text of `docs/metrics.md`: every metric of every stage."""

from __future__ import annotations

from operator import attrgetter

from ashi.runtime.metrics import aggregate, chart, common, ingest, sink, strategy  # noqa: F401  (importing them declares them)
from ashi.runtime.metrics.declare import CATALOGUE


def metrics_document() -> str:
    """The text of `docs/metrics.md`."""
    lines = [
        "<!-- Generated: python -m ashi.runtime.metrics > docs/metrics.md -->",
        "# Metrics",
        "",
        "Every process serves these of its stage, with the usual `process_…` and `python_info`, at `/metrics` of",
        "`ASHI_METRICS_HOST` and `ASHI_METRICS_PORT`, in Prometheus' text format.",
        "",
        "| metric | type | labels | process | meaning |",
        "|---|---|---|---|---|",
    ]
    # By stage, as the catalogue's own order is that of imports, which may be another elsewhere in the process.
    for metric in sorted(CATALOGUE, key=attrgetter("stage")):
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.stage} | {metric.text} |")
    return "\n".join(lines) + "\n"
