"""What a load has to say in topic `feed.gaps`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ashi.contracts.feed import FeedGap, overlaps
from ashi.contracts.trade import EARLIEST_US
from ashi_ingest.history.settled_gaps import Span, settle, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_history.plan import LoadPlan

LOADED: Final = "loaded by `ashi history load`"
NOT_IN_FILES: Final = "not in the files that `ashi history load` was given"
_FOR_EVER: Final = 2**62


def gap_messages(
    symbol: str, plan: LoadPlan, gaps: Sequence[FeedGap], now_us: int
) -> tuple[list[FeedGap], list[FeedGap]]:
    """Holes that no gap tells of yet, and what becomes of the gaps there are (open and lost).

    No feed is to ask for what these holes lack: `final`. The time before the files stays what it was.
    """
    told = [
        Span(gap.from_time, _FOR_EVER if gap.to_time is None else max(gap.to_time, gap.from_time + 1)) for gap in gaps
    ]
    names = {gap.from_time for gap in gaps}
    lost = []
    for hole in plan.holes:
        left = [hole]
        for span in told:
            left = without(left, span)
        for span in left:
            begun = span.from_us
            while begun in names:
                begun -= 1
            names.add(begun)
            lost.append(FeedGap(symbol, begun, span.to_us, "lost", 0, NOT_IN_FILES, now_us, final=True))
    messages = []
    for gap in settle(gaps, plan.known_spans(), {}, now_us=now_us, reason=LOADED):
        is_hole = (
            gap.state == "lost" and gap.from_time > EARLIEST_US and any(overlaps(gap, *hole) for hole in plan.holes)
        )
        messages.append(replace(gap, final=True, reason=NOT_IN_FILES) if is_hole else gap)
    return lost, messages
