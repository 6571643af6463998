"""What is said of what a feed has missed: which gaps tell of it, where they begin, and until when they last."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ashi.contracts.feed import GapState
    from ashi_ingest.feed.evidence.completeness import VenueClock
    from ashi_ingest.feed.reporting.status import FeedReporter
    from ashi_ingest.feed.symbol.checked import CheckedSymbol
    from ashi_ingest.feed.symbol.missed import MissedTrades


class MissedGaps:
    """The gaps of one symbol, as they follow from what is known of the trades that are missing."""

    def __init__(
        self, symbol: str, reporter: FeedReporter, checked: CheckedSymbol, *, clock: VenueClock, disorder_us: int
    ) -> None:
        """`clock`: of the venue, as its trades show it. `disorder_us`: see `Limits.disorder_s`."""
        self._symbol = symbol
        self._reporter = reporter
        self._checked = checked
        self._clock = clock
        self._disorder_us = disorder_us
        self._hole_from_us = 0  # where the gap of the last hole begins

    def name(self, from_us: int) -> int:
        """Where a gap that is told whole begins: it is named by that, so no two of them may begin alike."""
        if self._hole_from_us <= from_us < self._hole_from_us + 1000:
            from_us = self._hole_from_us + 1
        while self._reporter.has_gap(self._symbol, from_us):
            from_us -= 1
        self._hole_from_us = from_us
        return from_us

    def at_latest(self, missed: MissedTrades) -> int:
        """Until when what was missed may be stamped, µs. It happened before its end came, perhaps by a clock ahead."""
        end_us = missed.end_us
        if missed.until_came_us is not None:
            end_us = max(end_us, self._clock.venue_us(missed.until_came_us) + self._clock.ahead_us + 1)
        return end_us + self._disorder_us

    def open(self, missed: MissedTrades, from_us: int, to_us: int, reason: str) -> None:
        """What was missed has a gap of its own, which lasts from about then until then (µs) and is open."""
        missed.gaps = [self.name(from_us)]
        self._reporter.bound_gap(self._symbol, missed.gaps[0], to_us, reason)

    def bound(self, missed: MissedTrades, reason: str) -> None:
        """What was missed does not come soon: its gaps end where it does, and stay open."""
        self._choose(missed, is_missing=True)
        for begun in missed.gaps:
            self._reporter.bound_gap(self._symbol, begun, self.at_latest(missed), reason)

    def unbound(self, missed: MissedTrades, reason: str) -> None:
        """The feed is down again before it came: its gaps have no end any more."""
        for begun in missed.gaps:
            self._reporter.unbound_gap(self._symbol, begun, reason)

    def end(self, missed: MissedTrades, state: GapState, reason: str, *, final: bool) -> None:
        """What was missed has been fetched; or some of it is lost, for this reason. `final`: for good."""
        recovered = missed.recovered
        # What is missing has an id between those of trades that came, but it may have happened before or after them.
        end_us = missed.end_us if state == "repaired" else self.at_latest(missed)
        if state == "repaired" and missed.until is not None:
            # That and what comes after it is published when this is said, or is on its way still.
            end_us = missed.until.traded_at
        self._choose(missed, is_missing=state != "repaired")
        if not missed.gaps:
            self._reporter.end_gap(self._symbol, end_us, state, recovered, reason, final=final)
        for begun in missed.gaps:
            self._reporter.end_gap(self._symbol, end_us, state, recovered, reason, from_time=begun, final=final)
            recovered = 0

    def _choose(self, missed: MissedTrades, *, is_missing: bool) -> None:
        """Which gaps tell of it: those of the interruption; of a hole in ids one of its own.

        If it is missing still, nothing that may be missing happened before they begin, whatever an open connection
        seems to say: this market may have been mute. The trades that follow have ids which pass over what is missing,
        so by them everything else is known (`Completeness.on_unbroken`).
        """
        known_us = None
        if is_missing and missed.until is not None and self._checked.contiguous:
            known_us = self._checked.known_until
        if not missed.gaps and missed.hole:
            from_us = min(missed.since_us, missed.end_us)
            if is_missing:  # what is missing may have happened before the trade whose id is the last before it
                from_us = min(from_us - self._disorder_us, from_us if known_us is None else known_us)
            missed.gaps = [self.name(from_us)]
        elif not missed.gaps:
            missed.gaps = self._reporter.endless_gaps(self._symbol)
        if known_us is not None and not missed.hole and missed.gaps and known_us < min(missed.gaps):
            while self._reporter.has_gap(self._symbol, known_us):
                known_us -= 1
            missed.gaps.insert(0, known_us)
