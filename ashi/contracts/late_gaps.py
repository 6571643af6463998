"""Gaps of trades that are in topic `trades` and came too late for their candles: in `feed.gaps`, until a rebuild.

The aggregate stage tells of them, and `ashi rebuild` says that they are repaired. No feed has a part in them: the
trades have been published, so there is nothing to ask a venue for. That is what `final` says of them, to whoever asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ashi.contracts.feed import FeedGap

LATE_REASON: Final = "trades came too late for their candles"
"""How the reason of such a gap begins."""
TAKEN_IN: Final = "the trades that came too late were taken into their candles by `ashi rebuild`"


def is_of_late_trades(gap: FeedGap) -> bool:
    """Whether it is such a gap, ended or not."""
    return gap.reason == TAKEN_IN or is_late_gap(gap)


def is_late_gap(gap: FeedGap) -> bool:
    """Whether nothing but `ashi rebuild` can end it."""
    return gap.state == "lost" and gap.final and gap.reason.startswith(LATE_REASON)
