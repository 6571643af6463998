"""Whether the clocks agree: the venue's, by the times of its trades; Kafka's, by append times; and this machine's.

It is told the times. A trade that is stamped too far ahead of its receipt is refused, and one that is stamped far
behind comes too late for its candle. So the log says long before how far apart the clocks are, and whose is wrong.
"""

from __future__ import annotations

from typing import Final, Literal

from ashi.contracts.trade import MAX_AHEAD_US
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.of_late import GreatestOfLate

TOLERATED_US: Final = MAX_AHEAD_US // 3
"""Clocks that are further apart than this, µs, are told of; a trade is refused from three times as much on."""
PERIOD_S: Final = 30.0
"""What was seen in the last one to two periods counts."""
STEP_US: Final = 10_000_000
"""Another number is told when it differs by this, µs: a clock that drifts is not told of a hundred times."""

_log = get_logger(__name__)


class ClockWatch:
    """The clocks of one venue, of Kafka and of this machine, compared with each other."""

    def __init__(self, venue: str) -> None:
        """`venue`: by its name."""
        self._venue = venue
        # How far a clock is ahead of ours, µs. On its way everything only gets later.
        self._of_venue = GreatestOfLate(PERIOD_S)
        self._of_kafka = GreatestOfLate(PERIOD_S)
        self._told: tuple[str, int] | None = None
        self._warning: str | None = None

    def on_trade(self, traded_at: int, received_at: int) -> None:
        """A trade came over a connection: its time, and when by our clock, µs."""
        self._of_venue.see(traded_at - received_at)

    def on_refused(self, ahead_us: int) -> None:
        """A trade was refused because its time is so far ahead of its receipt, µs."""
        self._of_venue.see(ahead_us)

    def on_append(self, appended_at: int, acknowledged_at: int) -> None:
        """When Kafka appended something by its clock, and when by ours the acknowledgment came, µs."""
        self._of_kafka.see(appended_at - acknowledged_at)

    def look(self, now_s: float) -> str | None:
        """What is wrong with which clock, for people; None when all agree. To be called every second or so."""
        self._of_venue.turn(now_s)
        self._of_kafka.turn(now_s)
        venue_us, kafka_us = self._of_venue.value, self._of_kafka.value
        for clock, ahead_us in (("venue", venue_us), ("kafka", kafka_us)):
            metrics.clock_ahead_seconds.labels(self._venue, clock).set((ahead_us or 0) / 1e6)
        found = self._judge(venue_us, kafka_us)
        if found is None:
            if self._told is not None:
                _log.info("the clocks agree again", venue=self._venue)
            self._told = self._warning = None
        elif self._told is None or self._told[0] != found[0] or abs(self._told[1] - found[1]) >= STEP_US:
            self._told = found
            self._warning = _words(self._venue, *found, same_as_kafka=kafka_us is not None)
            _log.warning(self._warning, venue=self._venue)
        return self._warning

    def _judge(self, venue_us: int | None, kafka_us: int | None) -> tuple[Literal["machine", "venue"], int] | None:
        """Whose clock is wrong, and by how much it is ahead."""
        if kafka_us is not None and abs(kafka_us) > TOLERATED_US:
            return "machine", -kafka_us
        if venue_us is not None and abs(venue_us) > TOLERATED_US:
            return "venue", venue_us
        return None


def _words(venue: str, whose: Literal["machine", "venue"], ahead_us: int, *, same_as_kafka: bool) -> str:
    by = f"{abs(ahead_us) / 1e6:.0f} s {'ahead of' if ahead_us > 0 else 'behind'}"
    if whose == "machine":
        return f"the clock of this machine is {by} Kafka's: set one of the two"
    others = "Kafka's and this machine's" if same_as_kafka else "this machine's"
    late = "" if ahead_us > 0 else ", or its trades come late"
    return f"the clock of {venue} is {by} {others}{late}"
