"""Publishing what one plan of a repair brings, and telling of every hole in it before what comes after that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi_ingest.feed.repair.doubts import Doubts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.symbol.missed import MissedTrades
    from ashi_ingest.feed.symbol.symbol_feed import SymbolFeed
    from ashi_ingest.venues.base import Missing, RepairEnd


class FetchedTrades:
    """What one plan brings of what a feed has missed.

    Where ids are contiguous, the greatest that is published is where the next repair begins, that of the next process
    too. So what lies behind ids that the venue could not give is published only when a gap tells of these, and they are
    asked for by themselves.
    """

    def __init__(
        self,
        feed: SymbolFeed,
        missed: MissedTrades,
        until: Trade | None,
        *,
        leave_hole: Callable[[SymbolFeed, Trade, Missing], Awaitable[None]],
        on_recovered: Callable[[int], None],
    ) -> None:
        """`until`: the trade up to which the plan asks. `on_recovered`: so many were published that were missing.

        `leave_hole`: something is missing before a trade; returns when that is told.
        """
        self.on_missing = (doubts := Doubts()).tell
        self._doubts = doubts
        self._feed = feed
        self._missed = missed
        self._until = until
        self._leave_hole = leave_hole
        self._on_recovered = on_recovered
        self._is_stopped = False

    async def publish(self, trades: list[Trade]) -> None:
        """The plan brings these."""
        if self._missed.is_settled_by_itself:  # a gap tells of it, and what came after it is published already
            self._on_recovered(self._feed.publish_late(self._missed, trades))
        elif not (self._feed.checked.contiguous and self._doubts.are_open):
            self._publish(trades)
        elif not self._is_stopped:
            await self._publish_around_holes(trades)
            self._doubts.pass_step()

    def is_all_told(self, end: RepairEnd) -> bool:
        """Whether nothing is missing any more but what is told, and asked for, by itself, when the plan ends so."""
        is_passed = not self._is_stopped and (self._until is not None or not self._doubts.are_open)
        return end.is_told and is_passed and self._feed.checked.contiguous and not self._missed.is_settled_by_itself

    async def _publish_around_holes(self, trades: list[Trade]) -> None:
        for is_jump, run in self._feed.split_at_jumps(trades):
            told = self._doubts.at_jump() if is_jump else None
            if told is None:
                self._publish(run)
            elif self._until is not None and run[0].sequence >= self._until.sequence:
                self._is_stopped = True  # that and what follows came over the connection, and waits
                return
            else:
                await self._leave_hole(self._feed, run[0], told)
                self._on_recovered(self._feed.publish_behind_hole(self._missed, run, self._until))

    def _publish(self, trades: Sequence[Trade]) -> None:
        self._on_recovered(self._feed.publish_fetched(trades, self._until))
