"""What a worker knows and has said of one symbol's feed: its state, its gaps, open and lost, and when it is due."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ashi_ingest.feed.reporting.claims import CompleteUntil, GapMessages
from ashi_ingest.feed.reporting.heartbeats import is_past

if TYPE_CHECKING:
    from ashi.contracts.feed import FeedGap, FeedState, FeedStatus
    from ashi_ingest.feed.reporting.partners import Shared
    from ashi_ingest.feed.reporting.reported import ReportedFeed

LOST_GAPS: Final = 100
"""Lost gaps of a symbol that are remembered, those that began last: another worker may have published the trades."""


@dataclass(slots=True)
class SymbolReport:
    """How the feed of a symbol is, the status that was sent last, and its gaps by their `from_time`, open and lost.

    `told`: where all gaps begin that were told of, and when last.
    `shared` is what all workers that read it come to, in that state since `shared_since`; `sent_state` is what was said
    of this one, `before` what had been said at the start.
    """

    phase_us: int
    state: FeedState | None = None
    since: int = 0
    reason: str | None = None
    trade_id: str | None = None
    traded_at: int | None = None
    complete: CompleteUntil = field(default_factory=CompleteUntil)
    sent: FeedStatus | None = None
    sent_state: FeedState | None = None
    before: FeedStatus | None = None
    shared: Shared | None = None
    shared_since: int = 0
    gaps: dict[int, FeedGap] = field(default_factory=dict)
    lost: dict[int, FeedGap] = field(default_factory=dict)
    gap_messages: GapMessages = field(default_factory=GapMessages)
    gaps_updated_at: int = 0
    told: dict[int, int] = field(default_factory=dict)

    def go_on_from(self, reported: ReportedFeed) -> None:
        """Go on from what was reported before a restart."""
        status, gaps, lost = reported
        if status is not None:
            self.before = status
            self.trade_id, self.traded_at = status.last_trade_id, status.last_traded_at
            self.complete = CompleteUntil(status.complete_until)
            self.gaps_updated_at = status.updated_at
        self.told |= {gap.from_time: gap.updated_at for gap in (*gaps, *lost)}
        for gap in gaps:
            self.gaps[gap.from_time] = gap
            self.gaps_updated_at = max(self.gaps_updated_at, gap.updated_at)
        for gap in lost:
            self.remember_lost(gap)
            self.gaps_updated_at = max(self.gaps_updated_at, gap.updated_at)

    def is_due(self, now_us: int) -> bool:
        """Whether its status is to be sent: it has changed, or its moment has come, also after a clock was set back."""
        sent, shared = self.sent, self.shared
        return shared is not None and (
            sent is None
            or (shared.state, shared.reason, self.state) != (sent.state, sent.reason, self.sent_state)
            or is_past(self.phase_us, sent.updated_at, now_us)
        )

    def remember_lost(self, gap: FeedGap) -> None:
        """Keep it, if it is lost; else it is not any more."""
        self.lost.pop(gap.from_time, None)
        if gap.state == "lost":
            self.lost[gap.from_time] = gap
            if len(self.lost) > LOST_GAPS:
                del self.lost[min(self.lost)]

    def endless(self) -> list[int]:
        """Where its gaps begin that have no end yet, the oldest first."""
        return sorted(begun for begun, gap in self.gaps.items() if gap.to_time is None)

    def update_gap(self, now_us: int) -> int:
        """The time of a message about a gap: now, but after all before it, also when our clock was set back."""
        self.gaps_updated_at = max(now_us, self.gaps_updated_at + 1)
        return self.gaps_updated_at
