"""Binance: raw trades of spot and of USD-M futures.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#trade-streams, and recordings.

    {"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000",
     "q":"0.02000000","T":1723161255342,"m":true,"M":true}}

and the same without the wrapper, where a stream has a connection of its own.

- `T` is the time of the trade, `E` only that of the event. Milliseconds, or microseconds for who connects with
  `timeUnit=MICROSECOND`.
- `m`: the buyer was the maker, so the taker sold.
- USD-M adds `X`, the kind of the trade. What is not `MARKET` (insurance fund, auto-deleveraging, `NA` with a price of
  0) happened outside the order book and counts in no kline: it is skipped. Older recordings lack `X`.
- `aggTrade` sums up several trades; it is not a trade and is skipped.
"""

from __future__ import annotations

from operator import sub
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from ashi.contracts.decimals import parse_decimal
from ashi.contracts.errors import ContractError
from ashi.contracts.trade import EARLIEST_US, LATEST_US, MAX_AHEAD_US, MAX_SEQUENCE, Side, Trade, check_trade
from ashi_ingest.venues.parsing import (
    BAD_FRAME,
    Parsed,
    are_times_sound,
    check_known,
    parse_epoch,
    read_price,
    read_size,
    reject,
    symbol_of,
)
from ashi_ingest.venues.trade_columns import BUY, SELL, ReceivedColumns, plain_amounts

if TYPE_CHECKING:
    from collections.abc import Sequence

TRADE: Final = "trade"
TRADE_STREAM: Final = "@trade"
KNOWN_KEYS: Final = frozenset(
    {"e", "stream", "result", "id", "method", "error", "code", "status", "lastUpdateId", "u", "bids", "asks"}
)


class _Frame(msgspec.Struct, gc=False):
    stream: str | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    e: str | msgspec.UnsetType = msgspec.UNSET


class _Event(msgspec.Struct, gc=False):
    """What has to be known of an event before it is read as a trade."""

    e: str
    X: str = "MARKET"


class _Kind(msgspec.Struct, gc=False):
    e: str = ""
    X: str | None = None
    M: bool | None = None


class _Named(msgspec.Struct, gc=False):
    s: str


class _Trade(msgspec.Struct, gc=False):
    s: str
    t: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    p: str
    q: str
    T: int
    m: bool


class _TradeEvent(_Trade, gc=False):
    e: str
    X: str = "MARKET"


class _Pushed(msgspec.Struct, gc=False):
    """The frame of a trade, all that has to be known of it."""

    stream: str
    data: _TradeEvent


_pushed = msgspec.json.Decoder(_Pushed)
_frame = msgspec.json.Decoder(_Frame)
_event = msgspec.json.Decoder(_Event)
_kind = msgspec.json.Decoder(_Kind)
_named = msgspec.json.Decoder(_Named)
_trade = msgspec.json.Decoder(_Trade)


