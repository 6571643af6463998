"""The topics that other programs read, each with all that a document about it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ashi.contracts.records import COPY_HEADER, HISTORY_HEADER, SCHEMA_HEADER, SINCE_HEADER
from ashi.contracts.schemas.fields import SYMBOL, Keywords
from ashi.contracts.schemas.messages import (
    CANDLE,
    FEED_GAP,
    FEED_STATUS,
    INSTRUMENT,
    SIGNAL,
    TRADE,
    MessageSpec,
)
from ashi.contracts.topics import (
    CANDLES,
    CANDLES_DEAD,
    CANDLES_LIVE,
    FEED_GAPS,
    INSTRUMENTS,
    SIGNALS,
    TRADES,
    TRADES_DEAD,
    TRADES_LATE,
)
from ashi.contracts.topics import (
    FEED_STATUS as FEED_STATUS_TOPIC,
)

_TIME_TEXT: Final[Keywords] = {"pattern": "^[0-9]{16}$"}
_SYMBOL_KEY: Final[Keywords] = {"type": "string", "description": "The symbol, in UTF-8.", **SYMBOL}


@dataclass(frozen=True, slots=True)
class WhichCounts:
    """Of messages that are about the same, which one counts: what a reader keeps.

    Attributes:
        identity: the fields, or of letters the headers, that say what a message is about.
        greatest: of the same the message counts in which these fields are greatest, compared one after the other;
            texts by their characters.
        of_equals: where that leaves several, whether the `first` in its partition counts or the `last`. Both empty: a
            message is about nothing but itself, and each counts.

    """

    identity: tuple[str, ...] = ()
    greatest: tuple[str, ...] = ()
    of_equals: str = "first"


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A topic as other programs see it.

    Attributes:
        topic: its name.
        title: what stands in it.
        summary: what a reader must know of it, in a few sentences.
        message: what it holds; None: letters, which quote what is no message.
        key: the schema of a record's key.
        headers: schemas of the headers that its records may have, besides those that all have.
        required_headers: those of them that each has.
        which_counts: what a reader keeps.
        examples: those of the message's that may stand in it.
        letter: of letters, the headers of one.
        others_write: whether programs that are not Ashi's may write to it.

    """

    topic: str
    title: str
    summary: str
    message: MessageSpec | None
    which_counts: WhichCounts
    key: Keywords = field(default_factory=lambda: _SYMBOL_KEY)
    headers: Mapping[str, Keywords] = field(default_factory=dict)
    required_headers: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    letter: Mapping[str, str] = field(default_factory=dict)
    others_write: bool = False


def _header(description: str, **keywords: Any) -> Keywords:
    return {"type": "string", "description": description, **keywords}


def headers_of(message: MessageSpec) -> dict[str, Keywords]:
    """The headers of every message that is no letter."""
    return {
        "content-type": _header("What the value is.", const="application/json"),
        SCHEMA_HEADER: _header(
            "The message and its version. One without it, or with a null in it, is of this version; of several the "
            "last counts.",
            const=message.schema,
        ),
    }


_LETTER_HEADERS: Final[Mapping[str, Keywords]] = {
    "content-type": _header("What the value is.", const="application/octet-stream"),
    "ashi.reason": _header("Why, a sentence.", maxLength=1_000),
    "ashi.source": _header(
        "Where it stood: topic (without a prefix), partition and offset; a recording's file and line; or a connection "
        "to an exchange, and when the frame came, in nanoseconds.",
        maxLength=1_000,
    ),
    "ashi.failed_at": _header("When the letter was written. Microseconds since the epoch, UTC.", **_TIME_TEXT),
    "ashi.consumer": _header(
        "Who wrote it: the consumer group that read the record, `ashi-ingest` for frames of an exchange. Letters of "
        "old versions lack it.",
        maxLength=1_000,
    ),
    "ashi.full_length": _header("Of a value that was cut, how many bytes it had.", pattern="^[0-9]+$"),
}
_LETTER_REQUIRED: Final = ("content-type", "ashi.reason", "ashi.source", "ashi.failed_at")
_LETTER_KEY: Final[Keywords] = {
    "description": "The key of what is quoted, cut after 1,000 bytes; null where it had none."
}
_QUOTED_AT: Final = str(1_723_161_302_004_711)

