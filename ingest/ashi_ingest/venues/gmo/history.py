"""GMO Coin's trades of a stretch of time over REST: the page that begins it is searched for, then pages forwards.

Source: https://api.coin.z.com/docs/en/#trades. Pages are numbered from the newest, any of them can be asked for, and
how far back they go is not documented. Every execution that happens meanwhile moves all rows two on, so a page is asked
for so that it overlaps what has been read, as in a repair (`ashi_ingest.venues.gmo.pages`). Unlike a repair it needs no
more than some pages in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.timeframe import HOUR_US
from ashi_ingest.venues.answers import MAX_TRIES, in_words
from ashi_ingest.venues.base import Missing, RepairEnd
from ashi_ingest.venues.gmo.pages import OVERLAP, ROWS, Row, Window, find_place, list_trades, newer_window, wide_window
from ashi_ingest.venues.gmo.repair import JOIN_TRIES, LATE_US, TRADES_PATH, ask_page
from ashi_ingest.venues.gmo.status import Message
from ashi_ingest.venues.parsing import symbol_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.answers import Rows
    from ashi_ingest.venues.base import Answer, FetchPlan, Request

KEPT_US: Final = HOUR_US
"""How far back the list goes is not documented. So long at least, µs: a list that ends sooner is of a new market."""
KEPT: Final = 600
"""Rows that are kept to find the place of the next page among them."""
LEAST_OVERLAP: Final = 50
"""Rows by which a page overlaps what is known, when it was just seen where that stands: no more move it meanwhile."""


def history(venue: str, market: str, since_us: int, until_us: int | None) -> FetchPlan:
    """Plan how to get the trades of a stretch of time: see `Venue.history`."""
    plan = _Plan(venue, market, since_us, until_us)
    yield from plan.find_begin()
    yield from plan.read_on()
    return plan.end()


class _Plan:
    """The rows that were read last: one list without a gap, newest first, and where the first of them stands."""

    def __init__(self, venue: str, market: str, since_us: int, until_us: int | None) -> None:
        self._symbol = symbol_of(venue, market)
        self._market = market
        self._since_us = since_us
        self._until_us = until_us
        self._done_us = since_us  # the trades of all milliseconds before it have been yielded
        self._rows: list[Row] = []
        self._newer = 0  # so many rows stood before the first of them when they were read
        self._bad: str | None = None
        self._busy: str | None = None
        self._reason: str | None = None
        self._short: str | None = None

    def find_begin(self) -> Generator[Request | Missing, Answer | None, None]:
        """Read the page where the time begins, or the last there is: its number is guessed, doubled, then halved."""
        page = yield from self._read(Window(1, ROWS))
        low, high = 1, 0 if page is not None and self._is_too_new(page) else 1
        found = page
        step = self._guess_pages(page)
        while page is not None and not low <= high <= low + 1:
            number = (low + high) // 2 if high else low + step
            step *= 2
            page = yield from self._read(Window(number, ROWS))
            if page is not None and self._is_too_new(page):
                low = number
            else:
                high, found = number, page
        start = (high - 1) * ROWS
        if found is not None and not found.total and high > low:
            start, found = yield from self._read_end(low * ROWS)
        if page is None or found is None:
            self._reason = f"{TRADES_PATH} asks for patience: {self._busy or 'it lags'}"
            return
        self._rows, self._newer = found.good, start
        yield from self._told(found)
        if found.good and found.good[-1].content.at >= self._since_us and not self._is_kept(found.good[-1]):
            self._short = (
                f"{TRADES_PATH} lists trades of {self._market} from {in_words(found.good[-1].content.at)} on; whether "
                f"there were any from {in_words(self._since_us)} on it does not say"
            )
            yield Missing(self._short, beyond_reach=True)
        if self._rows and self._newer and self._rows[0].content.at == self._rows[-1].content.at:
            yield from self._widen(found.total)

    def _read_end(self, known: int) -> Generator[Request, Answer | None, tuple[int, Rows[Row] | None]]:
        """The page with the oldest row of all; `known`: so many rows there are at least. None: it was not found.

        An empty page says nothing: its answer may lag, and lists fewer rows. But the last row is the last in any.
        """
        new = 1
        for _ in range(JOIN_TRIES):
            window = wide_window(known, new)
            page = yield from self._read(window)
            if page is None:
                break
            if 0 < page.total < window.size or (page.good and page.good[-1].content.at < self._since_us):
                return window.start, page
            new += LEAST_OVERLAP if page.total else 0
        return 0, None

    def _widen(self, total: int) -> Generator[Request | Missing, Answer | None, None]:
        """The last page has but a few rows, all of one millisecond, by which no page can be joined to them.

        So they are read once more, with newer ones. `total`: how many they are. Some may have come meanwhile, so that
        what is asked for begins further back each time.
        """
        for tries in range(JOIN_TRIES):
            window = newer_window(self._newer, min(total + OVERLAP * (tries + 1), ROWS - OVERLAP))
            page = yield from self._read(window)
            if page is None or not page.good:
                continue
            if page.total < window.size or page.good[-1].content.at < self._since_us:
                yield from self._told(page)
                self._rows, self._newer = page.good, window.start
                return

    def read_on(self) -> Generator[Request | list[Trade] | Missing, Answer | None, None]:
        """Read newer pages until the newest, or the time that is wanted; yield all milliseconds that are whole."""
        overlap, tries, is_place_known = OVERLAP, 0, False
        while self._rows and self._newer and not self._is_enough():
            yield from self._yield_until(self._rows[0].content.at)
            window = newer_window(self._newer, overlap)
            page = yield from self._read(window)
            place = None if page is None else find_place(self._rows, page.good, is_wide=is_place_known)
            new = 0 if place is None else -min(place, 0)
            tries = 0 if new else tries + 1
            if tries == JOIN_TRIES:
                at = in_words(self._rows[0].content.at)
                why = self._busy or f"what is newer could not be joined to it in {JOIN_TRIES} tries"
                self._reason = f"{TRADES_PATH} was read up to {at} only: {why}"
                break
            is_place_known = place is not None and not new
            if page is None or place is None:
                overlap *= 2
                continue
            yield from self._told(page)
            overlap = OVERLAP if new else LEAST_OVERLAP
            self._rows = self._kept(page.good[:new] + self._rows)
            self._newer = max(window.start - place - new, 0)  # an answer may be older than the one before
        if self._rows:
            yield from self._yield_until(self._rows[0].content.at + 1)

    def end(self) -> RepairEnd:
        """How it ended."""
        shown_us = self._rows[0].content.at - LATE_US if self._rows and self._reason is None else None
        reason = "; ".join(filter(None, (self._bad, self._reason, self._short))) or None
        return RepairEnd(reason, shown_us, beyond_reach=self._short is not None)

    def _is_enough(self) -> bool:
        return self._until_us is not None and self._rows[0].content.at - LATE_US >= self._until_us

    def _is_kept(self, row: Row) -> bool:
        """Whether the time is so short ago that a list that ends after it has all there was."""
        return self._since_us >= row.received_at - KEPT_US

    def _is_too_new(self, page: Rows[Row]) -> bool:
        """Whether older pages are needed."""
        return page.total == ROWS and (not page.good or page.good[-1].content.at >= self._since_us)

    def _guess_pages(self, page: Rows[Row] | None) -> int:
        """How many pages back the time is, if trades come as often as on this one."""
        if page is None or not page.good:
            return 1
        newest_us, oldest_us = page.good[0].content.at, page.good[-1].content.at
        return max((oldest_us - self._since_us) // max(newest_us - oldest_us, 1_000_000), 1)

    def _yield_until(self, until_us: int) -> Generator[list[Trade], Answer | None, None]:
        """The trades of the milliseconds before `until_us` that have not been yielded."""
        rows = [row for row in self._rows if self._done_us <= row.content.at < until_us]
        trades = list_trades(self._symbol, rows)
        self._done_us = max(self._done_us, until_us)
        if trades:
            yield trades

    def _kept(self, rows: list[Row]) -> list[Row]:
        """The newest rows, and all that have not been yielded."""
        done = next((place for place, row in enumerate(rows) if row.content.at < self._done_us), len(rows))
        return rows[: max(KEPT, done)]

    def _told(self, page: Rows[Row]) -> Iterator[Missing]:
        """What is missing of a page that is used."""
        if page.bad is not None:
            self._bad = self._bad or page.bad
            yield Missing(page.bad)

    def _read(self, window: Window) -> Generator[Request, Answer | None, Rows[Row] | None]:
        """A page; None when the venue asks for patience again and again."""
        for _ in range(MAX_TRIES):
            page = yield from ask_page(self._symbol, self._market, window)
            if not isinstance(page, Message):
                self._busy = None
                return page
            self._busy = f"{page.message_code} {page.message_string}"
        return None
