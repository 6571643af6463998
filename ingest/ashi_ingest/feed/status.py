"""Reporting whether each symbol's trades are being received: topics `feed.status` and `feed.gaps`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from ashi.contracts.errors import ContractError
from ashi.contracts.feed import (
    FEED_GAP_SCHEMA,
    FEED_STATUS_SCHEMA,
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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from ashi.contracts.feed import FeedState, GapState
    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_ingest.publish.publisher import Publisher

SAME_STATE_US: Final = 10_000_000
"""While the state of a symbol stays, its status is sent again at most so often, µs."""

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

    state: FeedState | None = None
    since: int = 0
    reason: str | None = None
    trade_id: str | None = None
    traded_at: int | None = None
    complete_until: int | None = None
    sent: FeedStatus | None = None
    gaps: dict[int, FeedGap] = field(default_factory=dict)
    gaps_updated_at: int = 0

    def go_on_from(self, reported: ReportedFeed) -> None:
        """Go on from what was reported before a restart."""
        status, gaps = reported
        if status is not None:
            self.trade_id, self.traded_at = status.last_trade_id, status.last_traded_at
            self.complete_until = status.complete_until
            self.gaps_updated_at = status.updated_at
        for gap in gaps:
            self.gaps[gap.from_time] = gap
            self.gaps_updated_at = max(self.gaps_updated_at, gap.updated_at)

    def update_gap(self, now_us: int) -> int:
        """The time of a message about a gap: now, but after all before it, also when our clock was set back."""
        self.gaps_updated_at = max(now_us, self.gaps_updated_at + 1)
        return self.gaps_updated_at


class FeedReporter:
    """Reports what changes, when `flush` is called: of many changes between two calls, what they come to."""

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
        self._changed: set[str] = set()
        self._gaps: dict[tuple[str, int], FeedGap] = {}  # not sent yet
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
        self._changed.add(symbol)

    def on_trade(self, symbol: str, trade: Trade) -> None:
        """A trade has been handed to the publisher. Of several at once, the last is enough."""
        report = self._report(symbol)
        report.trade_id, report.traded_at = trade.trade_id, trade.traded_at
        self._changed.add(symbol)

    def set_complete_until(self, symbol: str, until_us: int) -> None:
        """All trades of a symbol before this time have been published, but for those in gaps. It never goes back."""
        report = self._report(symbol)
        if report.complete_until is None or report.complete_until < until_us:
            report.complete_until = until_us
            self._changed.add(symbol)

    def open_gap(self, symbol: str, from_time: int, reason: str) -> None:
        """From this time on (µs) trades may be missing. Part of a gap that is open already if that began before."""
        report = self._report(symbol)
        if all(begun > from_time for begun in report.gaps):
            gap = FeedGap(symbol, from_time, None, "open", 0, reason, report.update_gap(self._now_us()))
            report.gaps[from_time] = self._gaps[symbol, from_time] = gap

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
            self._gaps[symbol, begun] = FeedGap(symbol, begun, until, state, recovered, reason, updated_at)
            recovered = 0

    async def flush(self) -> None:
        """Send what has changed. A status of which only the last trade has changed waits until it is 10 s old.

        Does not wait for acknowledgments. What it had not sent when it was cancelled, the next call sends.

        Raises:
            BrokerError: Kafka did not take an earlier message.

        """
        async with self._flushing:
            for key, gap in list(self._gaps.items()):
                await self._publisher.announce(FEED_GAPS, gap.symbol, encode_feed(gap), FEED_GAP_SCHEMA)
                if self._gaps.get(key) is gap:
                    del self._gaps[key]
            for symbol in list(self._changed):
                report = self._reports[symbol]
                status = self._status(symbol, report)
                if status is None or _same(status, report.sent):
                    self._changed.discard(symbol)
                elif _due(status, report.sent):
                    await self._publisher.announce(FEED_STATUS, symbol, encode_feed(status), FEED_STATUS_SCHEMA)
                    report.sent = status  # the next call sees whether it has changed meanwhile

    def _report(self, symbol: str) -> _Report:
        report = self._reports.get(symbol)
        if report is None:
            report = self._reports[symbol] = _Report()
        return report

    def _status(self, symbol: str, report: _Report) -> FeedStatus | None:
        if report.state is None:
            return None
        return FeedStatus(
            symbol,
            report.state,
            report.since,
            report.reason,
            report.trade_id,
            report.traded_at,
            self._now_us(),
            report.complete_until,
        )


def _same(status: FeedStatus, sent: FeedStatus | None) -> bool:
    return (
        sent is not None
        and _same_state(status, sent)
        and (status.last_trade_id, status.complete_until) == (sent.last_trade_id, sent.complete_until)
    )


def _same_state(status: FeedStatus, sent: FeedStatus | None) -> bool:
    return sent is not None and (status.state, status.since, status.reason) == (sent.state, sent.since, sent.reason)


def _due(status: FeedStatus, sent: FeedStatus | None) -> bool:
    # Either way, because the clock may have been set back.
    return sent is None or not _same_state(status, sent) or abs(status.updated_at - sent.updated_at) >= SAME_STATE_US
