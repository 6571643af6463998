"""How long it takes until the tables have what stands in the changelogs, told in the log and in the metrics."""

from __future__ import annotations

import time

from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import aggregate as metrics

_log = get_logger(__name__)


class Restoring:
    """Counts the records, from when partitions are assigned until their state can be taken up."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._records = 0
        self.total = 0
        """Records that were ever taken up: it grows as long as restoring gets on."""

    def began(self) -> None:
        """Partitions have been assigned; what was restored of others before is left out."""
        self._began_s, self._records = time.monotonic(), 0

    def add(self, records: int) -> None:
        """So many records more have been taken up."""
        self._records += records
        self.total += records
        metrics.restored_records.inc(records)

    def ended(self) -> None:
        """Everything has been taken up. It may be said again."""
        if self._began_s is None:
            return
        seconds = time.monotonic() - self._began_s
        self._began_s = None
        metrics.restore_seconds.set(seconds)
        rate = round(self._records / seconds) if seconds else 0
        _log.info("restored", records=self._records, seconds=round(seconds, 3), records_per_s=rate)
