"""What may be said of a symbol, and when: not before Kafka has what it rests on.

A reader takes a window for complete by two topics, `feed.status` and `feed.gaps`, and looks at a third, `trades`, or at
candles made of it. Whatever moment he looks at, he must not be told too much. So

- `complete_until` advances only when Kafka has acknowledged all trades of the symbol that had been handed over before
  it was set, and all that was said of the symbol's gaps;
- a gap is `repaired` only when the trades that were fetched for it have been acknowledged.

Pure: what has been acknowledged is asked of whoever publishes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ashi.contracts.feed import FeedGap


class _Claim(NamedTuple):
    """Everything before `until`, µs, has been published: true once all trades up to `mark` are acknowledged."""

    until: int
    mark: int


class CompleteUntil:
    """The `complete_until` of one symbol: what may be said now, and what is claimed beyond that.

    Attributes:
        until: what may be said, µs; None when nothing may be.

    """

    __slots__ = ("_newest", "_next", "until")

    def __init__(self, until: int | None = None) -> None:
        self.until = until
        # Two are enough to get on however often it is claimed: one waits while the newest are taken together.
        self._next: _Claim | None = None
        self._newest: _Claim | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is claimed beyond what may be said."""
        return self._next is None

    def claim(self, until: int, mark: int) -> bool:
        """Claim it, with the mark of the publisher. False when as much was claimed before: it never goes back."""
        claimed = self._newest or self._next
        if until <= (claimed.until if claimed is not None else -1 if self.until is None else self.until):
            return False
        if self._next is None:
            self._next = _Claim(until, mark)
        else:
            self._newest = _Claim(until, mark)
        return True

    def settle(self, is_acknowledged: Callable[[int], bool]) -> None:
        """Take what is claimed for true, as far as everything up to its mark is acknowledged."""
        while self._next is not None and is_acknowledged(self._next.mark):
            self.until = self._next.until
            self._next, self._newest = self._newest, None


class GapMessages:
    """What is to be said of the gaps of one symbol: of each gap the newest message, in the order in which they came."""

    __slots__ = ("_in_flight", "_unsent")

    def __init__(self) -> None:
        self._unsent: dict[int, tuple[FeedGap, int]] = {}
        self._in_flight = 0

    @property
    def is_empty(self) -> bool:
        """Whether everything has been sent."""
        return not self._unsent

    @property
    def are_acknowledged(self) -> bool:
        """Whether Kafka has acknowledged everything there was to say."""
        return not self._unsent and not self._in_flight

    def put(self, gap: FeedGap, mark: int) -> None:
        """A gap is so now, and takes the place of what was to be said of it. `mark`: of the publisher."""
        self._unsent[gap.from_time] = (gap, mark)

    def sendable(self, is_acknowledged: Callable[[int], bool]) -> Iterator[FeedGap]:
        """What may be said now; `sent` is to be called for each before the next."""
        for gap, mark in list(self._unsent.values()):
            if gap.state != "repaired" or is_acknowledged(mark):
                yield gap

    def sending(self) -> None:
        """One goes out. It is in flight until `acknowledged`, or `cancelled`."""
        self._in_flight += 1

    def sent(self, gap: FeedGap) -> None:
        """The producer has it; if another came meanwhile, that one is still to be sent."""
        if self._unsent[gap.from_time][0] is gap:
            del self._unsent[gap.from_time]

    def acknowledged(self) -> None:
        """One that went out has been acknowledged, or does not go out after all."""
        self._in_flight -= 1
