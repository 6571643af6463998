"""The metrics that every worker has."""

from __future__ import annotations

from ashi.runtime.metrics.declare import counter

dead_letters = counter("all", "dead_letters", "Messages that could not be used, by class of reason.", "stage", "reason")
