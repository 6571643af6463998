"""The gaps of the last day by what topic `feed.gaps` says: pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from ashi.contracts.late_gaps import is_late_gap
from ashi.contracts.timeframe import SECOND_US
from ashi.contracts.trade import EARLIEST_US
from ashi_operations.status.snapshot import Gap, Gaps

if TYPE_CHECKING:
    from collections.abc import Collection

    from ashi.contracts.feed import FeedGap

KEPT_US: Final = 86_400 * SECOND_US
MOST_TOLD: Final = 20
MOST_KEPT: Final = 200_000
"""Beyond it those that are repaired are forgotten first."""


class GapTable:
    """The last message of each gap."""

    def __init__(self) -> None:
        self._gaps: dict[tuple[str, int], FeedGap] = {}

    def take(self, gap: FeedGap) -> None:
        """A message of the topic."""
        key = gap.symbol, gap.from_time
        known = self._gaps.get(key)
        if known is None or gap.updated_at > known.updated_at:
            self._gaps[key] = gap
        if len(self._gaps) > MOST_KEPT:
            self._gaps = {key: each for key, each in self._gaps.items() if each.state != "repaired"}

    def view(self, now_us: int, symbols: Collection[str] | None = None) -> Gaps:
        """Those that changed within a day, and all that are open."""
        found = [
            gap
            for gap in self._gaps.values()
            if (symbols is None or gap.symbol in symbols)
            # The time before a symbol was first read has no beginning: nobody misses it.
            and gap.from_time > EARLIEST_US
            and (gap.state == "open" or gap.updated_at >= now_us - KEPT_US)
        ]
        late = [gap for gap in found if is_late_gap(gap)]
        states = Counter("final" if gap.final else gap.state for gap in found)
        worst = sorted(
            (gap for gap in found if gap.state != "repaired" and not gap.final), key=lambda gap: -gap.updated_at
        )
        return Gaps(
            seconds=KEPT_US / SECOND_US,
            open=states["open"],
            lost=states["lost"],
            final=states["final"] - len(late),
            repaired=states["repaired"],
            worst=[_told(gap) for gap in worst[:MOST_TOLD]],
            late=len(late),
            latest_late=_told(max(late, key=lambda gap: gap.updated_at)) if late else None,
        )


def _told(gap: FeedGap) -> Gap:
    return Gap(gap.symbol, "open" if gap.state == "open" else "lost", gap.from_time, gap.to_time, gap.reason)
