"""Gaps that another worker has no part in: what one has missed and another has published is not missing.

Gaps are named by symbol and beginning, and no message tells whose it is. So what counts is the topic as a whole: a gap
of ours is repaired by another worker that was connected before it began, has checked that it published everything up to
its end, and of which no gap stands in the topic for that time. And what a worker that has ended for good left open or
lost is repaired by us, where we were connected before it began and have checked until after it. If we were not, as
with what a predecessor still had on its way when it was killed, nobody would ever end it: it ends where we were
connected, and is lost until REST has shown it.

Two workers that lose their connections at the same moment may give their gaps one name; then the later message counts,
whoever it is of. That hides nothing: what is missing in topic `trades` was missed by both. If the message that counts
says `repaired`, its writer has published all of that gap and has received everything since, or has a further gap under
a name of its own. So that what is said later counts whatever the clocks say, a message is given a later time than all
that was read of the symbol's gaps before.

Pure: it is told what is read, and answers what is to be said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.feed import REFUSED_REASON, overlaps
from ashi.contracts.late_gaps import is_late_gap
from ashi.contracts.trade import EARLIEST_US

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ashi.contracts.feed import FeedGap
    from ashi_ingest.feed.reporting.partners import OtherWorkers

CLOCKS_US: Final = 5_000_000
"""Clocks of two workers, and of the venue, are taken to differ by less than this: so much earlier a worker must have
been connected than a gap begins that it has no part in, µs."""
REASON: Final = "another worker has published what this one had missed"
LEFT: Final = "the worker that left this gap has ended; another one has published what it missed"
LEFT_BEHIND: Final = "the worker that left this gap has ended, and no other was connected before it began"


class OwnFeed(NamedTuple):
    """What this worker knows of a symbol.

    Attributes:
        unrepaired: its gaps that are open or lost.
        connected_since: since when it has been connected without a break, µs; None when it is not.
        complete_until: up to when it has checked that it has published everything, µs, and has said so.
        told: the beginnings of all gaps that it has told of, with the time of its last message: of many lost ones not
            all are among `unrepaired`.

    """

    unrepaired: Sequence[FeedGap]
    connected_since: int | None
    complete_until: int | None
    told: Mapping[int, int] = {}


class RepairedGap(NamedTuple):
    """A gap that is to be told as repaired, with its end, µs."""

    from_time: int
    to_time: int
    reason: str


class GapsInTopic:
    """The gaps that are not repaired, by what was read of `feed.gaps`."""

    def __init__(self) -> None:
        self._gaps: dict[str, dict[int, FeedGap]] = {}

    def take(self, gap: FeedGap) -> None:
        """A message was read, of whomever. What came too late for its candles is published, so it is no worker's."""
        if is_late_gap(gap):
            return
        gaps = self._gaps.setdefault(gap.symbol, {})
        before = gaps.get(gap.from_time)
        if before is None or gap.updated_at > before.updated_at:
            gaps[gap.from_time] = gap

    def symbols(self) -> Iterator[str]:
        """The symbols to look at though nobody else reads them: with a gap left open, or a repaired one to forget.

        A gap that has ended only ends by trades that another worker publishes. Each symbol has such a one, as nobody
        was there before it was first read.
        """
        return (
            symbol
            for symbol, gaps in self._gaps.items()
            if any(gap.to_time is None or gap.state == "repaired" for gap in gaps.values())
        )

    def repaired_by_others(self, symbol: str, own: OwnFeed, others: OtherWorkers) -> list[RepairedGap]:
        """The gaps that need not stand: ours, and those that were left. All messages must have been read."""
        gaps = self._gaps.get(symbol, {})
        for from_time in [from_time for from_time, gap in gaps.items() if gap.state == "repaired"]:
            del gaps[from_time]  # whatever comes of it is later
        foreign = self._foreign(symbol, own)
        found = []
        for gap in own.unrepaired:
            if gap.to_time is None or any(overlaps(other, gap.from_time, gap.to_time + 1) for other in foreign):
                continue
            if others.has_published(symbol, gap.from_time - CLOCKS_US, gap.to_time):
                found.append(RepairedGap(gap.from_time, gap.to_time, REASON))
        if not others.others(symbol):
            for gap in [gap for gap in foreign if not gap.final and (gap.to_time is None or _is_left(own, gap))]:
                until = own.complete_until if gap.to_time is None else gap.to_time
                if until is not None and until <= (own.complete_until or 0) and _has_covered(own, gap, until):
                    found.append(RepairedGap(gap.from_time, until, LEFT))
        return found

    def left_with_an_end(self, symbol: str, own: OwnFeed) -> list[FeedGap]:
        """The gaps of others that have an end, and that whoever left them asked for. All others must have ended."""
        return [
            gap
            for gap in self._foreign(symbol, own)
            if gap.to_time is not None and not gap.final and gap.from_time > EARLIEST_US and _is_left(own, gap)
        ]

    def left_behind(self, symbol: str, own: OwnFeed, others: OtherWorkers) -> list[tuple[int, int]]:
        """The beginnings of the gaps that others have left and that we never cover, and until when they go at most, µs.

        What came after that came to us. Those that have an end: also such as we have missed as well.
        """
        if others.others(symbol) or own.connected_since is None:
            return []
        endless = [
            (gap.from_time, max(own.connected_since, gap.from_time) + CLOCKS_US)
            for gap in self._foreign(symbol, own)
            if gap.to_time is None and _is_left_behind(own, gap)
        ]
        return endless + [
            (gap.from_time, gap.to_time)
            for gap in self.left_with_an_end(symbol, own)
            if gap.to_time is not None and (_is_left_behind(own, gap) or _is_missed(own, gap.from_time, gap.to_time))
        ]

    def _foreign(self, symbol: str, own: OwnFeed) -> list[FeedGap]:
        names = {gap.from_time for gap in own.unrepaired}
        return [
            gap for gap in self._gaps.get(symbol, {}).values() if gap.from_time not in names and gap.state != "repaired"
        ]


def _is_left(own: OwnFeed, gap: FeedGap) -> bool:
    """Whether a gap with an end is another feed's: one of ours that is lost still has nobody who has published it.

    Nor has one of a record that the aggregate stage has refused.
    """
    return own.told.get(gap.from_time) != gap.updated_at and not gap.reason.startswith(REFUSED_REASON)


def _is_left_behind(own: OwnFeed, left: FeedGap) -> bool:
    """Whether it began when we were not connected for sure, so that we never cover it."""
    return own.connected_since is not None and own.connected_since > left.from_time - CLOCKS_US


def _has_covered(own: OwnFeed, left: FeedGap, until: int) -> bool:
    return (
        own.connected_since is not None
        and own.connected_since <= left.from_time - CLOCKS_US
        and until > left.from_time
        and not _is_missed(own, left.from_time, until)
    )


def _is_missed(own: OwnFeed, from_time: int, until: int) -> bool:
    return any(overlaps(gap, from_time, until + 1) for gap in own.unrepaired)
