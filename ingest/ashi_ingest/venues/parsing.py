"""What a venue module is: frames in, trades out.

The shape is that of a sans-I/O protocol (see the `websockets` library's `protocol.py`): an object that is fed bytes
and gives back events, and that neither reads a socket, nor a clock, nor writes anything. So a live session, a replay
of a recording and a test use the same parser, and what it makes of a frame depends on the frame alone.

Which frames end where:

    a trade                                   -> Parsed.trades
    several, some of them bad                 -> the good ones in Parsed.trades, each bad one in Parsed.rejected
    claims to be a trade, and is not          -> Parsed.rejected, whole
    neither UTF-8 nor JSON nor an object      -> Parsed.rejected, whole
    an object of a shape the venue never sends -> Parsed.rejected, whole
    order book, ticker, acknowledgment, …     -> neither: skipped
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import msgspec

from ashi.contracts.errors import ClockError, ContractError, in_brief
from ashi.contracts.symbol import make_symbol
from ashi.contracts.trade import EARLIEST_US, LATEST_US, MAX_AHEAD_US, Trade

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from ashi_ingest.venues.trade_columns import ReceivedColumns

MAX_REASON: Final = 400
"""Reasons become message headers; a number of a million digits must not become one."""

BAD_FRAME: Final = (msgspec.MsgspecError, UnicodeDecodeError, ContractError, RecursionError)
"""All that reading a frame can raise. RecursionError: JSON nested thousands of levels deep."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """What could not be read: the bytes as they came, why, and the symbol where the frame still tells it.

    `ahead_us`: how far its time is ahead of its receipt, µs, if that is why.
    """

    value: bytes
    reason: str
    symbol: str | None = None
    ahead_us: int | None = None


class Parsed(msgspec.Struct, gc=False):
    """What one frame gave. Both lists empty: the frame is of a kind that carries no trades."""

    trades: list[Trade] = []
    rejected: list[Rejected] = []

    @property
    def skipped(self) -> bool:
        """True for a frame that carries no trades and is in order, such as an order book."""
        return not self.trades and not self.rejected


class FrameParser(Protocol):
    """A parser of one venue's frames, made for one feed (one connection, or one recording)."""

    @property
    def name(self) -> str:
        """The venue as it begins its symbols: `bitflyer`."""

    def parse(self, frame: bytes, received_at: int) -> Parsed:
        """Read one frame that was received at `received_at` (µs). Never raises: see the table above."""


@runtime_checkable
class ColumnParser(Protocol):
    """A parser that can read many frames at once, where it needs nothing of one for the next."""

    def parse_columns(self, frames: Sequence[bytes], received_us: Sequence[bytes]) -> ReceivedColumns | None:
        """The trades of frames, at least one, each of which has one; `received_us`: when each was received, µs.

        What it gives is what `parse` would make of each. None: take them one by one.
        """


symbol_of = lru_cache(maxsize=4096)(make_symbol)
"""`make_symbol`, remembered: a feed names the same few markets in every frame."""


def reject(value: bytes, error: Exception, symbol: str | None = None) -> Rejected:
    """A rejection whose reason is the error in words a person understands."""
    reason = explain(value, error)
    text = reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"
    return Rejected(value, text, symbol, error.ahead_us if isinstance(error, ClockError) else None)


_SOUND: Final = re.compile(r"(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,19})?", re.ASCII)
"""38 digits at most."""


def read_size(text: str) -> Decimal | None:
    """A price or size exactly, if it is sound and stands as nearly all do: `61837.63000000`. None: look why not.

    Without the zeros at its end, so that they need not be looked for when the trade is written.
    """
    if _SOUND.fullmatch(text) is None:
        return None
    if text[-1] == "0" and "." in text:
        text = text.rstrip("0").rstrip(".")
    return Decimal(text)


read_price = lru_cache(maxsize=4096)(read_size)
"""`read_size`, remembered: a market trades at the same few prices for a while."""


@lru_cache(maxsize=1_000)
def second_us(text: str) -> int:
    """A second in UTC, `2025-04-30T13:09:43`, in µs. Raises ValueError when it is none of the calendar."""
    return int(datetime.fromisoformat(text + "+00:00").timestamp()) * 1_000_000


def parse_utc(field: str, text: str, second: str, fraction: str) -> int:
    """A time in UTC that stands as a date, in µs floored to the millisecond.

    `second` and `fraction` are what a venue's own notation `text` says: `2025-04-30T13:09:43`, and the digits after it.

    Raises:
        ContractError: it is no date of the calendar.

    """
    try:
        return second_us(second) + int(fraction[:3].ljust(3, "0")) * 1_000
    except ValueError as error:
        raise ContractError(f"{field} {text!r} is not a date of the calendar: {error}") from None


def are_times_sound(traded_at: int, received_at: int) -> bool:
    """Whether `check_trade` would accept both times (µs). It tells what is wrong with others."""
    return (
        EARLIEST_US <= traded_at <= LATEST_US
        and EARLIEST_US <= received_at <= LATEST_US
        and traded_at - received_at <= MAX_AHEAD_US
    )


_AT_BYTE = re.compile(r"\(byte ([0-9]+)\)")
_NEAR: Final = 20
_MOST_DIGITS: Final = 20


def explain(value: bytes, error: Exception) -> str:
    """Say what is wrong with `value`: the field, or the place where it stops being JSON."""
    match error:
        case ContractError():
            return str(error)
        case UnicodeDecodeError():
            return f"not valid UTF-8: byte {value[error.start]:#04x} at position {error.start}"
        case RecursionError():
            return "not a frame: its JSON is nested too deeply to be read"
        case msgspec.ValidationError():
            return in_brief(f"not a trade as the venue documents it: {error}")
        case _:
            near = ""
            if (at := _AT_BYTE.search(str(error))) is not None:
                place = int(at[1])
                near = f", near {value[max(place - _NEAR, 0) : place + _NEAR].decode(errors='replace')!r}"
            return f"not valid JSON: {error}{near}"


_keys = msgspec.json.Decoder(dict[str, msgspec.Raw])


def check_known(frame: bytes, known: Set[str], venue: str) -> None:
    """Accept an object without trades if it has a key by which the venue's other frames are known.

    Raises:
        ContractError: it has none of them.
        msgspec.MsgspecError: it is no JSON object.

    """
    keys = _keys.decode(frame).keys()
    if keys.isdisjoint(known):
        listed = ", ".join(sorted(keys)[:8]) or "none"
        raise ContractError(f"not a frame that {venue} documents: its keys are {listed}; is this another venue's feed?")


def parse_epoch(field: str, time: int, documented: str) -> int:
    """A time since 1970 in milliseconds or microseconds, as its size tells, in µs. `documented`: the units, in words.

    Raises:
        ContractError: it is in another unit, or no time at all.

    """
    if EARLIEST_US <= time <= LATEST_US:
        return time
    if EARLIEST_US <= time * 1000 <= LATEST_US:
        return time * 1000
    if EARLIEST_US <= time * 1_000_000 <= LATEST_US:
        raise ContractError(f"{field} {time} looks like seconds; {documented}")
    if EARLIEST_US <= time // 1000 <= LATEST_US:
        raise ContractError(f"{field} {time} looks like nanoseconds; {documented}")
    raise ContractError(f"{field} {time} is not a time between 2001 and 2255; {documented}")


def parse_whole(field: str, text: str) -> int:
    """A whole number that is written as text. Raises ContractError."""
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise ContractError(f"{field} {text[:40]!r} is not a whole number")
    return int(text)
