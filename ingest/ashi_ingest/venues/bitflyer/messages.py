"""bitFlyer Lightning: executions over the JSON-RPC websocket.

Source: https://bf-lightning-api.readme.io/docs/realtime-executions, and recordings.

    {"jsonrpc":"2.0","method":"channelMessage","params":{"channel":"lightning_executions_BTC_JPY","message":[
      {"id":2284079807,"side":"BUY","price":5860832.0,"size":0.01,"exec_date":"2021-12-12T23:05:29.9692063Z",…},…]}}

- The product stands in the channel's name only.
- Price and size are JSON numbers, at times in scientific notation (`1e-08`); they never pass through a float.
- `side` is the taker's, and empty in the auction that reopens the market (itayose).
- `exec_date` is UTC with or without `Z`. The websocket gives 100 ns with zeros trimmed, REST 0 to 3 digits of the same
  execution: `traded_at` is floored to the millisecond, so that it is the same whichever way a trade came.
- `id` is not in the order of `exec_date`; it orders the trades of one millisecond.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import MAX_SEQUENCE, Side, Trade, check_trade
from ashi_ingest.venues.parsing import BAD_FRAME, Parsed, check_known, parse_utc, read_price, reject, symbol_of

EXECUTIONS: Final = "lightning_executions_"
KNOWN_KEYS: Final = frozenset({"jsonrpc", "method", "id", "result", "error", "channel"})

SIDES: Final[dict[str, Side | None]] = {"BUY": "buy", "SELL": "sell", "": None}


class _Params(msgspec.Struct, gc=False):
    channel: str = ""
    message: msgspec.Raw = msgspec.Raw(b"null")


class _Frame(msgspec.Struct, gc=False):
    params: _Params | msgspec.UnsetType = msgspec.UNSET


class _Execution(msgspec.Struct, gc=False):
    id: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    side: str
    price: msgspec.Raw
    size: msgspec.Raw
    exec_date: str


class _PushedParams(msgspec.Struct, gc=False):
    channel: str
    message: list[_Execution]


class _Pushed(msgspec.Struct, gc=False):
    """The frame of executions, all that has to be known of it."""

    params: _PushedParams


_pushed = msgspec.json.Decoder(_Pushed)
_frame = msgspec.json.Decoder(_Frame)
_executions = msgspec.json.Decoder(list[msgspec.Raw])
_execution = msgspec.json.Decoder(_Execution)


class BitFlyerParser:
    """Reads bitFlyer's frames. It keeps nothing from one frame to the next."""

    name: Final = "bitflyer"

    def parse(self, frame: bytes, received_at: int) -> Parsed:
        """Read one frame that was received at `received_at` (µs). Never raises: see `ashi_ingest.venues.parsing`."""
        if (trades := self._read_at_once(frame, received_at)) is not None:
            return Parsed(trades)
        symbol = None
        try:
            frame.decode()
            params = _frame.decode(frame).params
            if params is msgspec.UNSET or not params.channel:
                check_known(frame, KNOWN_KEYS, "bitFlyer")
                return Parsed()
            if not params.channel.startswith(EXECUTIONS):
                return Parsed()
            symbol = symbol_of(self.name, params.channel.removeprefix(EXECUTIONS))
            executions = _executions.decode(params.message)
        except BAD_FRAME as error:
            return Parsed(rejected=[reject(frame, error, symbol)])
        parsed = Parsed()
        for raw in executions:
            try:
                parsed.trades.append(read_execution(symbol, raw, received_at))
            except BAD_FRAME as error:
                parsed.rejected.append(reject(bytes(raw), error, symbol))
        return parsed

    def _read_at_once(self, frame: bytes, received_at: int) -> list[Trade] | None:
        """The trades of a frame in which all is in order, as in nearly all; None: take it apart, and see why."""
        if not frame.isascii():
            return None
        try:
            params = _pushed.decode(frame).params
            if not params.channel.startswith(EXECUTIONS):
                return None
            symbol = symbol_of(self.name, params.channel.removeprefix(EXECUTIONS))
            return [_make_trade(symbol, execution, received_at) for execution in params.message]
        except BAD_FRAME:
            return None


def read_execution(symbol: str, raw: msgspec.Raw, received_at: int) -> Trade:
    """One execution, as the websocket pushes it and as REST lists it. Raises one of `parsing.BAD_FRAME`."""
    return _make_trade(symbol, _execution.decode(raw), received_at)


def _make_trade(symbol: str, execution: _Execution, received_at: int) -> Trade:
    if execution.side not in SIDES:
        raise ContractError(f"side {execution.side[:20]!r} is none of BUY, SELL and empty (an auction)")
    trade = Trade(
        symbol=symbol,
        trade_id=str(execution.id),
        price=_number("price", execution.price),
        size=_number("size", execution.size),
        side=SIDES[execution.side],
        traded_at=parse_exec_date(execution.exec_date),
        received_at=received_at,
        sequence=execution.id,
    )
    check_trade(trade)
    return trade


def _number(field: str, raw: msgspec.Raw) -> Decimal:
    """The JSON number exactly as written. What is quoted is no number: msgspec alone would take `"NaN"` and `"1_0"`."""
    text = bytes(raw).decode()
    try:
        if (sound := read_price(text)) is not None:
            return sound
        if text[0] in "-0123456789":
            return Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        pass
    raise ContractError(f"{field} {text[:60]} is not a JSON number, such as 5860832.0")


_EXEC_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,7}))?Z?", re.ASCII)


def parse_exec_date(text: str) -> int:
    """`2021-12-12T23:05:29.9692063Z`, with 0 to 7 fraction digits and with or without `Z`, in µs floored to the ms.

    Raises:
        ContractError: it is blank, of another form, or no date of the calendar.

    """
    match = _EXEC_DATE.fullmatch(text)
    if match is None:
        subject = f"exec_date {text[:40]!r}" if text.strip() else "exec_date is blank: it"
        raise ContractError(f"{subject} is not a time such as 2021-12-12T23:05:29.9692063Z (at most 7 fraction digits)")
    return parse_utc("exec_date", text, *match.groups(default=""))
