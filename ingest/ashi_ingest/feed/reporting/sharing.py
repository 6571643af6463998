"""Saying that several workers read the same markets: a warning when nobody asked for it, a line in the log when so."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics

if TYPE_CHECKING:
    from ashi_ingest.feed.reporting.partners import OtherWorkers, WorkerIdentity

_log = get_logger(__name__)


class SharingWatch:
    """Tells of each other worker once when it is seen, and once when it is gone."""

    def __init__(self, venue: str, own: WorkerIdentity) -> None:
        self._venue = venue
        self._own = own
        self._rivals: set[str] = set()
        self._partners: set[str] = set()

    def look(self, others: OtherWorkers) -> None:
        """See who is there now."""
        rivals: defaultdict[str, list[str]] = defaultdict(list)
        partners: defaultdict[str, list[str]] = defaultdict(list)
        for symbol in others.symbols():
            for worker in others.rivals(symbol):
                rivals[worker.id].append(symbol)
            for worker in others.partners(symbol):
                partners[worker.id].append(symbol)
        for rival in rivals.keys() - self._rivals:
            _log.warning(
                "another worker reads markets of this one, so each trade is published twice (it counts once): give "
                "each worker its own markets or shard, or start all of them with --redundant",
                venue=self._venue,
                worker=rival,
                this_worker=self._own.id,
                symbols=len(rivals[rival]),
                example=rivals[rival][0],
            )
        for partner in partners.keys() - self._partners:
            _log.info("another redundant worker reads the same markets", venue=self._venue, worker=partner)
        for gone in (self._rivals | self._partners) - (rivals.keys() | partners.keys()):
            _log.info("another worker does not read markets of this one any more", venue=self._venue, worker=gone)
        self._rivals, self._partners = set(rivals), set(partners)
        for kind, workers in (("rival", rivals), ("redundant", partners)):
            count = len({symbol for symbols in workers.values() for symbol in symbols})
            metrics.feed_shared_symbols.labels(self._venue, kind).set(count)
