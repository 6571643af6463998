"""What the fields of the messages mean and which values they have, beyond what their types say: for the schemas.

The meanings are those of the tables in `docs/messages.md`, word for word, which a test checks. What a message holds is
said by its struct alone; here every field of it has its line, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ashi.contracts.candle import MAX_VERSION
from ashi.contracts.decimals import MAX_DIGITS
from ashi.contracts.signal import (
    MAX_LABEL_LENGTH,
    MAX_LABEL_NAME_LENGTH,
    MAX_LABELS,
    MAX_REASON_LENGTH,
    MAX_REVISION,
    MAX_STRATEGY_LENGTH,
)
from ashi.contracts.trade import EARLIEST_US, LATEST_US, MAX_ID_LENGTH, MAX_SEQUENCE

Keywords: TypeAlias = dict[str, Any]
"""Keywords of JSON Schema that bound a value. Those for texts and for numbers leave a null alone."""

_MAX_SUM_DIGITS: Final = 89 + 76
"""Of a sum of 2^40 products of two numbers of 38 digits, before and after the point: see `decimals.EXACT`."""
_PLAIN: Final = r"^(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$"

SYMBOL: Final[Keywords] = {
    # What cannot be seen is refused as well, which no pattern can say; and the market is at most 64 bytes.
    "pattern": r"^[a-z][a-z0-9-]{0,31}:([A-Za-z0-9]|[^\x00-\x7f])([A-Za-z0-9._@:/+-]|[^\x00-\x7f])*$",
    "maxLength": 97,
}
TIMEFRAME: Final[Keywords] = {"pattern": "^([1-9][0-9]{0,4}[smh]|1d)$"}
TIME: Final[Keywords] = {"minimum": EARLIEST_US, "maximum": LATEST_US}
COUNT: Final[Keywords] = {"minimum": 0, "maximum": MAX_VERSION}
# 38 digits and a point. That a number without one has no 39 digits is more than a pattern for every language can say.
AMOUNT: Final[Keywords] = {"pattern": _PLAIN, "maxLength": MAX_DIGITS + 1}
STEP: Final[Keywords] = {
    "pattern": r"^([1-9][0-9]*(\.[0-9]*[1-9])?|0\.[0-9]*[1-9])$",
    "maxLength": MAX_DIGITS + 1,
}
SHARE: Final[Keywords] = {"pattern": r"^(0|1|0\.[0-9]*[1-9])$", "maxLength": MAX_DIGITS + 1}
SUM: Final[Keywords] = {"pattern": _PLAIN, "maxLength": _MAX_SUM_DIGITS + 1}
TRADE_ID: Final[Keywords] = {"minLength": 1, "maxLength": MAX_ID_LENGTH}
NAME: Final[Keywords] = {"minLength": 1}
LABELS: Final[Keywords] = {
    "maxProperties": MAX_LABELS,
    "propertyNames": {"minLength": 1, "maxLength": MAX_LABEL_NAME_LENGTH},
    "additionalProperties": {"type": "string", "maxLength": MAX_LABEL_LENGTH},
}


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field of a message.

    Attributes:
        meaning: as in the table of `docs/messages.md`.
        keywords: of JSON Schema, that bound its values further than its type.
        of_values: the meaning is that of each of its values, in their order, and not of the field.

    """

    meaning: str
    keywords: Keywords = field(default_factory=dict)
    of_values: bool = False


Fields: TypeAlias = Mapping[str, FieldSpec]

TRADE_FIELDS: Final[Fields] = {
    "symbol": FieldSpec("the Kafka key", SYMBOL),
    "trade_id": FieldSpec("the venue's id, unique within the symbol; 1 to 128 characters", TRADE_ID),
    "price": FieldSpec("quote currency", AMOUNT),
    "size": FieldSpec("base currency", AMOUNT),
    "side": FieldSpec("the taker's; null in an auction"),
    "traded_at": FieldSpec("when it was executed", TIME),
    "received_at": FieldSpec(
        "when the frame was received, by another clock: it may precede `traded_at`, by at most 60 s", TIME
    ),
    "sequence": FieldSpec(
        "orders the trades of a symbol that share `traded_at`: the venue's numeric id; below 2^63, which JavaScript "
        "does not read exactly",
        {"minimum": 0, "maximum": MAX_SEQUENCE},
    ),
}

CANDLE_FIELDS: Final[Fields] = {
    "symbol": FieldSpec("the Kafka key", SYMBOL),
    "timeframe": FieldSpec(
        "the length, a number and `s`, `m`, `h` or `d`: `1s` to `1d`, in the largest unit (`1m`, never `60s`); it "
        "divides a day evenly",
        TIMEFRAME,
    ),
    "open_time": FieldSpec("inclusive; a multiple of the length, so aligned to UTC", TIME),
    "close_time": FieldSpec("exclusive; `open_time` and the length", TIME),
    "open": FieldSpec("price of the least trade by (`traded_at`, `sequence`), quote currency", AMOUNT),
    "high": FieldSpec("greatest price", AMOUNT),
    "low": FieldSpec("least price", AMOUNT),
    "close": FieldSpec("price of the greatest trade by (`traded_at`, `sequence`)", AMOUNT),
    "volume": FieldSpec("sum of sizes, base currency", SUM),
    "quote_volume": FieldSpec("sum of price × size, quote currency", SUM),  # noqa: RUF001
    "trade_count": FieldSpec("number of trades; 0 in a flat candle", COUNT),
    "taker_buy_volume": FieldSpec("`volume` of the trades whose taker bought", SUM),
    "taker_buy_quote_volume": FieldSpec("`quote_volume` of the trades whose taker bought", SUM),
    "first_trade_id": FieldSpec("the trade that gave `open`; null in a flat candle, and in no other", TRADE_ID),
    "last_trade_id": FieldSpec("the trade that gave `close`; null in a flat candle, and in no other", TRADE_ID),
    "version": FieldSpec("greater is more complete; else it means nothing", COUNT),
}

