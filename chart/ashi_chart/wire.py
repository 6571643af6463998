"""What goes over the websocket, as docs/chart.md says it: messages to a page, and what a page asks. Pure.

Messages are bytes of JSON. Bars come encoded, as each is encoded once, whoever gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.feed import is_stale
from ashi.contracts.json_messages import plain_fields
from ashi.contracts.late_gaps import is_late_gap

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.contracts.instrument import Instrument
    from ashi.contracts.signal import Signal

PROTOCOL: Final = 1
"""Of the messages; another number where one that there is means something else."""
MOST_BARS: Final = 20_000
"""So many bars of a series, at most, does a page hold and ask for at once."""
MOST_OLDER: Final = 2_000
"""So many bars are in one answer of `/api/bars`, at most."""
MOST_BYTES_ASKED: Final = 4_096
"""A longer message of a page is none of ours, and ends the connection."""

KafkaState: TypeAlias = Literal["ok", "lagging", "down"]

_SIGNAL_FIELDS: Final = (
    "strategy", "timeframe", "open_time", "close_time", "version", "revision", "target", "strength", "price", "reason",
    "status",
)  # fmt: skip

_encode = msgspec.json.Encoder().encode


class AskSeries(msgspec.Struct, tag_field="op", tag="series", frozen=True):
    """A page wants a series from now on, and no longer the one before it: the newest `bars` of it first."""

    symbol: Annotated[str, msgspec.Meta(max_length=100)]
    timeframe: Annotated[str, msgspec.Meta(max_length=10)]
    bars: Annotated[int, msgspec.Meta(ge=1, le=MOST_BARS)]


class AskMarkets(msgspec.Struct, tag_field="op", tag="markets", frozen=True):
    """A page wants the rows of all markets, and then those that change."""


class LeaveMarkets(msgspec.Struct, tag_field="op", tag="markets-off", frozen=True):
    """A page wants no more of them."""


class Ping(msgspec.Struct, tag_field="op", tag="ping", frozen=True):
    """A page wants to know how things are, now."""


Asked: TypeAlias = AskSeries | AskMarkets | LeaveMarkets | Ping

_asked = msgspec.json.Decoder(Asked)


def decode_asked(text: str | bytes) -> Asked:
    """What a page asks. Raises ContractError that says what is wrong, in words for whoever wrote the page."""
    try:
        asked: Asked = _asked.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ContractError(f"not understood: {error}; see docs/chart.md") from None
    return asked


def hello(timeframes: Sequence[str], now_us: int, server: str) -> bytes:
    """The first message of a connection. `server`: another one after each start of the process."""
    return _encode({"t": "hello", "protocol": PROTOCOL, "timeframes": timeframes, "now": now_us, "server": server})


def snapshot(
    symbol: str,
    timeframe: str,
    bars: Iterable[bytes],
    *,
    more: bool,
    gaps: Iterable[FeedGap],
    signals: Iterable[Signal],
    instrument: Instrument | None,
    feed: dict[str, Any],
) -> bytes:
    """All that a page needs to draw a series. `bars`: oldest first; `more`: there are older ones."""
    rest = {
        "more": more,
        "gaps": [gap_fields(gap) for gap in gaps],
        "signals": [signal_fields(signal) for signal in signals],
        "instrument": None if instrument is None else plain_fields(instrument),
        "feed": feed,
    }
    return _of_series("snapshot", symbol, timeframe, bars)[:-1] + b"," + _encode(rest)[1:]


def changed_bars(symbol: str, timeframe: str, bars: Iterable[bytes]) -> bytes:
    """Bars that have changed, in the order of their open times."""
    return _of_series("bars", symbol, timeframe, bars)


def page_of_bars(symbol: str, timeframe: str, bars: Iterable[bytes], *, more: bool, gaps: Iterable[FeedGap]) -> bytes:
    """The answer of `/api/bars`."""
    rest = _encode({"more": more, "gaps": [gap_fields(gap) for gap in gaps]})
    return _with_bars({"symbol": symbol, "timeframe": timeframe}, bars)[:-1] + b"," + rest[1:]


def gaps_message(symbol: str, gaps: Iterable[FeedGap]) -> bytes:
    """Gaps that are new or have changed; one is known by its `from`."""
    return _encode({"t": "gaps", "symbol": symbol, "gaps": [gap_fields(gap) for gap in gaps]})


def signals_message(symbol: str, signals: Iterable[Signal]) -> bytes:
    """Signals that are new, or taken back (`superseded`); one is known by `strategy`, `timeframe` and `open_time`."""
    return _encode({"t": "signals", "symbol": symbol, "signals": [signal_fields(signal) for signal in signals]})


def feed_message(symbol: str, feed: dict[str, Any]) -> bytes:
    """How the feed of a symbol is now."""
    return _encode({"t": "feed", "symbol": symbol, "feed": feed})


def instrument_message(instrument: Instrument) -> bytes:
    """What the venue says of a market now."""
    return _encode({"t": "instrument", "symbol": instrument.symbol, "instrument": plain_fields(instrument)})


def markets_message(rows: Iterable[Any], *, is_all: bool) -> bytes:
    """Rows of markets: those that have changed, or all."""
    return _encode({"t": "markets", "rows": list(rows), "all": is_all})


def state_message(kafka: KafkaState, lag_s: float, now_us: int) -> bytes:
    """How the server itself is; also what tells a page that the connection lives."""
    return _encode({"t": "state", "kafka": kafka, "lag_s": round(lag_s, 1), "now": now_us})


def error_message(about: str, message: str) -> bytes:
    """What cannot be done, or not yet; `about` is `series`, `markets` or `message`."""
    return _encode({"t": "error", "about": about, "message": message})


def feed_fields(status: FeedStatus | None, now_us: int) -> dict[str, Any]:
    """How a feed is: `unknown` where nothing was ever said of it, `stale` where that is too long ago."""
    if status is None:
        return {"state": "unknown", "since": None, "reason": None, "complete_until": None, "updated_at": None,
                "last_traded_at": None}  # fmt: skip
    return {
        "state": "stale" if is_stale(status, now_us) else status.state,
        "since": status.since,
        "reason": status.reason,
        "complete_until": status.complete_until,
        "updated_at": status.updated_at,
        "last_traded_at": status.last_traded_at,
    }


def gap_fields(gap: FeedGap) -> dict[str, Any]:
    """A gap as pages get it."""
    return {
        "from": gap.from_time,
        "to": gap.to_time,
        "state": gap.state,
        "final": gap.final and not is_late_gap(gap),
        "trades_recovered": gap.trades_recovered,
        "reason": gap.reason,
    }


def signal_fields(signal: Signal) -> dict[str, Any]:
    """A signal as pages get it: what it is about, and what it says."""
    fields = plain_fields(signal)
    return {name: fields[name] for name in _SIGNAL_FIELDS}


def _of_series(kind: str, symbol: str, timeframe: str, bars: Iterable[bytes]) -> bytes:
    return _with_bars({"t": kind, "symbol": symbol, "timeframe": timeframe}, bars)


def _with_bars(fields: dict[str, Any], bars: Iterable[bytes]) -> bytes:
    return _encode(fields)[:-1] + b',"bars":[' + b",".join(bars) + b"]}"
