"""Whether a symbol's trades are being received, and when they were not. Topics `feed.status` and `feed.gaps`.

Candles are a function of the trades that were published. Whether those are all of them is said here, by one rule, see
`is_complete`: a candle lacks no trade if its `close_time` is not after `complete_until` and it overlaps no gap that is
`open` or `lost`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.json_messages import decode_json
from ashi.contracts.symbol import split_symbol
from ashi.contracts.trade import check_time

if TYPE_CHECKING:
    from collections.abc import Iterable

FEED_STATUS_SCHEMA: Final = "ashi.feed-status.v1"
FEED_GAP_SCHEMA: Final = "ashi.feed-gap.v1"

FeedState: TypeAlias = Literal["connected", "silent", "repairing", "down"]
GapState: TypeAlias = Literal["open", "repaired", "lost"]

HEARTBEAT_US: Final = 10_000_000
"""A worker says how its feeds are at least so often, µs, also while nothing trades and nothing changes."""
STALE_AFTER_US: Final = 60_000_000
"""A status whose `updated_at` is older than this, µs, comes from a worker that has died or cannot reach Kafka: how the
feed is now is not known. What it says of the past, `complete_until` too, stays true."""


class FeedWorker(msgspec.Struct, frozen=True, gc=False):
    """One of the ingest workers that read a symbol. Several at once publish each trade several times; it counts once.

    Attributes:
        id: of the process: it is another one after each start.
        state: how the symbol's feed is in that worker.
        heartbeat: when that worker said so last, µs. It counts until `STALE_AFTER_US` later.
        redundant: it was told that it is one of several on purpose.
        complete_until: up to when that worker has checked that it has published all trades, µs, but for those in gaps.

    """

    id: str
    state: FeedState
    heartbeat: int
    redundant: bool = False
    complete_until: int | None = None


REFUSED_REASON: Final = "a record of topic trades was refused"
"""How the reason of a gap begins that the aggregate stage tells of a record it refuses: no feed has a part in it."""


class FeedStatus(msgspec.Struct, frozen=True, gc=False):
    """How the feed of a symbol is. The topic is compacted: its last message of a symbol is how it is now.

    Attributes:
        symbol: `venue:MARKET`; the Kafka key.
        state: `connected`: trades are published as they come. `silent`: connected, and nothing has come for
            suspiciously long. `repairing`: connected, and what was missed is being fetched. `down`: not connected.
        since: when it came into this state, µs.
        reason: why it is not connected; or, connected, what is wrong all the same: a clock that is off, another worker
            that reads the symbol unasked. None when all is well.
        last_trade_id: of the last trade published; None when there was none.
        last_traded_at: its time of trade, µs.
        updated_at: when this message was made, µs. One comes at least every `HEARTBEAT_US`; see `STALE_AFTER_US`.
        complete_until: all trades before this time, µs, have been published, but for those in gaps that are `open` or
            `lost`. It is advanced only by what was checked: ids that follow each other, or a comparison with the
            venue's REST interface, so it stands still while nothing can be checked. None: nothing was checked yet.
        workers: those that read the symbol, by `id`; `state` is the best of theirs. Empty in messages of old versions.

    """

    symbol: str
    state: FeedState
    since: int
    reason: str | None
    last_trade_id: str | None
    last_traded_at: int | None
    updated_at: int
    complete_until: int | None = None
    workers: tuple[FeedWorker, ...] = ()


class FeedGap(msgspec.Struct, frozen=True, gc=False):
    """A stretch of time in which trades of a symbol were not received as they happened.

    Attributes:
        symbol: `venue:MARKET`; the Kafka key.
        from_time: from when on trades may be missing, µs. With `symbol` it names the gap: of two messages with the
            same, the one with the greater `updated_at` counts.
        to_time: until when, µs, exclusive; None while the feed has not come back.
        state: `open`: not repaired yet. `repaired`: what was missed has been published. `lost`: some or all of it
            could not be got so far; it is asked for again as long as the venue may have it, unless `final`.
        trades_recovered: how many trades were published for it.
        reason: what broke the feed, or why it could not be repaired.
        updated_at: when this message was made, µs.
        final: `lost`, and not asked for: the venue itself has said that it does not have these trades, or they are from
            before all that was read live, and in no file that was loaded, or they have been published and came too late
            for their candles, until `ashi rebuild` (`ashi.contracts.late_gaps`).

    """

    symbol: str
    from_time: int
    to_time: int | None
    state: GapState
    trades_recovered: int
    reason: str
    updated_at: int
    final: bool = False


_Message = TypeVar("_Message", FeedStatus, FeedGap)

_encoder = msgspec.json.Encoder()
_status_decoder = msgspec.json.Decoder(FeedStatus)
_gap_decoder = msgspec.json.Decoder(FeedGap)


def encode_feed(message: FeedStatus | FeedGap) -> bytes:
    """JSON as in the contract."""
    return _encoder.encode(message)


def decode_feed_status(message: bytes) -> FeedStatus:
    """Read and check a message of `feed.status`. Raises ContractError that names the field and what is wrong."""
    status = _decode(_status_decoder, message, "a feed status")
    check_time("since", status.since)
    if status.complete_until is not None:
        check_time("complete_until", status.complete_until)
    for worker in status.workers:
        check_time("heartbeat", worker.heartbeat)
        if worker.complete_until is not None:
            check_time("complete_until", worker.complete_until)
    return status


def decode_feed_gap(message: bytes) -> FeedGap:
    """Read and check a message of `feed.gaps`. Raises ContractError that names the field and what is wrong."""
    gap = _decode(_gap_decoder, message, "a feed gap")
    check_time("from_time", gap.from_time)
    if gap.to_time is not None:
        check_time("to_time", gap.to_time)
        if gap.to_time < gap.from_time:
            raise ContractError(f"to_time {gap.to_time} is before from_time {gap.from_time}")
    if gap.trades_recovered < 0:
        raise ContractError(f"trades_recovered {gap.trades_recovered} is negative")
    if gap.final and gap.state != "lost":
        raise ContractError(f"final is said of a gap that is {gap.state}, not lost")
    return gap


def overlaps(gap: FeedGap, start: int, end: int) -> bool:
    """Whether trades of the time from `start` (inclusive) to `end` (exclusive), µs, may be missing for the gap.

    A gap without `to_time` goes on for ever, and each gap covers at least its `from_time`: one between two trades of
    the same microsecond is no longer than that and has lost trades all the same.
    """
    return gap.from_time < end and (gap.to_time is None or max(gap.to_time, gap.from_time + 1) > start)


def is_complete(open_time: int, close_time: int, complete_until: int | None, gaps: Iterable[FeedGap]) -> bool:
    """Whether no trade is missing from the window [open_time, close_time), µs, of a symbol.

    `complete_until`: of the symbol's last status. `gaps`: of the symbol, of each its last message, in whatever state;
    at least those that overlap the window. False says that it is not known: trades may be missing, or not.
    """
    if complete_until is None or close_time > complete_until:
        return False
    return not any(gap.state != "repaired" and overlaps(gap, open_time, close_time) for gap in gaps)


def is_stale(status: FeedStatus, now_us: int) -> bool:
    """Whether the status is too old, by a clock in µs, to say how the feed is now: see `STALE_AFTER_US`."""
    return now_us - status.updated_at > STALE_AFTER_US


def _decode(decoder: msgspec.json.Decoder[_Message], message: bytes, what: str) -> _Message:
    decoded = decode_json(decoder, message, what)
    split_symbol(decoded.symbol)
    check_time("updated_at", decoded.updated_at)
    return decoded
