"""GMO Coin: executions over the public websocket.

Source: https://api.coin.z.com/docs/en/#ws-trades, and recordings.

    {"channel":"trades","price":"13492957","side":"SELL","size":"0.004","symbol":"BTC_JPY",
     "timestamp":"2025-04-30T13:09:43.601Z"}

- One execution a frame, with `TAKER_ONLY`; without it each comes twice, as a BUY and as a SELL.
- `BTC` (spot) and `BTC_JPY` (leverage) are different markets.
- There is no id, and two executions can agree in every field. What names one is its content and its ordinal among those
  equal to it: `<ms>-<price>-<size>-<side>-<n>`. `sequence` is its ordinal among all of the symbol in that millisecond.
  Both are counted as the frames come, so a parser reads one connection only.
"""

from __future__ import annotations

import re
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ashi.contracts.decimals import format_decimal, parse_decimal
from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Side, Trade, check_trade
from ashi_ingest.venues.parsing import BAD_FRAME, Parsed, check_known, parse_utc, read_price, reject, symbol_of

if TYPE_CHECKING:
    from collections.abc import Mapping

TRADES: Final = "trades"
KNOWN_KEYS: Final = frozenset({"error"})
SIDES: Final[dict[str, Side]] = {"BUY": "buy", "SELL": "sell"}
KEPT: Final = 1000
"""So many milliseconds with trades are counted for each symbol, the latest. A trade that comes late belongs to one of
them; one that comes later than that would be counted anew."""


class _Frame(msgspec.Struct, gc=False):
    channel: str | msgspec.UnsetType = msgspec.UNSET


class _Trade(msgspec.Struct, gc=False):
    symbol: str
    price: str
    size: str
    side: str
    timestamp: str


class _Pushed(_Trade, gc=False):
    """The frame of a trade, all that has to be known of it."""

    channel: str


class _Named(msgspec.Struct, gc=False):
    symbol: str


_pushed = msgspec.json.Decoder(_Pushed)
_frame = msgspec.json.Decoder(_Frame)
_trade = msgspec.json.Decoder(_Trade)
_named = msgspec.json.Decoder(_Named)


class Content(NamedTuple):
    """All that GMO tells of an execution. `at` in µs; price and size in plain notation; side BUY or SELL."""

    at: int
    price: str
    size: str
    side: str


_NONE: Final[Mapping[Content | None, int]] = MappingProxyType({})


class Ordinals:
    """Counts the executions of one symbol by millisecond. Bounded: see KEPT."""

    def __init__(self) -> None:
        self._by_time: dict[int, dict[Content | None, int]] = {}

    def next(self, content: Content) -> tuple[int, int]:
        """The ordinals of the next execution: among all of its millisecond, and among those of equal content."""
        counts = self._by_time.get(content.at, _NONE)
        return counts.get(None, 0), counts.get(content, 0)

    def add(self, content: Content) -> None:
        """Count an execution."""
        counts = self._by_time.setdefault(content.at, {})
        counts[None] = counts.get(None, 0) + 1
        counts[content] = counts.get(content, 0) + 1
        if len(self._by_time) >= 2 * KEPT:
            self._forget()

    def _forget(self) -> None:
        for at in sorted(self._by_time)[:-KEPT]:
            del self._by_time[at]


class GmoParser:
    """Reads the frames of one connection to GMO Coin, or of one recording."""

    name: Final = "gmo"

    def __init__(self) -> None:
        self._ordinals: dict[str, Ordinals] = {}

    def parse(self, frame: bytes, received_at: int) -> Parsed:
        """Read one frame that was received at `received_at` (µs). Never raises: see `ashi_ingest.venues.parsing`."""
        try:
            pushed: _Trade | None = self._read_at_once(frame)
            if pushed is None:
                frame.decode()
                channel = _frame.decode(frame).channel
                if channel is msgspec.UNSET:
                    check_known(frame, KNOWN_KEYS, "GMO Coin")
                    return Parsed()
                if channel != TRADES:
                    return Parsed()
                pushed = _trade.decode(frame)
            symbol = symbol_of(self.name, pushed.symbol)
            content = read_content(pushed.price, pushed.size, pushed.side, pushed.timestamp)
            ordinals = self._ordinals.setdefault(symbol, Ordinals())
            trade = make_trade(symbol, content, ordinals.next(content), received_at)
        except BAD_FRAME as error:
            return Parsed(rejected=[reject(frame, error, self._symbol(frame))])
        ordinals.add(content)
        return Parsed(trades=[trade])

    def _read_at_once(self, frame: bytes) -> _Pushed | None:
        """A frame that is a trade's, as nearly all are; None: take it apart, and see."""
        if not frame.isascii():
            return None
        try:
            pushed = _pushed.decode(frame)
        except BAD_FRAME:
            return None
        return pushed if pushed.channel == TRADES else None

    def _symbol(self, frame: bytes) -> str | None:
        """The symbol of a frame that is otherwise bad, if it can still be told."""
        try:
            return symbol_of(self.name, _named.decode(frame).symbol)
        except BAD_FRAME:
            return None


def read_content(price: str, size: str, side: str, timestamp: str) -> Content:
    """What the four fields say, the same over the websocket and over REST. Raises ContractError."""
    if side not in SIDES:
        raise ContractError(f"side {side[:20]!r} is neither BUY nor SELL")
    return Content(
        parse_timestamp(timestamp),
        _plain("price", price),
        _plain("size", size),
        side,
    )


def _plain(field: str, text: str) -> str:
    sound = read_price(text)
    return format_decimal(parse_decimal(field, text) if sound is None else sound)


def make_trade(symbol: str, content: Content, ordinals: tuple[int, int], received_at: int) -> Trade:
    """The trade, by its ordinals in its millisecond: see the top of this module. Raises ContractError."""
    of_all, of_equals = ordinals
    at, price, size, side = content
    trade = Trade(
        symbol=symbol,
        trade_id=f"{at // 1000}-{price}-{size}-{side}-{of_equals}",
        price=Decimal(price),
        size=Decimal(size),
        side=SIDES[side],
        traded_at=at,
        received_at=received_at,
        sequence=of_all,
    )
    check_trade(trade)
    return trade


_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?Z", re.ASCII)


def parse_timestamp(text: str) -> int:
    """`2025-04-30T13:09:43.601Z`, in µs floored to the millisecond.

    Raises:
        ContractError: it is of another form, or no date of the calendar.

    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ContractError(f"timestamp {text[:40]!r} is not a time such as 2025-04-30T13:09:43.601Z")
    return parse_utc("timestamp", text, *match.groups(default=""))
