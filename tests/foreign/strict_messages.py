"""The messages, typed by somebody who has docs/messages.md and nothing else of Ashi: no import of it belongs here.

It is stricter than a reader should be: a field that the page does not name is an error here, so that the page has all.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal
from types import UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

Micros = NewType("Micros", int)
Version = NewType("Version", int)
State = Literal["connected", "silent", "repairing", "down"]

FLAT_IS_ZERO = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class NotOnThePageError(Exception):
    """What was read is not as the page says."""


@dataclass(frozen=True)
class Trade:
    symbol: str
    trade_id: str
    price: Decimal
    size: Decimal
    side: Literal["buy", "sell"] | None
    traded_at: Micros
    received_at: Micros
    sequence: int

    def check(self) -> None:
        require(1 <= len(self.trade_id) <= 128, f"trade_id {self.trade_id!r}")
        require(self.traded_at - self.received_at <= 60_000_000, "received 60 s before it was executed")
        require(self.sequence < 2**63, f"sequence {self.sequence}")
        for amount in (self.price, self.size):
            require(len(format(amount, "f").replace(".", "")) <= 38, f"{amount} has more than 38 digits")


@dataclass(frozen=True)
class Candle:
    symbol: str
    timeframe: str
    open_time: Micros
    close_time: Micros
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    first_trade_id: str | None
    last_trade_id: str | None
    version: Version

    def check(self) -> None:
        length = int(self.timeframe[:-1]) * SECONDS[self.timeframe[-1]] * 1_000_000
        require(86_400_000_000 % length == 0 and self.open_time % length == 0, f"open_time {self.open_time}")
        require(self.close_time == self.open_time + length, f"close_time {self.close_time}")
        require(self.low <= min(self.open, self.close) <= max(self.open, self.close) <= self.high, "prices")
        flat = self.trade_count == 0
        for trade_id in (self.first_trade_id, self.last_trade_id):
            require(flat == (trade_id is None), f"trade id {trade_id} of {self.trade_count} trades")
        if flat:
            require(self.open == self.high == self.low == self.close, "the prices of a flat candle")
            require(all(getattr(self, name) == 0 for name in FLAT_IS_ZERO), "the volumes of a flat candle")


@dataclass(frozen=True)
class Gap:
    symbol: str
    from_time: Micros
    to_time: Micros | None
    state: Literal["open", "repaired", "lost"]
    trades_recovered: int
    reason: str
    updated_at: Micros
    final: bool = False

    def check(self) -> None:
        require(self.to_time is None or self.to_time >= self.from_time, f"to_time {self.to_time}")
        require(not self.final or self.state == "lost", f"final, and {self.state}")

    def overlaps(self, candle: Candle) -> bool:
        end = None if self.to_time is None else max(self.to_time, self.from_time + 1)
        return self.from_time < candle.close_time and (end is None or end > candle.open_time)


@dataclass(frozen=True)
class Worker:
    id: str
    state: State
    heartbeat: Micros
    redundant: bool = False
    complete_until: Micros | None = None


@dataclass(frozen=True)
class Status:
    symbol: str
    state: State
    since: Micros
    reason: str | None
    last_trade_id: str | None
    last_traded_at: Micros | None
    updated_at: Micros
    complete_until: Micros | None = None
    workers: tuple[Worker, ...] = ()


@dataclass(frozen=True)
class Instrument:
    symbol: str
    base: str | None
    quote: str | None
    tick_size: Decimal | None
    lot_size: Decimal | None
    state: Literal["trading", "halted", "delisted"]
    updated_at: Micros

    def check(self) -> None:
        require(self.base != "" and self.quote != "", "an empty name")
        require(self.tick_size != 0 and self.lot_size != 0, "a step of 0")


@dataclass(frozen=True)
class Signal:
    strategy: str
    symbol: str
    timeframe: str
    open_time: Micros
    close_time: Micros
    version: Version
    revision: int
    target: Literal["long", "short", "flat"]
    strength: Decimal | None
    price: Decimal
    reason: str | None
    labels: dict[str, str]
    all_closed: bool
    is_complete: bool | None
    status: Literal["active", "superseded"]
    updated_at: Micros

    def check(self) -> None:
        length = int(self.timeframe[:-1]) * SECONDS[self.timeframe[-1]] * 1_000_000
        require(86_400_000_000 % length == 0 and self.open_time % length == 0, f"open_time {self.open_time}")
        require(self.close_time == self.open_time + length, f"close_time {self.close_time}")
        require(1 <= len(self.strategy) <= 500, f"strategy {self.strategy!r}")
        require(self.reason is None or 1 <= len(self.reason) <= 500, f"reason {self.reason!r}")
        require(self.revision < 2**31, f"revision {self.revision}")
        require(self.strength is None or self.strength <= 1, f"strength {self.strength}")
        require(len(self.labels) <= 16, f"{len(self.labels)} labels")
        require(all(1 <= len(name) <= 64 and len(text) <= 200 for name, text in self.labels.items()), "a label")


_SYMBOL = re.compile(r"[a-z][a-z0-9-]{0,31}:([A-Za-z0-9._@:/+-]|[^\x00-\x7f])+")
_ANY_FORM = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotOnThePageError(otherwise)


def parse(kind: type[Any], value: bytes, *, others_write: bool = False) -> Any:
    """A message, or NotOnThePageError. `others_write`: decimals may be numbers, and have exponents."""
    try:
        found = json.loads(value.decode("utf-8"), parse_float=Decimal, parse_constant=_refuse)
    except ValueError as error:
        raise NotOnThePageError(str(error)) from error
    message = _object(kind, found, kind.__name__, others_write)
    require(_SYMBOL.fullmatch(message.symbol) is not None, f"symbol {message.symbol!r}")
    require(len(message.symbol.partition(":")[2].encode()) <= 64, f"symbol {message.symbol!r}")
    if hasattr(message, "check"):
        message.check()
    return message


def _refuse(constant: str) -> None:
    raise NotOnThePageError(constant)


def _object(kind: type[Any], found: Any, where: str, lenient: bool) -> Any:
    require(isinstance(found, dict), f"{where} is {found!r}")
    hints = get_type_hints(kind)
    needed = {each.name for each in fields(kind) if each.default is MISSING}
    require(found.keys() <= hints.keys(), f"{where} has {found.keys() - hints.keys()}")
    require(needed <= found.keys(), f"{where} lacks {needed - found.keys()}")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}", lenient) for name, value in found.items()})


def _value(kind: Any, value: Any, where: str, lenient: bool) -> Any:
    if get_origin(kind) in (Union, UnionType):
        inner, _none = get_args(kind)
        return None if value is None else _value(inner, value, where, lenient)
    is_integer = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind is Decimal:
        return _decimal(value, where, lenient)
    if get_origin(kind) is Literal:
        holds = isinstance(value, str) and value in get_args(kind)
    elif get_origin(kind) is tuple:
        require(isinstance(value, list), f"{where} is {value!r}")
        return tuple(_object(get_args(kind)[0], each, where, lenient) for each in value)
    elif get_origin(kind) is dict:
        holds = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    elif kind is Micros:
        holds = is_integer and 10**15 <= value < 2**53
    elif kind is Version:
        holds = is_integer and value < 2**53
    elif kind is int:
        holds = is_integer
    else:
        assert kind in (str, bool), kind
        holds = isinstance(value, kind)
    require(holds, f"{where} is {value!r}")
    return value


def _decimal(value: Any, where: str, lenient: bool) -> Decimal:
    if lenient and isinstance(value, int | Decimal) and not isinstance(value, bool):
        value = str(value)
    form = _ANY_FORM if lenient else _PLAIN
    require(isinstance(value, str) and form.fullmatch(value) is not None, f"{where} is {value!r}")
    return Decimal(value)
