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
    from ashi_ingest.venues.base import Answer, FetchPlan

TRADES_PATH: Final = "/public/v1/trades"
MAX_PAGES: Final = 400
"""Pages of one repair: 40,000 rows, 20,000 executions. They are in memory at once, some 10 MB."""
JOIN_TRIES: Final = 10
"""How often in a row a page is asked for that cannot be joined to those before."""
LATE_US: Final = 1_000_000
"""Trades of a millisecond may come so much later than those of a later one, µs: `Limits.disorder_s` of this venue."""
STEP_BACK_US: Final = 120_000_000
"""Where no known trade is found among the rows, what lies behind them is read as well, µs: the venue's clock may have
been set back meanwhile."""


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


def repair(venue: str, market: str, since: Sequence[Trade], until: Trade | None) -> FetchPlan:
    """Plan a repair: see `Venue.repair`. What is yielded repeats the trades of the last second of `since`."""
    plan = _Plan(venue, market, since)
    late = yield from plan.read_newest(until)
    short = yield from plan.read_back(is_late=late is not None)
    if short is None and not plan.is_joined:
        return RepairEnd(f"{TRADES_PATH} lists no trade of {market} that is known: it is of another time or market")
    if trades := plan.trades():
        yield trades
    reason = "; ".join(filter(None, (plan.bad, late, short))) or None
    return RepairEnd(reason, plan.shown_until, beyond_reach=plan.is_beyond_reach)


class _Plan:
    """The rows that have been read: one list without a gap, newest first.

    Their times may be wrong: a clock of the venue that steps leaves rows that are stamped ahead of what followed them,
    or behind what went before. So what is known is looked for by its content, and a time counts as evidence only as
    far as it was over when it was told.
    """

    def __init__(self, venue: str, market: str, since: Sequence[Trade]) -> None:
        self._symbol = symbol_of(venue, market)
        self._market = market
        self._since = since
        self._known_at = {_execution_of(trade): _at_most(trade) for trade in since}
        times = self._known_at.values()
        self._known = max(times)
        # Where to go back to: beyond the last known trade, for those that come late. But only where `since` is whole:
        # whoever made it may have cut it off in the midst of its first millisecond.
        self._begin = min(self._known, max(self._known - LATE_US, min(times) + LATE_US))
        self._rows: list[Row] = []
        self._place: int | None = None
        self._has_begun = False
        self._pages = 0
        self._is_all = False
        self._busy: Message | None = None
        self.bad: str | None = None

    def read_newest(self, until: Trade | None) -> Generator[Request, Answer | None, str | None]:
        """Read the newest page, again until it goes as far as what is known, and as `until`.

        REST lags behind the websocket. Gives the reason if it does not catch up.
        """
        wanted = until or max(self._since, key=_at_most)
        equals = sum(_content_of(trade) == _content_of(wanted) for trade in self._since) + (until is not None)
        window = next_window(0)
        for _ in range(MAX_TRIES):
            page = yield from self._read(window)
            if page is not None:
                self._rows, self._place, self._has_begun = [], None, False
                self._add(page.good)
                self._is_all = page.total < window.size
                if self._reaches(wanted, equals):
                    return None
        if self._busy is not None:
            return f"{TRADES_PATH} answered {self._busy.message_code} {self._busy.message_string} {MAX_TRIES} times"
        return f"{TRADES_PATH} does not list trade {wanted.trade_id} of {self._market}, which came over the websocket"

    def read_back(self, *, is_late: bool) -> Generator[Request, Answer | None, str | None]:
        """Read older pages until all since the last known trade is there. Gives the reason if it cannot be.

        `is_late`: REST does not go as far as what is known, so that need not be among the rows.
        """
        shift = 0  # by how many rows the market has moved on since the newest page was read
        tries = 0
        while self._rows and not self._is_all and not self._is_whole(is_late=is_late):
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
                    self._add(older)
                    tries = 0
                    continue
            tries += 1
        return None if self._is_whole(is_late=is_late) else self._read_to()

    def _add(self, older: Sequence[Row]) -> None:
        """Rows were read that are older than those before."""
        for row in older:
            if self._place is not None:
                self._has_begun = self._has_begun or row.content.at < self._begin
            elif _key(row) in self._known_at:
                self._place = len(self._rows)
            self._rows.append(row)

    @property
    def shown_until(self) -> int | None:
        """Until when the rows show everything, µs: see `RepairEnd`."""
        return max(map(self._shown_at, self._rows)) - LATE_US if self._rows else None

    def _shown_at(self, row: Row) -> int:
        """What REST knows, at least up to this time, µs: when the row happened, or what it was known for before."""
        return min(row.content.at, self._known_at.get(_key(row), row.received_at))

    @property
    def is_beyond_reach(self) -> bool:
        """Whether no more pages are to be had, and those there are do not go back to what is known."""
        return bool(self._rows) and not self._is_whole() and (self._is_all or self._pages >= MAX_PAGES)

    @property
    def is_joined(self) -> bool:
        """Whether a trade that is known is among the rows."""
        return not self._rows or self._place is not None

    def trades(self) -> list[Trade]:
        """The trades of all milliseconds that are whole, oldest first."""
        rows = self._rows
        end = len(rows)
        while end and not self._is_all and rows[end - 1].content.at == rows[-1].content.at:
            end -= 1  # more of the oldest millisecond may follow
        newer = -1 if self._place is None else self._place  # rows before it are newer, whatever their times
        while 0 <= newer < end and rows[newer].content.at == rows[self._place or 0].content.at:
            newer += 1
        return list_trades(
            self._symbol,
            [row for place, row in enumerate(rows[:end]) if place < newer or row.content.at >= self._begin],
        )

    def _is_whole(self, *, is_late: bool = False) -> bool:
        """Whether all that was missed has been read: what is known, and what may have come later than that."""
        if not self._rows:
            return False
        oldest = self._rows[-1].content.at
        if self._has_begun or (self._is_all and oldest <= self._known):
            return True
        return self._place is None and oldest < self._begin - (0 if is_late else STEP_BACK_US)

    def _reaches(self, wanted: Trade, equals: int) -> bool:
        """Whether as many trades of the content of `wanted` have been read, or one that happened after it came."""
        # It may be stamped too early. Its way is taken to be the least that trades had: clocks differ.
        way_us = max(min(trade.received_at - trade.traded_at for trade in (*self._since, wanted)), 0)
        after = max(wanted.traded_at, wanted.received_at - way_us)
        if any(after < row.content.at <= row.received_at and _key(row) not in self._known_at for row in self._rows):
            return True
        listed = list_trades(self._symbol, [row for row in self._rows if row.content.at == wanted.traded_at])
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


def _execution_of(trade: Trade) -> str:
    """What both rows of it say: see `_key`."""
    return trade.trade_id.rsplit("-", 2)[0]


def _key(row: Row) -> str:
    at, price, size, _ = row.content
    return f"{at // 1000}-{price}-{size}"


def _at_most(trade: Trade) -> int:
    """When it had happened, µs: the venue's clock may have been ahead of its receipt."""
    return min(trade.traded_at, trade.received_at)
