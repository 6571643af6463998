"""Which candles are complete, by what the feeds have said so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.feed import FeedGap, FeedStatus, is_complete, overlaps

if TYPE_CHECKING:
    from ashi.contracts.candle import Candle


class Completeness:
    """What `feed.status` and `feed.gaps` have said, joined: give it every message of both, repeated or not.

    A status rests on the gaps that were told before it. So a candle is complete once a status says so and `feed.gaps`
    has been read to the end that it had after that status came: of what has been asked for sooner, ask again.

    It keeps the last message of each symbol and of each gap, as many as the topics hold.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, FeedStatus] = {}
        self._gaps: dict[str, dict[int, FeedGap]] = {}

    def update(self, message: FeedStatus | FeedGap) -> bool:
        """Take a message into account; False when it is not newer than what is known, and so changes nothing."""
        if isinstance(message, FeedStatus):
            status = self._statuses.get(message.symbol)
            if status is not None and message.updated_at <= status.updated_at:
                return False
            self._statuses[message.symbol] = message
            return True
        gaps = self._gaps.setdefault(message.symbol, {})
        gap = gaps.get(message.from_time)
        if gap is not None and message.updated_at <= gap.updated_at:
            return False
        gaps[message.from_time] = message
        return True

    def complete_until(self, symbol: str) -> int | None:
        """Up to when, µs, all trades of a symbol were published, but for those in gaps; None: nothing is known."""
        status = self._statuses.get(symbol)
        return None if status is None else status.complete_until

    def gaps_in(self, candle: Candle) -> list[FeedGap]:
        """The gaps, open or lost, for which trades may be missing from a candle."""
        gaps = self._gaps.get(candle.symbol, {}).values()
        return [gap for gap in gaps if gap.state != "repaired" and overlaps(gap, candle.open_time, candle.close_time)]

    def is_complete(self, candle: Candle) -> bool:
        """Whether no trade is missing from a candle: see `ashi.contracts.feed.is_complete`.

        What was repaired late comes as a candle of a greater version, which may be a moment behind this answer.
        """
        return is_complete(
            candle.open_time,
            candle.close_time,
            self.complete_until(candle.symbol),
            self._gaps.get(candle.symbol, {}).values(),
        )
