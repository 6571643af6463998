"""Reporting whether each symbol's trades are being received: topics `feed.status` and `feed.gaps`."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from ashi.contracts.feed import (
    FEED_GAP_SCHEMA,
    FEED_STATUS_SCHEMA,
    FeedGap,
    FeedStatus,
    FeedWorker,
    encode_feed,
)
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.wall_clock import now_us
from ashi_ingest.feed.reporting.heartbeats import Heartbeats, phase_of
from ashi_ingest.feed.reporting.partner_gaps import GapsInTopic, OwnFeed
from ashi_ingest.feed.reporting.partners import OtherWorkers, later_of, new_identity, rivalry
from ashi_ingest.feed.reporting.report import SymbolReport
from ashi_ingest.feed.reporting.sharing import SharingWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ashi.contracts.feed import FeedState, GapState
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.reporting.partners import WorkerIdentity
    from ashi_ingest.feed.reporting.reported import ReportedFeed
    from ashi_ingest.publish.publisher import Publisher

_log = get_logger(__name__)


class FeedReporter:
    """Reports how feeds are, when `flush` is called: of many changes between two calls, what they come to.

    A status goes out when its state changes, and at least every `HEARTBEAT_US`. What may be said when: see
    `ashi_ingest.feed.reporting.claims`.

    Attributes:
        on_left_behind: is told the symbol of a gap that a worker has left open for ever, and from when until when, µs,
            trades may be missing for it.

    """

    def __init__(
        self,
        publisher: Publisher,
        venue: str,
        reported: Mapping[str, ReportedFeed] | None = None,
        *,
        identity: WorkerIdentity | None = None,
        on_state: Callable[[str, FeedState], None] = lambda _symbol, _state: None,
        now_us: Callable[[], int] = now_us,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`reported`, by `read_feed`: its last trades are kept, and gaps that are open there are open here.

        `identity`: of this worker, among all that read its symbols; None for a new one. `on_state` is told each state
        of a symbol that is set.
        """
        self._publisher = publisher
        self._venue = venue
        self._on_state = on_state
        self._now_us = now_us
        self._identity = identity or new_identity()
        self._others = OtherWorkers(self._identity, monotonic_s)
        self._topic_gaps = GapsInTopic()
        self._sharing = SharingWatch(venue, self._identity)
        self._reports: dict[str, SymbolReport] = {}
        self._claimed: set[str] = set()
        self._with_gaps: dict[str, None] = {}
        self._changed: dict[str, None] = {}  # symbols of which something else may have to be said
        self._heartbeats = Heartbeats()
        self.on_left_behind: Callable[[str, int, int], None] = lambda _symbol, _from_us, _until_us: None
        self._deserted: set[str] = set()  # symbols whose other workers have ended, and may have left gaps
        self._taken_over: set[tuple[str, int]] = set()
        self._warning: str | None = None
        self._newest_traded_at = 0
        self._flushing = asyncio.Lock()
        for symbol, before in (reported or {}).items():
            self._report(symbol).go_on_from(before)
            if before.status is not None:
                self._others.inherit(before.status, now_us())

    def go_on_from(self, symbol: str, reported: ReportedFeed) -> None:
        """A symbol comes later than at the start: keep its last trade, and the gaps that are open. By `read_feed`."""
        self._report(symbol).go_on_from(reported)
        if reported.status is not None:
            self._others.inherit(reported.status, self._now_us())

    def set_state(self, symbol: str, state: FeedState, reason: str | None) -> None:
        """The feed of a symbol is in this state now; `reason` says why it is not connected."""
        self._on_state(symbol, state)
        report = self._report(symbol)
        if report.state != state:
            if report.state is not None:
                metrics.feed_symbols.labels(self._venue, report.state).dec()
            metrics.feed_symbols.labels(self._venue, state).inc()
            report.state, report.since = state, self._now_us()
        report.reason = reason
        self._share(symbol, report, self._now_us())

    def set_warning(self, warning: str | None) -> None:
        """What is wrong with all symbols although they may be connected; None: nothing any more."""
        if warning == self._warning:
            return
        self._warning = warning
        for symbol, report in self._reports.items():
            self._share(symbol, report, self._now_us())

    def on_trade(self, symbol: str, trade: Trade) -> None:
        """A trade has been handed to the publisher. Of several at once, the last is enough."""
        report = self._report(symbol)
        report.trade_id, report.traded_at = trade.trade_id, trade.traded_at
        self._newest_traded_at = max(self._newest_traded_at, trade.traded_at)

    def set_complete_until(self, symbol: str, until_us: int) -> None:
        """All trades of a symbol before this time have been published, but for those in gaps. It never goes back."""
        if self._report(symbol).complete.claim(until_us, self._publisher.mark):
            self._claimed.add(symbol)

    def open_since(self, symbol: str) -> int | None:
        """Since when a gap of a symbol is open, µs; None without one."""
        return min(self._report(symbol).gaps, default=None)

    def open_gap(self, symbol: str, from_time: int, reason: str) -> None:
        """From this time on (µs) trades may be missing. Part of a gap that has no end yet, if that began before."""
        report = self._report(symbol)
        if all(begun > from_time for begun in report.endless()):
            while from_time in report.gaps:  # a gap is named by its beginning
                from_time += 1
            self._say_open(symbol, from_time, None, reason)

    def endless_gaps(self, symbol: str) -> list[int]:
        """Where its gaps begin that have no end yet, the oldest first."""
        return self._report(symbol).endless()

    def bound_gap(self, symbol: str, from_time: int, to_time: int, reason: str) -> None:
        """The feed is back, and what was missed is not there yet: the gap that began then ends here, and stays open.

        It is opened if it is not. Times in µs.
        """
        self._say_open(symbol, from_time, max(to_time, from_time), reason)

    def is_within_gap(self, symbol: str, from_time: int, to_time: int) -> bool:
        """Whether one of its open gaps covers all of this time, µs."""
        gaps = self._report(symbol).gaps.values()
        return any(gap.from_time <= from_time and (gap.to_time is None or gap.to_time >= to_time) for gap in gaps)

    def is_within_lost_gap(self, symbol: str, from_time: int, to_time: int) -> bool:
        """Whether a lost gap of it that is not final covers all of this time, µs."""
        gaps = self._report(symbol).lost.values()
        return any(gap.from_time <= from_time and (gap.to_time or 0) >= to_time for gap in gaps if not gap.final)

    def bounded_gaps(self, symbol: str) -> list[FeedGap]:
        """Those that are open and have an end, the oldest first: the feed went on though something was missing."""
        return [gap for _, gap in sorted(self._report(symbol).gaps.items()) if gap.to_time is not None]

    def lost_gaps(self, symbol: str) -> list[int]:
        """Where its lost gaps begin that are not final, the oldest first; of many, the last 100.

        Without the time before it was first read.
        """
        lost = sorted(self._report(symbol).lost.items())
        return [begun for begun, gap in lost if not gap.final and begun > EARLIEST_US]

    def lost_gap(self, symbol: str, from_time: int) -> FeedGap | None:
        """The gap that begins there, as long as it is lost and not final."""
        gap = self._report(symbol).lost.get(from_time)
        return None if gap is None or gap.final else gap

    def has_gap(self, symbol: str, from_time: int) -> bool:
        """Whether a gap of it, open or lost, begins there: a gap is named by its beginning."""
        report = self._report(symbol)
        return from_time in report.gaps or from_time in report.lost

    def unbound_gap(self, symbol: str, from_time: int, reason: str) -> None:
        """The feed is gone again before anything came: a gap that had an end has none."""
        self._say_open(symbol, from_time, None, reason)

    def end_gap(
        self,
        symbol: str,
        to_time: int,
        state: GapState,
        recovered: int,
        reason: str,
        *,
        from_time: int | None = None,
        final: bool = False,
    ) -> None:
        """End the gaps of a symbol without an end, or the one that began at `from_time`, whatever was said of it.

        With several, `recovered` is said of the oldest. Without any, and without a `from_time`, it is said to begin
        with the last trade. Times in µs. `final`: `lost` for good.
        """
        report = self._report(symbol)
        if from_time is None and not report.endless():
            from_time = to_time if report.traded_at is None else min(report.traded_at, to_time)
        for begun in report.endless() if from_time is None else [from_time]:
            report.gaps.pop(begun, None)
            # Times of trades are the venue's, so a gap may seem to end before it began.
            until, updated_at = max(to_time, begun), report.update_gap(self._now_us())
            gap = FeedGap(symbol, begun, until, state, recovered, reason, updated_at, final)
            report.remember_lost(gap)
            self._put(symbol, report, gap)
            recovered = 0

    # What other workers say of the same symbols.

    def reads(self, key: bytes) -> bool:
        """Whether a record of this key is about one of its symbols."""
        return key.decode(errors="replace") in self._reports

    def take_status(self, status: FeedStatus) -> None:
        """A message of `feed.status` was read, one of ours or of another worker."""
        if self._others.take(status):
            report = self._report(status.symbol)
            self._share(status.symbol, report, self._now_us())
            if report.shared is not None and report.shared.state == status.state:
                report.shared_since = min(report.shared_since, status.since)

    def take_gap(self, gap: FeedGap) -> None:
        """A message of `feed.gaps` was read, one of ours or of another worker."""
        report = self._report(gap.symbol)
        report.gaps_updated_at = max(report.gaps_updated_at, gap.updated_at)
        self._topic_gaps.take(gap)

    def to_settle(self) -> list[str]:
        """Symbols whose gaps may have been repaired by other workers, when `feed.gaps` has been read to its end."""
        symbols = {*self._others.symbols(), *self._topic_gaps.symbols(), *self._deserted}
        return [symbol for symbol in symbols if self._reports[symbol].gap_messages.are_acknowledged]

    def settle(self, symbols: Iterable[str]) -> None:
        """Look for gaps that other workers have repaired. All of `feed.gaps` has been read since `to_settle`."""
        for symbol in symbols:
            report = self._reports[symbol]
            if not report.gap_messages.are_acknowledged:
                continue
            unrepaired = [*report.gaps.values(), *report.lost.values()]
            since = report.since if report.state == "connected" else None
            own = OwnFeed(unrepaired, since, report.complete.until, report.told)
            for gap in self._topic_gaps.repaired_by_others(symbol, own, self._others):
                _log.info("another worker has published what was missed", symbol=symbol, since=gap.from_time)
                self.end_gap(symbol, gap.to_time, "repaired", 0, gap.reason, from_time=gap.from_time)
            for from_us, until_us in self._topic_gaps.left_behind(symbol, own, self._others):
                if (symbol, from_us) not in self._taken_over:  # of many lost ones not all are remembered
                    self._taken_over.add((symbol, from_us))
                    self.on_left_behind(symbol, from_us, until_us)
            left = self._topic_gaps.left_with_an_end(symbol, own)
            if all((symbol, gap.from_time) in self._taken_over for gap in left):
                self._deserted.discard(symbol)

    def look_for_others(self) -> None:
        """Forget those that are gone, say which are there, and when the last trade came. To be called every second."""
        if self._newest_traded_at:
            metrics.last_trade_timestamp_seconds.labels(self._venue).set(self._newest_traded_at / 1e6)
        for symbol in self._others.expire():
            if not self._others.others(symbol):
                self._deserted.add(symbol)
            self._share(symbol, self._reports[symbol], self._now_us())
        self._sharing.look(self._others)

    def _share(self, symbol: str, report: SymbolReport, now_us: int) -> None:
        """What is to be said of a symbol has changed: by us, or by others."""
        if report.state is None:
            return
        self._changed[symbol] = None
        identity = self._identity
        own = FeedWorker(identity.id, report.state, now_us, identity.redundant, report.complete.until)
        reason = "; ".join(part for part in (self._warning, report.reason) if part is not None) or None
        shared = self._others.shared(symbol, own, reason)
        rivals = self._others.rivals(symbol)
        if rivals and shared.state == "connected":
            text = rivalry(rivals, self._identity)
            shared = shared._replace(reason=text if shared.reason in {None, text} else f"{text}; {shared.reason}")
        if report.shared is None and len(shared.workers) > 1 and report.before is not None:
            goes_on = report.before.state == shared.state
            report.shared_since = report.before.since if goes_on else now_us
        elif report.shared is None or report.shared.state != shared.state:
            report.shared_since = now_us
        report.shared = shared

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
            self._changed |= dict.fromkeys(self._heartbeats.passed(now_us))
            for symbol in list(self._changed):
                report = self._reports[symbol]
                if report.is_due(now_us):
                    await self._send_status(symbol, report)
                else:
                    del self._changed[symbol]

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

    async def _send_status(self, symbol: str, report: SymbolReport) -> None:
        now_us = self._now_us()
        self._share(symbol, report, now_us)
        assert report.shared is not None  # noqa: S101
        own_state = report.state
        status = FeedStatus(
            symbol,
            report.shared.state,
            report.shared_since,
            report.shared.reason,
            report.trade_id,
            report.traded_at,
            now_us,
            report.complete.until,
            report.shared.workers,
        )
        others = self._others.last(symbol)
        if others is not None:
            status = later_of(status, others)
        await self._publisher.announce(FEED_STATUS, symbol, encode_feed(status), FEED_STATUS_SCHEMA)
        report.sent, report.sent_state = status, own_state  # the next call sees whether it has changed meanwhile

    def _say_open(self, symbol: str, from_time: int, to_time: int | None, reason: str) -> None:
        report = self._report(symbol)
        gap = FeedGap(symbol, from_time, to_time, "open", 0, reason, report.update_gap(self._now_us()))
        report.gaps[from_time] = gap
        self._put(symbol, report, gap)

    def _put(self, symbol: str, report: SymbolReport, gap: FeedGap) -> None:
        report.gap_messages.put(gap, self._publisher.mark)
        report.told[gap.from_time] = gap.updated_at
        self._with_gaps[symbol] = None

    def _report(self, symbol: str) -> SymbolReport:
        report = self._reports.get(symbol)
        if report is None:
            report = self._reports[symbol] = SymbolReport(phase_of(symbol))
            self._heartbeats.add(symbol)
        return report
