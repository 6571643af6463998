"""What a strategy wants: the position in a symbol from a candle's close on. Topic `signals`, schema `ashi.signal.v1`.

A signal says the target, not the deed: `long`, not "buy". So one that comes twice does no harm, one that was missed is
made up for by the next, and when one is superseded the one before it holds again, which no reader has to undo.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from ashi.contracts.candle import MAX_VERSION
from ashi.contracts.decimals import check_amount, check_notation, needs_notation_check
from ashi.contracts.errors import ContractError
from ashi.contracts.json_messages import decode_json, plain_fields
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import check_time

SIGNAL_SCHEMA: Final = "ashi.signal.v1"

SignalTarget: TypeAlias = Literal["long", "short", "flat"]
SignalStatus: TypeAlias = Literal["active", "superseded"]

MAX_STRATEGY_LENGTH: Final = 500
MAX_REASON_LENGTH: Final = 500
MAX_LABELS: Final = 16
MAX_LABEL_NAME_LENGTH: Final = 64
MAX_LABEL_LENGTH: Final = 200
MAX_REVISION: Final = 2**31 - 1


class Signal(msgspec.Struct, frozen=True):
    """The target of a strategy in a symbol, as of one closed candle.

    Of each (strategy, symbol, timeframe, open_time) the greatest `signal_rank` counts. If that one is `superseded`, the
    strategy gives no signal at this candle any more.

    Attributes:
        strategy: its name with its parameters: `ma_cross(fast=9,slow=21)`. Other parameters are another strategy.
        symbol: `venue:MARKET`; the Kafka key.
        timeframe: of the candle that the signal came from, `1m`.
        open_time: of that candle, µs, inclusive.
        close_time: of that candle, µs, exclusive. The target holds from here on.
        version: of that candle. After a correction of it the signal is given anew, with the greater version.
        revision: 0; one more each time that a signal is given anew at the same version, as another candle that it was
            computed from was corrected, or came late.
        target: the position that is wanted: `long`, `short` or `flat`.
        strength: how much of the position, 0 to 1; None where the strategy does not say.
        price: the candle's `close`, quote currency. Nobody has traded at it.
        reason: why, in words; None where the strategy does not say.
        labels: what the strategy adds by name, such as the values it decided by.
        all_closed: whether every series of the strategy had a candle that closed at `close_time`. False: one was
            awaited in vain, and if it comes, the signal is superseded.
        is_complete: whether the candle lacked no trade, by the rule of `feed.is_complete`, when the signal was made;
            None: it was not known yet, which for a candle that has just closed is usual.
        status: `active`, or `superseded`: it is taken back.
        updated_at: when this message was made, µs; of a superseded one, when it was taken back.

    """

    strategy: str
    symbol: str
    timeframe: str
    open_time: int
    close_time: int
    version: int
    revision: int
    target: SignalTarget
    strength: Decimal | None
    price: Decimal
    reason: str | None
    labels: dict[str, str]
    all_closed: bool
    is_complete: bool | None
    status: SignalStatus
    updated_at: int


_DECIMALS: Final = ("strength", "price")
_UNDERSCORES: Final = "".join(Signal.__struct_fields__).count("_")
_decoder = msgspec.json.Decoder(Signal)
_encoder = msgspec.json.Encoder()


def signal_slot(signal: Signal) -> tuple[str, str, str, int]:
    """What a signal is about: of all with the same slot the greatest `signal_rank` counts."""
    return signal.strategy, signal.symbol, signal.timeframe, signal.open_time


def signal_rank(signal: Signal) -> int:
    """Orders the messages of one slot: by version, revision, and that it was superseded, which comes after."""
    return ((signal.version << 31) + signal.revision) * 2 + (signal.status == "superseded")


def encode_signal(signal: Signal) -> bytes:
    """JSON as in the contract: times in µs, decimals as plain strings."""
    return _encoder.encode(plain_fields(signal))


def decode_signal(message: bytes) -> Signal:
    """Read and check one message of `signals`. Raises ContractError that names the field and what is wrong."""
    signal = decode_json(_decoder, message, "a signal")
    check_signal(signal)
    others = (
        signal.strategy,
        signal.symbol,
        signal.status,
        signal.reason or "",
        *signal.labels,
        *signal.labels.values(),
    )
    if needs_notation_check(message, _UNDERSCORES, others):
        check_notation(message, _DECIMALS)
    return signal


def check_signal(signal: Signal) -> None:
    """Check what the types do not say. Raises ContractError that names the field and what is wrong."""
    _check_text("strategy", signal.strategy, MAX_STRATEGY_LENGTH)
    split_symbol(signal.symbol)
    timeframe = Timeframe.parse(signal.timeframe)
    check_time("close_time", signal.close_time)
    if signal.open_time != timeframe.open_time(signal.open_time):
        raise ContractError(f"open_time {signal.open_time} is not the start of a {timeframe} window")
    if signal.close_time != signal.open_time + timeframe.length_us:
        raise ContractError(f"close_time {signal.close_time} is not open_time plus {timeframe}")
    if not 0 <= signal.version <= MAX_VERSION:
        raise ContractError(f"version {signal.version} is not from 0 to 2^53 - 1")
    if not 0 <= signal.revision <= MAX_REVISION:
        raise ContractError(f"revision {signal.revision} is not from 0 to 2^31 - 1")
    check_amount("price", signal.price)
    check_target(signal.strength, signal.reason, signal.labels)
    check_time("updated_at", signal.updated_at)


def check_target(strength: Decimal | None, reason: str | None, labels: dict[str, str]) -> None:
    """Check what a strategy may say freely. Raises ContractError that names the field and what is wrong."""
    if strength is not None and check_amount("strength", strength) > 1:
        raise ContractError(f"strength {strength} is more than 1, the whole position")
    if reason is not None:
        _check_text("reason", reason, MAX_REASON_LENGTH)
    if len(labels) > MAX_LABELS:
        raise ContractError(f"labels: {len(labels)} are given, and at most {MAX_LABELS} are allowed")
    for name, label in labels.items():
        _check_text("labels: the name", name, MAX_LABEL_NAME_LENGTH)
        if len(label) > MAX_LABEL_LENGTH:
            raise ContractError(f"labels: {name!r} has {len(label)} characters; at most {MAX_LABEL_LENGTH} are allowed")


def _check_text(field: str, text: str, most: int) -> None:
    if not 1 <= len(text) <= most:
        raise ContractError(f"{field} {text[:60]!r} has {len(text)} characters; 1 to {most} are allowed")
