"""Trades that came and could not be published: those that came not long after each other are one gap. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

TOGETHER_US: Final = 10_000_000
"""Trades that cannot be published and are no further apart than this, µs, are one gap."""


class UnpublishedTrades(NamedTuple):
    """Trades that came and went to `trades.dead`, not long after each other: the time in which they are missing, µs."""

    since_us: int
    until_us: int
    number: int = 1

    @property
    def what(self) -> str:
        """How many, in words."""
        return "a trade" if self.number == 1 else f"{self.number} trades"

    def joined_by(self, from_us: int, until_us: int) -> UnpublishedTrades:
        """With another one, of this time; or that alone, as it came long after them."""
        if from_us > self.until_us + TOGETHER_US:
            return UnpublishedTrades(from_us, until_us)
        return UnpublishedTrades(self.since_us, max(self.until_us, until_us), self.number + 1)