GAP_FIELDS: Final[Fields] = {
    "symbol": FieldSpec("the Kafka key", SYMBOL),
    "from_time": FieldSpec("from when on trades may be missing; with `symbol` it names the gap", TIME),
    "to_time": FieldSpec("until when, exclusive, not before `from_time`; null while the feed has not come back", TIME),
    "state": FieldSpec(
        "not repaired yet; what was missed has been published; some or all of it could not be got", of_values=True
    ),
    "trades_recovered": FieldSpec("how many trades were published for it", COUNT),
    "reason": FieldSpec("what broke the feed, or why it could not be repaired"),
    "updated_at": FieldSpec("when this message was made", TIME),
    "final": FieldSpec(
        "true only of `lost`: the venue itself has said that it does not have these trades, or they are from before "
        "all that was read live, and in no file that was loaded, or they have been published and came too late for "
        "their candles; other lost ones are asked for again; missing: false"
    ),
}

STATUS_FIELDS: Final[Fields] = {
    "symbol": FieldSpec("the Kafka key", SYMBOL),
    "state": FieldSpec(
        "trades are published as they come; connected, and nothing has come for suspiciously long; connected, and what "
        "was missed is being fetched; not connected",
        of_values=True,
    ),
    "since": FieldSpec("when it came into this state", TIME),
    "reason": FieldSpec(
        "why it is not connected; or, connected, what is wrong all the same (a clock that is off, another worker that "
        "reads the symbol unasked); null when all is well"
    ),
    "last_trade_id": FieldSpec("of the last trade published; null when there was none", TRADE_ID),
    "last_traded_at": FieldSpec("when that one was executed; null when there was none", TIME),
    "updated_at": FieldSpec("when this message was made", TIME),
    "complete_until": FieldSpec(
        "all trades before this time have been published, but for those in gaps that are `open` or `lost`; null: "
        "nothing was checked yet; missing: null",
        TIME,
    ),
    "workers": FieldSpec(
        "the ingest workers that read the symbol; `state` above is the best of theirs; missing: empty"
    ),
}

WORKER_FIELDS: Final[Fields] = {
    "id": FieldSpec("of the process: another one after each start"),
    "state": FieldSpec("how the symbol's feed is in that worker"),
    "heartbeat": FieldSpec("when that worker said so last", TIME),
    "redundant": FieldSpec("it was told that it is one of several on purpose; missing: false"),
    "complete_until": FieldSpec("up to when it has checked itself, as above; null: nothing yet; missing: null", TIME),
}

INSTRUMENT_FIELDS: Final[Fields] = {
    "symbol": FieldSpec("the Kafka key", SYMBOL),
    "base": FieldSpec(
        "what is traded, by the venue's own name, never empty; null where the venue does not say, as for the next "
        "three",
        NAME,
    ),
    "quote": FieldSpec("what it is paid in, never empty", NAME),
    "tick_size": FieldSpec("the step of its prices, quote currency; never 0", STEP),
    "lot_size": FieldSpec("the step of its sizes, base currency; never 0", STEP),
    "state": FieldSpec(
        "may be traded now; listed, and not traded now; not listed any more, or closed for good", of_values=True
    ),
    "updated_at": FieldSpec("when this message was made", TIME),
}

SIGNAL_FIELDS: Final[Fields] = {
    "strategy": FieldSpec(
        "its name with its parameters; other parameters are another strategy; 1 to 500 characters",
        {"minLength": 1, "maxLength": MAX_STRATEGY_LENGTH},
    ),
    "symbol": FieldSpec("the Kafka key", SYMBOL),
    "timeframe": FieldSpec("of the candle that the signal came from, as in candles", TIMEFRAME),
    "open_time": FieldSpec("of that candle", TIME),
    "close_time": FieldSpec("of that candle; the target holds from here on", TIME),
    "version": FieldSpec("of that candle", COUNT),
    "revision": FieldSpec(
        "0; one more each time the signal is given anew at the same `version`; below 2^31",
        {"minimum": 0, "maximum": MAX_REVISION},
    ),
    "target": FieldSpec("the position that is wanted"),
    "strength": FieldSpec("how much of the position, 0 to 1; null: the strategy does not say", SHARE),
    "price": FieldSpec("the candle's `close`, quote currency; nobody has traded at it", AMOUNT),
    "reason": FieldSpec(
        "why, in words, 1 to 500 characters; null: the strategy does not say",
        {"minLength": 1, "maxLength": MAX_REASON_LENGTH},
    ),
    "labels": FieldSpec(
        "what the strategy adds: at most 16, names of 1 to 64 and values of at most 200 characters", LABELS
    ),
    "all_closed": FieldSpec(
        "whether every series of the strategy had a candle that closed at `close_time`; false: one was awaited in vain"
    ),
    "is_complete": FieldSpec(
        "whether the candle was complete when the message was made; null: not known yet, as is usual of a candle that "
        "has just closed"
    ),
    "status": FieldSpec("it holds; it is taken back", of_values=True),
    "updated_at": FieldSpec("when this message was made", TIME),
}
