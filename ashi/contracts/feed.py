"""Whether a symbol's trades are being received, and when they were not. Topics `feed.status` and `feed.gaps`.

Candles are a function of trades alone. Whoever asks whether a candle is complete joins it with the gaps of its symbol:
one that overlaps a gap which is not `repaired` may lack trades.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.symbol import split_symbol
from ashi.contracts.trade import check_time

FEED_STATUS_SCHEMA: Final = "ashi.feed-status.v1"
FEED_GAP_SCHEMA: Final = "ashi.feed-gap.v1"

FeedState: TypeAlias = Literal["connected", "silent", "repairing", "down"]
GapState: TypeAlias = Literal["open", "repaired", "lost"]


class FeedStatus(msgspec.Struct, frozen=True, gc=False):
    """How the feed of a symbol is. The topic is compacted: its last message of a symbol is how it is now.

    Attributes:
        symbol: `venue:MARKET`; the Kafka key.
        state: `connected`: trades are published as they come. `silent`: connected, and nothing has come for
            suspiciously long. `repairing`: connected, and what was missed is being fetched. `down`: not connected.
        since: when it came into this state, µs.
        reason: why it is not connected; None when it is.
        last_trade_id: of the last trade published; None when there was none.
        last_traded_at: its time of trade, µs.
        updated_at: when this message was made, µs. While the state stays, one comes when the last trade changes, at
            most every 10 s.

    """

    symbol: str
    state: FeedState
    since: int
    reason: str | None
    last_trade_id: str | None
    last_traded_at: int | None
    updated_at: int


class FeedGap(msgspec.Struct, frozen=True, gc=False):
    """A stretch of time in which trades of a symbol were not received as they happened.

    Attributes:
        symbol: `venue:MARKET`; the Kafka key.
        from_time: from when on trades may be missing, µs. With `symbol` it names the gap: of two messages with the
            same, the one with the greater `updated_at` counts.
        to_time: until when, µs, exclusive; None while the feed has not come back.
        state: `open`: not repaired yet. `repaired`: what was missed has been published. `lost`: some or all of it
            could not be got.
        trades_recovered: how many trades were published for it.
        reason: what broke the feed, or why it could not be repaired.
        updated_at: when this message was made, µs.

    """

    symbol: str
    from_time: int
    to_time: int | None
    state: GapState
    trades_recovered: int
    reason: str
    updated_at: int


_Message = TypeVar("_Message", FeedStatus, FeedGap)

_encoder = msgspec.json.Encoder()
_status_decoder = msgspec.json.Decoder(FeedStatus)
_gap_decoder = msgspec.json.Decoder(FeedGap)


def encode_feed(message: FeedStatus | FeedGap) -> bytes:
    """JSON as in the contract."""
    return _encoder.encode(message)


def decode_feed_status(message: bytes) -> FeedStatus:
    """Read and check a message of `feed.status`. Raises ContractError that names the field and what is wrong."""
    status = _decode(_status_decoder, message, "feed status")
    check_time("since", status.since)
    return status


def decode_feed_gap(message: bytes) -> FeedGap:
    """Read and check a message of `feed.gaps`. Raises ContractError that names the field and what is wrong."""
    gap = _decode(_gap_decoder, message, "feed gap")
    check_time("from_time", gap.from_time)
    if gap.to_time is not None:
        check_time("to_time", gap.to_time)
        if gap.to_time < gap.from_time:
            raise ContractError(f"to_time {gap.to_time} is before from_time {gap.from_time}")
    if gap.trades_recovered < 0:
        raise ContractError(f"trades_recovered {gap.trades_recovered} is negative")
    return gap


def _decode(decoder: msgspec.json.Decoder[_Message], message: bytes, what: str) -> _Message:
    try:
        decoded = decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"not a {what}: {error}") from None
    split_symbol(decoded.symbol)
    check_time("updated_at", decoded.updated_at)
    return decoded
