"""How far a fetch of the past has come, what it costs, and how long it will take. Pure: whoever asks tells the time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.trade import Trade

ESTIMATED_AFTER: Final = 2
"""Answers that must have brought trades before the rest is estimated: the first ones only look for the beginning."""
DAY_S: Final = 86_400


class Progress:
    """The fetch of one symbol, from `since_us` to `until_us` (µs).

    Attributes:
        requests: how many requests were made.
        trades: how many trades of the stretch REST has listed.
        published: how many of them were new, and have been published.
        reached_us: everything before this time has been listed, as far as is known.

    """

    def __init__(self, since_us: int, until_us: int) -> None:
        self.requests = 0
        self.trades = 0
        self.published = 0
        self.reached_us = since_us
        self._since_us = since_us
        self._until_us = until_us
        self._began_s: float | None = None
        self._began_us = since_us
        self._began_requests = 0
        self._pages = 0

    def on_request(self) -> None:
        """A request is made."""
        self.requests += 1

    def on_trades(self, trades: Sequence[Trade], now_s: float) -> None:
        """REST has listed these trades of the stretch."""
        self.trades += len(trades)
        self.reached_us = max(self.reached_us, *(trade.traded_at for trade in trades))
        if self._began_s is None:  # before that, only the place to begin was looked for
            self._began_s, self._began_us, self._began_requests = now_s, self.reached_us, self.requests
        self._pages += 1

    def reach(self, until_us: int) -> None:
        """It goes on to this time now, as the present has moved on."""
        self._until_us = max(self._until_us, until_us)

    @property
    def left_us(self) -> int:
        """The time that is not listed yet, µs."""
        return max(self._until_us - self.reached_us, 0)

    def left_s(self, now_s: float) -> float | None:
        """How long the rest will take if it is like what has been fetched, seconds; None: it is too early to say."""
        share = self._share()
        if share is None or self._began_s is None:
            return None
        return (now_s - self._began_s) * share

    def requests_left(self) -> int | None:
        """How many requests the rest will take, likewise."""
        share = self._share()
        return None if share is None else round((self.requests - self._began_requests) * share)

    def _share(self) -> float | None:
        """The time that is left, as a multiple of what was fetched."""
        fetched_us = self.reached_us - self._began_us
        if self._pages < ESTIMATED_AFTER or fetched_us <= 0:
            return None
        return self.left_us / fetched_us

    def in_words(self, now_s: float) -> str:
        """One line: how far it has come, and the arithmetic."""
        whole_us = max(self._until_us - self._since_us, 1)
        percent = 100 * (self.reached_us - self._since_us) // whole_us
        text = (
            f"{min(percent, 100)} % of {in_days(whole_us)}, up to {time_in_words(self.reached_us)}: {self.trades:,} "
            f"trades, {self.published:,} of them new, by {self.requests:,} requests"
        )
        left_s, requests = self.left_s(now_s), self.requests_left()
        if left_s is None or requests is None or not self.left_us:
            return text
        return f"{text}; about {requests:,} requests and {in_minutes(left_s)} are left"


def time_in_words(time_us: int) -> str:
    """`2026-11-01T00:00:00Z`."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def in_days(span_us: int) -> str:
    """`3.5 days`, or a shorter time in `in_minutes`."""
    days = span_us / 1e6 / DAY_S
    return f"{days:.1f} days" if days >= 1 else in_minutes(span_us / 1e6)


def in_minutes(seconds: float) -> str:
    """`2 h 05 min`, `7 min`, `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
