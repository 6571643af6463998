"""Trades that are in the log and that nobody gets: those behind a transaction which somebody has left open.

Until it ends, by its producer or by Kafka (`transaction.timeout.ms`, a minute by default, 15 at most), everything that
was appended to the partition since waits, whoever sent it, and no window there closes by the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import aggregate as metrics

TELL_AFTER_S: Final = 15.0
"""Transactions that take less are somebody's way to work."""

_log = get_logger(__name__)


class KnownEnds(NamedTuple):
    """The ends of a partition as of the last fetch: of what is decided, and of all that is written."""

    stable: int
    written: int


class _Held(NamedTuple):
    first: int
    since_s: float
    told: bool


class HeldBack:
    """Says so in the log, once when it lasts and once when it is over, and always in the metric."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}

    def look(self, ends: Mapping[int, KnownEnds], now_s: float) -> None:
        """`ends` of each partition that this worker has; now is monotonic, s."""
        before, self._held = self._held, {}
        metrics.records_held_back.clear()
        for partition, (stable, written) in ends.items():
            metrics.records_held_back.labels(partition).set(max(written - stable, 0))
            known = before.get(partition)
            if stable >= written:
                if known is not None and known.told:
                    _log.info("the transaction has ended, trades come again", partition=partition, offset=known.first)
                continue
            if known is None or known.first != stable:
                known = _Held(stable, now_s, told=False)
            if not known.told and now_s - known.since_s >= TELL_AFTER_S:
                _log.warning(
                    "a transaction that somebody has left open holds back everything that is behind it in this "
                    "partition of trades: end its producer, or wait until Kafka does (its transaction.timeout.ms)",
                    partition=partition,
                    offset=stable,
                    records=written - stable,
                    since_s=round(now_s - known.since_s),
                )
                known = known._replace(told=True)
            self._held[partition] = known
