"""Reporting whether each symbol's trades are being received: topics `feed.status` and `feed.gaps`."""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from ashi.contracts.errors import ContractError
from ashi.contracts.feed import (
    FEED_GAP_SCHEMA,
    FEED_STATUS_SCHEMA,
    HEARTBEAT_US,
    FeedGap,
    FeedStatus,
    decode_feed_gap,
    decode_feed_status,
    encode_feed,
)
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS
from ashi.runtime.kafka.records import read_topic
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.feed.claims import CompleteUntil, GapMessages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from ashi.contracts.feed import FeedState, GapState
    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_ingest.publish.publisher import Publisher

BEAT_US: Final = HEARTBEAT_US * 9 // 10
"""So often a status is sent while nothing changes, µs: sooner than it is promised, as sending takes its time. Each
symbol has its own moment within that time, so that the heartbeats of a thousand symbols do not come at once."""

_Message = TypeVar("_Message", FeedStatus, FeedGap)

_log = get_logger(__name__)


class ReportedFeed(NamedTuple):
    """What the topics say of a symbol: its last status, and the gaps that are still open, the oldest first."""

    status: FeedStatus | None
    gaps: tuple[FeedGap, ...]


async def read_feed(settings: Settings, symbols: Iterable[str]) -> dict[str, ReportedFeed]:
    """What `feed.status` and `feed.gaps` say of each symbol, up to their end as of the call.

    A message that breaks the contract is passed over with a warning in the log.

    Raises:
        BrokerError: Kafka cannot be reached or lacks a topic.

    """
    statuses: dict[str, FeedStatus] = {}
    gaps: dict[tuple[str, int], FeedGap] = {}

    async def read_statuses() -> None:
        async for status in _read(settings, FEED_STATUS, decode_feed_status):
            statuses[status.symbol] = status

    async def read_gaps() -> None:
        async for gap in _read(settings, FEED_GAPS, decode_feed_gap):
            before = gaps.get((gap.symbol, gap.from_time))
            if before is None or gap.updated_at >= before.updated_at:
                gaps[gap.symbol, gap.from_time] = gap

    await asyncio.gather(read_statuses(), read_gaps())
    opened: dict[str, list[FeedGap]] = {}
    for _, gap in sorted(gaps.items()):
        if gap.state == "open":
            opened.setdefault(gap.symbol, []).append(gap)
    return {symbol: ReportedFeed(statuses.get(symbol), tuple(opened.get(symbol, ()))) for symbol in symbols}


async def _read(settings: Settings, topic: str, decode: Callable[[bytes], _Message]) -> AsyncIterator[_Message]:
    async for record in read_topic(settings, topic):
        if record.value is None:  # what compaction is told to forget
            continue
        try:
            message = decode(record.value)
        except ContractError as error:
            _log.warning(
                "message is not readable, passed over",
                source=f"{topic}/{record.partition}/{record.offset}",
                reason=str(error),
            )
        else:
            yield message


@dataclass(slots=True)
class _Report:
    """How the feed of a symbol is, the status that was sent last, and its open gaps by their `from_time`."""

    phase_us: int
    state: FeedState | None = None
    since: int = 0
    reason: str | None = None
    trade_id: str | None = None
    traded_at: int | None = None
    complete: CompleteUntil = field(default_factory=CompleteUntil)
    sent: FeedStatus | None = None
    gaps: dict[int, FeedGap] = field(default_factory=dict)
    gap_messages: GapMessages = field(default_factory=GapMessages)
    gaps_updated_at: int = 0

    def go_on_from(self, reported: ReportedFeed) -> None:
        """Go on from what was reported before a restart."""
        status, gaps = reported
        if status is not None:
            self.trade_id, self.traded_at = status.last_trade_id, status.last_traded_at
            self.complete = CompleteUntil(status.complete_until)
            self.gaps_updated_at = status.updated_at
        for gap in gaps:
            self.gaps[gap.from_time] = gap
            self.gaps_updated_at = max(self.gaps_updated_at, gap.updated_at)

    def is_due(self, now_us: int) -> bool:
        """Whether its status is to be sent: it has changed, or its moment has come, also after a clock was set back."""
        sent = self.sent
        return (
            sent is None
            or (self.state, self.since, self.reason) != (sent.state, sent.since, sent.reason)
            or (now_us + self.phase_us) // BEAT_US != (sent.updated_at + self.phase_us) // BEAT_US
        )

    def update_gap(self, now_us: int) -> int:
        """The time of a message about a gap: now, but after all before it, also when our clock was set back."""
        self.gaps_updated_at = max(now_us, self.gaps_updated_at + 1)
        return self.gaps_updated_at


