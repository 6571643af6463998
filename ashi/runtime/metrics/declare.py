"""How metrics are declared: each once, with its meaning and labels, in the module of the stage that serves it.

A process serves what it has imported: its own stage's metrics, and those that every process has. Names have the prefix
`ashi_` and base units; labels are bounded (no symbol, no error text). A metric `trades_late` of a stage's module is
`ashi_trades_late_total` on `/metrics` when it is a counter, else `ashi_trades_late`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector

REGISTRY: Final = CollectorRegistry()
"""Our own, so that what a library registers by itself (Faust does) is not served."""
PREFIX: Final = "ashi_"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as the documentation shows it; `stage` says which process has it."""

    stage: str
    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


CATALOGUE: Final[list[Metric]] = []


class Histogram(prometheus_client.Histogram):
    """The library's, which takes values of which there are many in one step as well."""

    def observe_many(self, amount: float, count: int) -> None:
        """Observe `amount` so many times; costs what one of them does."""
        self._sum.inc(amount * count)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(count)


def counter(stage: str, name: str, text: str, *labels: str) -> Counter:
    """Declare a counter: `name` without prefix and `_total`."""
    CATALOGUE.append(Metric(stage, f"{PREFIX}{name}_total", "counter", labels, text))
    return Counter(f"{PREFIX}{name}", text, labels, registry=REGISTRY)


def serve_from_zero(counted: Counter, *labels: tuple[str, ...]) -> None:
    """Serve a counter from now on for these values of its labels, at 0 where nothing was counted yet.

    Else one that a process before this one had at 1 goes from 1 to 1 with the first event here, and no rule sees it.
    """
    for each in labels:
        counted.labels(*each)


def gauge(stage: str, name: str, text: str, *labels: str) -> Gauge:
    """Declare a gauge: `name` without prefix."""
    CATALOGUE.append(Metric(stage, f"{PREFIX}{name}", "gauge", labels, text))
    return Gauge(f"{PREFIX}{name}", text, labels, registry=REGISTRY)


def histogram(stage: str, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    """Declare a histogram: `name` without prefix; `buckets` are upper bounds."""
    CATALOGUE.append(Metric(stage, f"{PREFIX}{name}", "histogram", labels, text))
    return Histogram(f"{PREFIX}{name}", text, labels, registry=REGISTRY, buckets=buckets)


SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DELAYS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0)
"""Of what users wait for. 5 s is in it, as the objectives of delays are told by it."""
ROWS: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0)

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
