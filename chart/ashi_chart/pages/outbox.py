"""What a page has still to be told: what is newest of each thing, never a queue of what was. Pure.

So a page that takes nothing costs no more than one that takes everything at once, and what it takes next is as of then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.contracts.feed import FeedGap
    from ashi.contracts.signal import Signal

MOST_BARS_WAITING: Final = 2_000
"""A page that so many bars wait for gets a snapshot in place of them."""
MOST_SAID_WAITING: Final = 500
"""Likewise gaps, and signals."""


class Outbox:
    """What waits for one page, of the one series that it looks at.

    Attributes:
        wants_snapshot: the page needs all of its series.
        feed: how the feed of its symbol is has changed; `instrument`: what the venue says of it.
        lagged: how often changes were too many and became a snapshot.
        conflated: how many changes of bars were replaced by later ones.
        since_s: since when the oldest change of a bar waits; by the caller's clock.

    """

    def __init__(self) -> None:
        self.wants_snapshot = False
        self.feed = False
        self.instrument = False
        self.lagged = 0
        self.conflated = 0
        self.since_s: float | None = None
        self._bars: dict[int, bytes] = {}
        self._gaps: dict[int, FeedGap] = {}
        self._signals: dict[tuple[str, str, int], Signal] = {}
        self._errors: dict[str, str] = {}

    def put_bars(self, bars: Iterable[tuple[int, bytes]], now_s: float) -> None:
        """Bars that have changed, by open time, as they are sent."""
        if self.since_s is None:
            self.since_s = now_s
        for open_time, raw in bars:
            self.conflated += open_time in self._bars
            self._bars[open_time] = raw
        if len(self._bars) > MOST_BARS_WAITING:
            self._give_up()

    def put_gap(self, gap: FeedGap) -> None:
        """A gap that is new or has changed."""
        self._gaps[gap.from_time] = gap
        if len(self._gaps) > MOST_SAID_WAITING:
            self._give_up()

    def put_signal(self, signal: Signal) -> None:
        """A signal that is new or was taken back."""
        self._signals[signal.strategy, signal.timeframe, signal.open_time] = signal
        if len(self._signals) > MOST_SAID_WAITING:
            self._give_up()

    def put_error(self, about: str, sentence: str) -> None:
        """What cannot be done; of several about one thing the last is told."""
        self._errors[about] = sentence

    def begin_snapshot(self) -> None:
        """A snapshot is being made: it holds all that waits of the series now, and not what comes from now on."""
        self.wants_snapshot = self.feed = self.instrument = False
        self._clear()

    def begin_series(self) -> None:
        """The page looks at another series from now on."""
        self.begin_snapshot()
        self._errors.pop("series", None)

    def take_bars(self) -> list[bytes]:
        """The bars that wait, by open time."""
        bars, self._bars, self.since_s = self._bars, {}, None
        return [bars[open_time] for open_time in sorted(bars)]

    def take_gaps(self) -> list[FeedGap]:
        """The gaps that wait, by the time that they begin."""
        gaps, self._gaps = self._gaps, {}
        return [gaps[from_time] for from_time in sorted(gaps)]

    def take_signals(self) -> list[Signal]:
        """The signals that wait, in the order in which they came."""
        signals, self._signals = self._signals, {}
        return list(signals.values())

    def take_error(self) -> tuple[str, str] | None:
        """What it is about and the sentence, of an error that waits."""
        return self._errors.popitem() if self._errors else None

    @property
    def has_bars(self) -> bool:
        """Whether bars wait."""
        return bool(self._bars)

    def _give_up(self) -> None:
        self.lagged += 1
        self.wants_snapshot = True
        self._clear()

    def _clear(self) -> None:
        self._bars.clear()
        self._gaps.clear()
        self._signals.clear()
        self.since_s = None