class BinanceParser:
    """Reads the frames of Binance spot or USD-M. It keeps nothing from one frame to the next."""

    def __init__(self, name: str) -> None:
        self.name: Final = name

    def parse(self, frame: bytes, received_at: int) -> Parsed:
        """Read one frame that was received at `received_at` (µs). Never raises: see `ashi_ingest.venues.parsing`."""
        if (trade := self._read_at_once(frame, received_at)) is not None:
            return Parsed([trade])
        event: msgspec.Raw | bytes = frame
        try:
            frame.decode()
            head = _frame.decode(frame)
            if head.data is not msgspec.UNSET:
                event = head.data
            if not self._is_trade(frame, head, event) or _event.decode(event).X != "MARKET":
                return Parsed()
            return Parsed(trades=[self._trade(_trade.decode(event), received_at)])
        except BAD_FRAME as error:
            return Parsed(rejected=[reject(frame, error, self._symbol(event))])

    def parse_columns(self, frames: Sequence[bytes], received_us: Sequence[bytes]) -> ReceivedColumns | None:
        """The trades of many frames, each of which is a trade's and in order. None: take them one by one."""
        try:
            pushed = [*map(_pushed.decode, frames)]
            events = [each.data for each in pushed]
            names = [event.s for event in events]
            symbols = {name: symbol_of(self.name, name) for name in {*names}}
        except BAD_FRAME:
            return None
        times_ms = [event.T for event in events]
        if (
            not b"".join(frames).isascii()
            or not all(stream.endswith(TRADE_STREAM) for stream in {each.stream for each in pushed})
            or {event.e for event in events} != {TRADE}
            or {event.X for event in events} != {"MARKET"}
            or not EARLIEST_US <= min(times_ms) * 1000 <= max(times_ms) * 1000 <= LATEST_US
            or not _are_after(times_ms, received_us)
            or (prices := plain_amounts([event.p.encode() for event in events])) is None
            or (sizes := plain_amounts([event.q.encode() for event in events])) is None
        ):
            return None
        ids = [b"%d" % event.t for event in events]
        sides = [SELL if event.m else BUY for event in events]
        traded_ms = [b"%d" % time_ms for time_ms in times_ms]
        return ReceivedColumns(
            [*map(symbols.__getitem__, names)], ids, prices, sizes, sides, traded_ms, received_us, ids
        )

    def _read_at_once(self, frame: bytes, received_at: int) -> Trade | None:
        """The trade of a frame in which all is in order, as in nearly all; None: take it apart, and see why.

        A third of the time that it takes in steps.
        """
        if not (frame.startswith(b'{"stream"') and frame.isascii()):
            return None
        try:
            pushed = _pushed.decode(frame)
            event = pushed.data
            symbol = symbol_of(self.name, event.s)
        except BAD_FRAME:
            return None
        traded_at = event.T * 1000
        if (
            event.e != TRADE
            or event.X != "MARKET"
            or not pushed.stream.endswith(TRADE_STREAM)
            or not are_times_sound(traded_at, received_at)
            or (price := read_price(event.p)) is None
            or (size := read_size(event.q)) is None
        ):
            return None
        sequence = event.t
        side: Side = "sell" if event.m else "buy"
        return Trade(symbol, str(sequence), price, size, side, traded_at, received_at, sequence)

    def _is_trade(self, frame: bytes, head: _Frame, event: msgspec.Raw | bytes) -> bool:
        """Whether stream or event says it is a trade. Raises ContractError when the two contradict each other."""
        if head.stream is msgspec.UNSET:
            if head.e is msgspec.UNSET:
                check_known(frame, KNOWN_KEYS, "Binance")
            return head.e == TRADE
        if not head.stream.lower().endswith(TRADE_STREAM):
            return False
        if (kind := _event.decode(event).e) != TRADE:
            raise ContractError(f"stream {head.stream[:60]!r} is one of trades, but its event e is {kind[:30]!r}")
        return True

    def _trade(self, event: _Trade, received_at: int) -> Trade:
        trade = Trade(
            symbol=symbol_of(self.name, event.s),
            trade_id=str(event.t),
            price=parse_decimal("price p", event.p),
            size=parse_decimal("size q", event.q),
            side=taker_side(buyer_is_maker=event.m),
            traded_at=parse_time("T", event.T),
            received_at=received_at,
            sequence=event.t,
        )
        check_trade(trade)
        return trade

    def _symbol(self, event: msgspec.Raw | bytes) -> str | None:
        """The symbol of a frame that is otherwise bad, if it can still be told."""
        try:
            return symbol_of(self.name, _named.decode(event).s)
        except BAD_FRAME:
            return None


def _are_after(times_ms: Sequence[int], received_us: Sequence[bytes]) -> bool:
    """Whether no time is too far ahead of its receipt, µs in 16 digits; False when in doubt."""
    if max(times_ms) * 1000 - int(min(received_us)) <= MAX_AHEAD_US:
        return True  # in the least time there is, all of them
    received_ms = [int(each[:-3]) for each in received_us]
    most_ms: int = max(map(sub, times_ms, received_ms))
    return most_ms * 1000 < MAX_AHEAD_US


def doubt(name: str, frame: bytes) -> str | None:
    """What speaks against a recorded frame's being a trade of `binance` or `binance-usdm`: see `VenueDescription`.

    The two have the same frames but for one key of each: USD-M's `X` and spot's `M`. Older recordings lack them.
    """
    try:
        data = _frame.decode(frame).data
        kind = _kind.decode(frame if data is msgspec.UNSET else data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if kind.e == "aggTrade":
        return "stands an aggTrade, which sums up several trades: record the streams <market>@trade"
    if kind.e != TRADE or (kind.X is None) == (kind.M is None):
        return None
    key, other = ("M", "binance") if kind.X is None else ("X", "binance-usdm")
    return None if other == name else f"stands a trade with the key {key}, which only {other} has: name that venue"


def taker_side(*, buyer_is_maker: bool) -> Side:
    """The taker's side: where the buyer was the maker, the taker sold."""
    return "sell" if buyer_is_maker else "buy"


def parse_time(field: str, time: int) -> int:
    """A time of Binance, in milliseconds or microseconds as its size tells, in µs.

    Raises:
        ContractError: it is in a unit that Binance does not document, or no time at all.

    """
    return parse_epoch(field, time, "Binance sends milliseconds, or microseconds with timeUnit=MICROSECOND")