class FeedReporter:
    """Reports how feeds are, when `flush` is called: of many changes between two calls, what they come to.

    A status goes out when its state changes, and at least every `HEARTBEAT_US`. What may be said when: see
    `ashi_ingest.feed.claims`.
    """

    def __init__(
        self,
        publisher: Publisher,
        venue: str,
        reported: Mapping[str, ReportedFeed] | None = None,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`reported`, by `read_feed`: its last trades are kept, and gaps that are open there are open here."""
        self._publisher = publisher
        self._venue = venue
        self._now_us = now_us
        self._reports: dict[str, _Report] = {}
        self._claimed: set[str] = set()
        self._with_gaps: dict[str, None] = {}
        self._flushing = asyncio.Lock()
        for symbol, before in (reported or {}).items():
            self._report(symbol).go_on_from(before)

    def set_state(self, symbol: str, state: FeedState, reason: str | None) -> None:
        """The feed of a symbol is in this state now; `reason` says why it is not connected."""
        report = self._report(symbol)
        if report.state != state:
            if report.state is not None:
                metrics.feed_symbols.labels(self._venue, report.state).dec()
            metrics.feed_symbols.labels(self._venue, state).inc()
            report.state, report.since = state, self._now_us()
        report.reason = reason

    def on_trade(self, symbol: str, trade: Trade) -> None:
        """A trade has been handed to the publisher. Of several at once, the last is enough."""
        report = self._report(symbol)
        report.trade_id, report.traded_at = trade.trade_id, trade.traded_at

    def set_complete_until(self, symbol: str, until_us: int) -> None:
        """All trades of a symbol before this time have been published, but for those in gaps. It never goes back."""
        if self._report(symbol).complete.claim(until_us, self._publisher.mark):
            self._claimed.add(symbol)

    def open_since(self, symbol: str) -> int | None:
        """Since when a gap of a symbol is open, µs; None without one."""
        return min(self._report(symbol).gaps, default=None)

    def open_gap(self, symbol: str, from_time: int, reason: str) -> None:
        """From this time on (µs) trades may be missing. Part of a gap that is open already if that began before."""
        report = self._report(symbol)
        if all(begun > from_time for begun in report.gaps):
            gap = FeedGap(symbol, from_time, None, "open", 0, reason, report.update_gap(self._now_us()))
            report.gaps[from_time] = gap
            self._put(symbol, report, gap)

    def end_gap(
        self,
        symbol: str,
        to_time: int,
        state: GapState,
        recovered: int,
        reason: str,
        *,
        from_time: int | None = None,
    ) -> None:
        """End the open gaps of a symbol, or the one that began at `from_time`; one that is not open is told whole.

        With several, `recovered` is said of the oldest. Without any, and without a `from_time`, it is said to begin
        with the last trade. Times in µs.
        """
        report = self._report(symbol)
        if from_time is None and not report.gaps:
            from_time = to_time if report.traded_at is None else min(report.traded_at, to_time)
        for begun in sorted(report.gaps) if from_time is None else [from_time]:
            report.gaps.pop(begun, None)
            # Times of trades are the venue's, so a gap may seem to end before it began.
            until, updated_at = max(to_time, begun), report.update_gap(self._now_us())
            self._put(symbol, report, FeedGap(symbol, begun, until, state, recovered, reason, updated_at))
            recovered = 0

    async def flush(self) -> None:
        """Send what has changed and may be said, and the heartbeats that are due.

        Does not wait for acknowledgments. What it had not sent when it was cancelled, the next call sends.

        Raises:
            BrokerError: Kafka did not take an earlier message.

        """
        async with self._flushing:
            await self._send_gaps()
            self._settle_claims()
            now_us = self._now_us()
            for symbol, report in list(self._reports.items()):
                if report.state is not None and report.is_due(now_us):
                    await self._send_status(symbol, report)

    async def close(self) -> None:
        """Send all there is to say, when nothing more will happen, and wait for the acknowledgments it takes.

        Raises:
            BrokerError: Kafka did not take a message.

        """
        await self._publisher.flush()
        await self.flush()
        await self._publisher.flush()
        async with self._flushing:
            self._settle_claims()
            for symbol, report in list(self._reports.items()):
                if report.sent is not None and report.sent.complete_until != report.complete.until:
                    await self._send_status(symbol, report)
        await self._publisher.flush()

    async def _send_gaps(self) -> None:
        for symbol in list(self._with_gaps):
            messages = self._reports[symbol].gap_messages
            for gap in messages.sendable(partial(self._publisher.is_acknowledged, symbol)):
                messages.sending()
                try:
                    await self._publisher.announce(
                        FEED_GAPS, symbol, encode_feed(gap), FEED_GAP_SCHEMA, messages.acknowledged
                    )
                except asyncio.CancelledError:
                    messages.acknowledged()
                    raise
                messages.sent(gap)
            if messages.is_empty:
                del self._with_gaps[symbol]

    def _settle_claims(self) -> None:
        """Look which claims may be said now: no gap of the symbol may be unknown to readers."""
        for symbol in list(self._claimed):
            report = self._reports[symbol]
            if report.gap_messages.are_acknowledged:
                report.complete.settle(partial(self._publisher.is_acknowledged, symbol))
                if report.complete.is_settled:
                    self._claimed.discard(symbol)

    async def _send_status(self, symbol: str, report: _Report) -> None:
        assert report.state is not None  # noqa: S101
        status = FeedStatus(
            symbol,
            report.state,
            report.since,
            report.reason,
            report.trade_id,
            report.traded_at,
            self._now_us(),
            report.complete.until,
        )
        await self._publisher.announce(FEED_STATUS, symbol, encode_feed(status), FEED_STATUS_SCHEMA)
        report.sent = status  # the next call sees whether it has changed meanwhile

    def _put(self, symbol: str, report: _Report, gap: FeedGap) -> None:
        report.gap_messages.put(gap, self._publisher.mark)
        self._with_gaps[symbol] = None

    def _report(self, symbol: str) -> _Report:
        report = self._reports.get(symbol)
        if report is None:
            report = self._reports[symbol] = _Report(zlib.crc32(symbol.encode()) % BEAT_US)
        return report