CHANNELS: Final = (
    ChannelSpec(
        topic=TRADES,
        title="Trades",
        summary="Executions on exchanges, nearly and not exactly in the order of `traded_at`. Other programs may write "
        "trades too; they may write decimals as numbers and with exponents. A candle counts each trade once, by its "
        "first record, and none that is in `trades.late`.",
        message=TRADE,
        which_counts=WhichCounts(("symbol", "trade_id")),
        headers={
            "ashi.late": _header(
                "The feed had missed the trade, and later ones of its symbol stand before it.", const="1"
            ),
            COPY_HEADER: _header(
                "The trade stands in the topic before, in the partition that its symbol had until there were more; the "
                "value is when that was appended. Microseconds since the epoch, UTC.",
                **_TIME_TEXT,
            ),
            SINCE_HEADER: _header(
                "The trade was brought from a lake, or from files that were exported, which have all that were traded "
                "since then. Microseconds since the epoch, UTC.",
                **_TIME_TEXT,
            ),
        },
        examples=("trade",),
        others_write=True,
    ),
    ChannelSpec(
        topic=CANDLES,
        title="Candles",
        summary="Closed candles. One comes when its time is over, again after a crash, and with another content and a "
        "greater `version` when a late trade corrects it. A flat candle is of a time without trades, after one with "
        "trades: its prices are the close before it, and it has no trade ids.",
        message=CANDLE,
        which_counts=WhichCounts(("symbol", "timeframe", "open_time"), ("version",)),
        headers={
            HISTORY_HEADER: _header(
                "The candle was made of files, of a time before all that was read live. The value is the number of "
                "that load.",
                pattern="^[0-9]+$",
            ),
        },
        examples=("candle", "flat"),
    ),
    ChannelSpec(
        topic=CANDLES_LIVE,
        title="Candles in progress",
        summary="What a window that has not closed holds so far, at most every 250 ms of each symbol and timeframe. "
        "It is for watching: leave out what is not greater than the `version` of the same candle in `candles`. "
        "Nothing is promised of the order of the two topics. The key is not the symbol, and the partition is that of "
        "the symbol.",
        message=CANDLE,
        which_counts=WhichCounts(("symbol", "timeframe", "open_time"), ("version",)),
        key={
            "type": "string",
            "description": "Symbol, slash, timeframe: `bitflyer:BTC_JPY/1m`. A market may hold slashes, so the last "
            "one parts them.",
            "pattern": SYMBOL["pattern"].removesuffix("$") + "/([1-9][0-9]{0,4}[smh]|1d)$",
        },
        examples=("in progress",),
    ),
    ChannelSpec(
        topic=FEED_GAPS,
        title="Feed gaps",
        summary="When trades were not received as they happened. A gap comes again whenever it changes. A candle is "
        "complete if its `close_time` is not after the symbol's `complete_until` and it overlaps no gap that is `open` "
        "or `lost`.",
        message=FEED_GAP,
        which_counts=WhichCounts(("symbol", "from_time"), ("updated_at",)),
        examples=("repaired",),
    ),
    ChannelSpec(
        topic=FEED_STATUS_TOPIC,
        title="Feed status",
        summary="How the feed of each symbol is, at least every 10 s. One whose `updated_at` is older than 60 s is "
        "stale: how the feed is now is not known; what it says of the past stays true.",
        message=FEED_STATUS,
        which_counts=WhichCounts(("symbol",), of_equals="last"),
        examples=("down",),
    ),
    ChannelSpec(
        topic=INSTRUMENTS,
        title="Instruments",
        summary="What venues say of their markets: one when something of it has changed.",
        message=INSTRUMENT,
        which_counts=WhichCounts(("symbol",), of_equals="last"),
        examples=("trading",),
    ),
    ChannelSpec(
        topic=SIGNALS,
        title="Signals",
        summary="What strategies want. If what counts is `superseded`, there is no signal at that candle. The position "
        "that a strategy wants in a symbol is that of its last signal by `close_time` that is not superseded. Written "
        "in transactions: read what is committed.",
        message=SIGNAL,
        which_counts=WhichCounts(
            ("strategy", "symbol", "timeframe", "open_time"),
            ("version", "revision", "status"),  # by its characters `superseded` is greater than `active`
        ),
        examples=("long",),
    ),
    ChannelSpec(
        topic=TRADES_LATE,
        title="Late trades",
        summary="Quotes records of `trades` that came too late for the correction horizon: they are in no candle, "
        "unless they are put there by hand.",
        message=None,
        which_counts=WhichCounts(("ashi.partition", "ashi.offset")),
        key=_LETTER_KEY,
        headers={
            **_LETTER_HEADERS,
            "ashi.partition": _header(
                "The partition in `trades`. Letters of old versions have the source only.", pattern="^[0-9]+$"
            ),
            "ashi.offset": _header("The offset in `trades`, likewise.", pattern="^[0-9]+$"),
        },
        required_headers=_LETTER_REQUIRED,
        letter={
            "content-type": "application/octet-stream",
            "ashi.reason": "traded_at 1723161119870000 is beyond the correction horizon of 2m: trades of "
            "bitflyer:BTC_JPY had already reached 1723161302001000",
            "ashi.source": "trades/3/1789",
            "ashi.failed_at": _QUOTED_AT,
            "ashi.consumer": "ashi-aggregate",
            "ashi.partition": "3",
            "ashi.offset": "1789",
        },
    ),
    ChannelSpec(
        topic=TRADES_DEAD,
        title="What are no trades",
        summary="Quotes frames and executions of an exchange, and records of `trades`, that are no trades.",
        message=None,
        which_counts=WhichCounts(),
        key=_LETTER_KEY,
        headers={
            **_LETTER_HEADERS,
            "ashi.venue": _header(
                "Of what comes from an exchange, its name; the key is the symbol, or the venue where no symbol could "
                "be read.",
                maxLength=1_000,
            ),
        },
        required_headers=_LETTER_REQUIRED,
        letter={
            "content-type": "application/octet-stream",
            "ashi.reason": "the schema 'ashi.trade.v2' is not known here: this version of Ashi reads 'ashi.trade.v1'",
            "ashi.source": "trades/3/1790",
            "ashi.failed_at": _QUOTED_AT,
            "ashi.consumer": "ashi-aggregate",
        },
    ),
    ChannelSpec(
        topic=CANDLES_DEAD,
        title="What are no candles, gaps or statuses",
        summary="Quotes records of `candles`, `feed.gaps` and `feed.status` that are no such messages, and rows that "
        "the store refuses.",
        message=None,
        which_counts=WhichCounts(),
        key=_LETTER_KEY,
        headers=_LETTER_HEADERS,
        required_headers=_LETTER_REQUIRED,
        letter={
            "content-type": "application/octet-stream",
            "ashi.reason": "the schema 'ashi.candle.v2' is not known here: this version of Ashi reads 'ashi.candle.v1'",
            "ashi.source": "candles/3/1791",
            "ashi.failed_at": _QUOTED_AT,
            "ashi.consumer": "ashi-sink-sqlite",
        },
    ),
)
"""All of them, in the order of `docs/messages.md`."""
