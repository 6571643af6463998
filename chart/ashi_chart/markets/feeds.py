"""What feeds and venues have said of each symbol, from the topics' beginning on; bounded. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.feed import FeedGap, FeedStatus, overlaps
from ashi_chart.candles.coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Collection

    from ashi.contracts.instrument import Instrument

REPAIRED: Final = 500
"""So many repaired gaps of a symbol are remembered, the newest; all that are open or lost, as trades are missing."""
SPARE: Final = 100
"""And so many more, so that the oldest are not sought for each that comes."""

_NOTHING: Final = Coverage()


class Feeds:
    """The last status and the instrument of each symbol, and its gaps; messages may come in any order, and again."""

    def __init__(self) -> None:
        self._statuses: dict[str, FeedStatus] = {}
        self._instruments: dict[str, Instrument] = {}
        self._gaps: dict[str, dict[int, FeedGap]] = {}
        self._coverages: dict[str, Coverage] = {}

    def take(self, message: FeedStatus | FeedGap | Instrument) -> bool:
        """Take a message in; False when it is not newer than what is known, and so changes nothing."""
        if isinstance(message, FeedGap):
            is_news = self._take_gap(message)
        elif isinstance(message, FeedStatus):
            is_news = _take_newer(self._statuses, message)
        else:
            return _take_newer(self._instruments, message)
        if is_news:
            self._coverages.pop(message.symbol, None)
        return is_news

    def status(self, symbol: str) -> FeedStatus | None:
        """How the feed of a symbol was when it was said last; None: nothing was."""
        return self._statuses.get(symbol)

    def instrument(self, symbol: str) -> Instrument | None:
        """What the venue said last of a market; None: nothing."""
        return self._instruments.get(symbol)

    def gaps(self, symbol: str, start: int, end: int) -> list[FeedGap]:
        """The gaps of a symbol that overlap a time, µs, `end` exclusive, by `from_time`."""
        gaps = self._gaps.get(symbol, {})
        return [gaps[from_time] for from_time in sorted(gaps) if overlaps(gaps[from_time], start, end)]

    def coverage(self, symbol: str) -> Coverage:
        """Which times of a symbol lack no trade, as far as is known now; the same one until something is said of it."""
        coverage = self._coverages.get(symbol)
        if coverage is None:
            status, gaps = self._statuses.get(symbol), self._gaps.get(symbol)
            if status is None and not gaps:
                return _NOTHING
            coverage = Coverage(None if status is None else status.complete_until, (gaps or {}).values())
            self._coverages[symbol] = coverage
        return coverage

    def symbols(self) -> Collection[str]:
        """All of which something is known but gaps."""
        return self._statuses.keys() | self._instruments.keys()

    def _take_gap(self, gap: FeedGap) -> bool:
        gaps = self._gaps.setdefault(gap.symbol, {})
        known = gaps.get(gap.from_time)
        if known is not None and gap.updated_at <= known.updated_at:
            return False
        gaps[gap.from_time] = gap
        if gap.state == "repaired" and len(gaps) > REPAIRED:
            self._forget_repaired(gaps)
        return True

    @staticmethod
    def _forget_repaired(gaps: dict[int, FeedGap]) -> None:
        repaired = sorted(gap.from_time for gap in gaps.values() if gap.state == "repaired")
        if len(repaired) > REPAIRED + SPARE:
            for from_time in repaired[:-REPAIRED]:
                del gaps[from_time]


def _take_newer(newest: dict[str, FeedStatus] | dict[str, Instrument], message: FeedStatus | Instrument) -> bool:
    known = newest.get(message.symbol)
    if known is not None and message.updated_at <= known.updated_at:
        return False
    newest[message.symbol] = message  # type: ignore[assignment]
    return True
