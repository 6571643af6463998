"""Repair of GMO Coin's trades over REST, backwards from the newest.

Source: https://api.coin.z.com/docs/en/#trades

    {"status":0,"data":{"pagination":{"currentPage":1,"count":100},"list":[{"price":"750760","side":"BUY","size":"0.1",
     "timestamp":"2018-03-30T12:34:56.789Z"},…]},"responsetime":"2019-03-28T09:28:07.980Z"}

Trades have no ids and can be read from the newest only, so all that was missed is in memory before the first of it can
be published; MAX_PAGES bounds that. See `ashi_ingest.venues.gmo.pages` for how the pages are put together.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from ashi_ingest.venues.answers import MAX_TRIES, Rows, decode_answer, in_words, read_rows
from ashi_ingest.venues.base import RepairEnd, Request
from ashi_ingest.venues.gmo.messages import make_trade, read_content
from ashi_ingest.venues.gmo.pages import (
    LEAST_NEW,
    OVERLAP,
    Row,
    Window,
    find_place,
    list_trades,
    next_window,
    wide_window,
)
from ashi_ingest.venues.gmo.status import BUSY, Message, check_status
from ashi_ingest.venues.parsing import symbol_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import Answer, Repair

TRADES_PATH: Final = "/public/v1/trades"
MAX_PAGES: Final = 400
"""Pages of one repair: 40,000 rows, 20,000 executions. They are in memory at once, some 10 MB."""
JOIN_TRIES: Final = 10
"""How often in a row a page is asked for that cannot be joined to those before."""
LATE_US: Final = 1_000_000
"""Trades of a millisecond may come so much later than those of a later one, µs: `Limits.disorder_s` of this venue."""


class _Page(msgspec.Struct):
    rows: list[msgspec.Raw] = msgspec.field(name="list", default_factory=list)


class _Answer(msgspec.Struct):
    status: int
    data: _Page = msgspec.field(default_factory=_Page)
    messages: list[Message] = []


class _Row(msgspec.Struct, gc=False):
    price: str
    size: str
    side: str
    timestamp: str


_answer = msgspec.json.Decoder(_Answer)
_row = msgspec.json.Decoder(_Row)


def repair(venue: str, market: str, since: Sequence[Trade], until: Trade | None) -> Repair:
    """Plan a repair: see `Venue.repair`. What is yielded repeats the trades of the last second of `since`."""
    plan = _Plan(venue, market, since)
    late = yield from plan.read_newest(until)
    short = yield from plan.read_back()
    if trades := plan.trades():
        yield trades
    reason = "; ".join(filter(None, (plan.bad, late, short))) or None
    return RepairEnd(reason, plan.shown_until, beyond_reach=plan.is_beyond_reach)


class _Plan:
    """The rows that have been read: one list without a gap, newest first."""

    def __init__(self, venue: str, market: str, since: Sequence[Trade]) -> None:
        self._symbol = symbol_of(venue, market)
        self._market = market
        self._since = since
        times = [trade.traded_at for trade in since]
        self._known = max(times)
        # Where to go back to: beyond the last known trade, for those that come late. But only where `since` is whole:
        # whoever made it may have cut it off in the midst of its first millisecond.
        self._begin = min(self._known, max(self._known - LATE_US, min(times) + LATE_US))
        self._rows: list[Row] = []
        self._pages = 0
        self._is_all = False
        self._busy: Message | None = None
        self.bad: str | None = None

    def read_newest(self, until: Trade | None) -> Generator[Request, Answer | None, str | None]:
        """Read the newest page, again until it goes as far as what is known, and as `until`.

        REST lags behind the websocket. Gives the reason if it does not catch up.
        """
        wanted = until or max(self._since, key=lambda trade: trade.traded_at)
        equals = sum(_content_of(trade) == _content_of(wanted) for trade in self._since) + (until is not None)
        window = next_window(0)
        for _ in range(MAX_TRIES):
            page = yield from self._read(window)
            if page is not None:
                self._rows = page.good
                self._is_all = page.total < window.size
                if self._reaches(wanted, equals):
                    return None
        if self._busy is not None:
            return f"{TRADES_PATH} answered {self._busy.message_code} {self._busy.message_string} {MAX_TRIES} times"
        return f"{TRADES_PATH} does not list trade {wanted.trade_id} of {self._market}, which came over the websocket"

    def read_back(self) -> Generator[Request, Answer | None, str | None]:
        """Read older pages until all since the last known trade is there. Gives the reason if it cannot be."""
        shift = 0  # by how many rows the market has moved on since the newest page was read
        tries = 0
        while self._rows and not self._is_all and not self._is_whole():
            if self._pages >= MAX_PAGES:
                return f"{self._read_to()}: more than {MAX_PAGES} pages are not read"
            if tries == JOIN_TRIES:
                return f"{self._read_to()}: what is older could not be joined to it in {JOIN_TRIES} tries"
            known = len(self._rows) + shift
            window = wide_window(known, min(tries * OVERLAP, LEAST_NEW)) if tries else next_window(known)
            page = yield from self._read(window)
            if page is not None and (place := find_place(self._rows, page.good, is_wide=tries > 0)) is not None:
                shift = window.start - place
                self._is_all = page.total < window.size
                if older := page.good[len(self._rows) - place :]:
                    self._rows += older
                    tries = 0
                    continue
            tries += 1
        return None if self._is_whole() else self._read_to()

    @property
    def shown_until(self) -> int | None:
        """Until when the newest page shows everything, µs: see `RepairEnd`."""
        return self._rows[0].content.at - LATE_US if self._rows else None

    @property
    def is_beyond_reach(self) -> bool:
        """Whether no more pages are to be had, and those there are do not go back to what is known."""
        return bool(self._rows) and not self._is_whole() and (self._is_all or self._pages >= MAX_PAGES)

    def trades(self) -> list[Trade]:
        """The trades of all milliseconds that are whole, oldest first."""
        if not self._rows:
            return []
        oldest = self._rows[-1].content.at
        return list_trades(self._symbol, self._rows, max(self._begin, oldest if self._is_all else oldest + 1))

    def _is_whole(self) -> bool:
        """Whether all that was missed has been read."""
        if not self._rows:
            return False
        oldest = self._rows[-1].content.at
        return oldest < self._begin or (self._is_all and oldest <= self._known)

    def _reaches(self, wanted: Trade, equals: int) -> bool:
        """Whether what has been read is newer than `wanted`, or has as many trades of its content."""
        if not self._rows or self._rows[0].content.at > wanted.traded_at:
            return bool(self._rows)
        listed = list_trades(self._symbol, self._rows, wanted.traded_at)
        return sum(_content_of(trade) == _content_of(wanted) for trade in listed) >= equals

    def _read_to(self) -> str:
        if not self._rows:
            return f"{TRADES_PATH} lists no trade of {self._market}"
        back_to, known = in_words(self._rows[-1].content.at), in_words(self._known)
        return f"{TRADES_PATH} was read back to {back_to} only, and trades of {self._market} are known up to {known}"

    def _read(self, window: Window) -> Generator[Request, Answer | None, Rows[Row] | None]:
        """A page; None when the venue asks for patience. Raises ContractError when the answer is no page."""
        self._pages += 1
        page = yield from ask_page(self._symbol, self._market, window)
        self._busy = page if isinstance(page, Message) else None
        if isinstance(page, Message):
            return None
        self.bad = self.bad or page.bad
        return page


def ask_page(symbol: str, market: str, window: Window) -> Generator[Request, Answer | None, Rows[Row] | Message]:
    """A page, or the venue's words when it asks for patience. Raises ContractError when the answer is no page."""
    answer = yield Request(TRADES_PATH, {"symbol": market, "page": str(window.page), "count": str(window.size)})
    assert answer is not None  # noqa: S101  (the runner answers every request)
    page = decode_answer(_answer, answer.body, TRADES_PATH)
    busy = next((message for message in page.messages if message.message_code in BUSY), None)
    if busy is not None:
        return busy
    check_status(page.status, page.messages, TRADES_PATH)
    return read_rows(page.data.rows, partial(_read_row, symbol, received_at=answer.received_at), TRADES_PATH)


def _read_row(symbol: str, raw: msgspec.Raw, received_at: int) -> Row:
    """Read a row and check that it can be a trade. Raises one of `parsing.BAD_FRAME`."""
    row = _row.decode(raw)
    content = read_content(row.price, row.size, row.side, row.timestamp)
    make_trade(symbol, content, (0, 0), received_at)
    return Row(content, received_at)


def _content_of(trade: Trade) -> str:
    return trade.trade_id.rpartition("-")[0]
