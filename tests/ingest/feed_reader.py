"""A reader of `trades`, `feed.status` and `feed.gaps` who knows what was really traded, and so when it is told wrong.

It goes by the one rule that readers are given (`ashi.contracts.feed.is_complete`): at no moment may a window that the
rule calls complete lack a trade. It looks whenever a record comes that could say more than before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ashi.contracts.feed import FeedGap, FeedStatus, decode_feed_gap, decode_feed_status, is_complete
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES
from ashi.contracts.trade import Trade, decode_trade
from ashi_simulator import TrueTrade
from ashi_simulator.executions import TruthReader

BACKDATED_US = 1_000_000
"""A trade that the venue stamps so much earlier than it happened belongs to a time that is over for a reader."""
REFUSED_US = 60_000_000
"""A trade that is stamped so much later than it happened is none by the contract; it is missing when it happened."""
CLOCK_TOLERANCE_US = 1_000_000
MOST_KEPT = 20
ALLOWED_WASTE = 0.05


@dataclass
class ReadSymbol:
    """What the reader knows of one symbol, and the truth.

    Attributes:
        truth: all that was traded so far, by the id of the trade, and when it happened, µs.
        unpublished: the part of it that is not in topic `trades`.
        published: how often each id is there.
        gaps: of each the last message, by `from_time`.
        first_at: when the first trade of all happened, µs.

    """

    reader: TruthReader
    truth: dict[str, tuple[TrueTrade, int]] = field(default_factory=dict)
    unpublished: dict[str, tuple[TrueTrade, int]] = field(default_factory=dict)
    published: Counter[str] = field(default_factory=Counter)
    wrong: list[Trade] = field(default_factory=list)
    status: FeedStatus | None = None
    gaps: dict[int, FeedGap] = field(default_factory=dict)
    gap_messages: list[FeedGap] = field(default_factory=list)
    unseen_repairs: list[FeedGap] = field(default_factory=list)
    first_at: int | None = None
    writer: list[str] = field(default_factory=list)

    def follow(self) -> None:
        """Learn what was traded since the last time."""
        for trade, happened_us in self.reader.new():
            self.first_at = trade.traded_at if self.first_at is None else self.first_at
            self.truth[trade.trade_id] = trade, happened_us
            if not self.published[trade.trade_id]:
                self.unpublished[trade.trade_id] = trade, happened_us

    @property
    def complete_until(self) -> int | None:
        return None if self.status is None else self.status.complete_until

    def later_gaps(self) -> list[FeedGap]:
        """Those after the opening ones, which are told because nothing was known yet."""
        return [gap for _, gap in sorted(self.gaps.items()) if not self.is_opening(gap)]

    def open_gaps(self) -> list[FeedGap]:
        """Those of them that are not said to be over."""
        return [gap for gap in self.later_gaps() if gap.state == "open"]

    def is_opening(self, gap: FeedGap) -> bool:
        """Whether it began before the first trade of all."""
        return self.first_at is None or gap.from_time <= self.first_at

    def missing(self) -> list[TrueTrade]:
        """What was traded and is not in topic `trades`."""
        return [trade for trade, _ in self.unpublished.values()]

    def wasted_us(self) -> int:
        """The time in gaps that are not repaired though no trade is missing there."""
        return sum(
            (gap.to_time or gap.from_time) - gap.from_time
            for gap in self.later_gaps()
            if gap.state != "repaired"
            and not any(
                gap.from_time <= at < max(gap.to_time or at + 1, gap.from_time + 1)
                for trade, happened_us in self.unpublished.values()
                for at in (trade.traded_at, happened_us)
            )
        )


class FeedReader:
    """Takes records of the three topics in the order in which they could be read.

    Attributes:
        symbols: what is known, by symbol.
        misled: sentences, one for each time that the rule called a window complete that lacked a trade.

    """

    def __init__(self, readers: Mapping[str, TruthReader], *, looks_at_once: bool = True) -> None:
        """`readers`: of the truth, by symbol.

        `looks_at_once`: records come in the order of their acknowledgment, so whoever has read the last one may look.
        Else whoever hands them over says when: after status, then gaps, then trades have been read to their ends.
        """
        self._looks_at_once = looks_at_once
        self.symbols = {symbol: ReadSymbol(reader) for symbol, reader in readers.items()}
        self.others: defaultdict[str, list[Any]] = defaultdict(list)
        self.misled: list[str] = []
        self.records: list[tuple[int, FeedStatus | FeedGap]] = []
        self._known_misled: set[tuple[str, str]] = set()

    def add_symbol(self, symbol: str, reader: TruthReader) -> None:
        """A market that was listed later."""
        self.symbols.setdefault(symbol, ReadSymbol(reader))

    def on_record(self, topic: str, value: bytes | None, now_us: int) -> None:
        """A record of whatever topic has been read at a time, µs."""
        if value is None:
            return
        match topic:
            case _ if topic == TRADES:
                self._on_trade(decode_trade(value))
            case _ if topic == FEED_STATUS:
                status = decode_feed_status(value)
                self.records.append((now_us, status))
                self._on_status(status, now_us)
            case _ if topic == FEED_GAPS:
                gap = decode_feed_gap(value)
                self.records.append((now_us, gap))
                self._on_gap(gap, now_us)
            case _:
                self.others[topic].append(value)

    def _on_trade(self, trade: Trade) -> None:
        symbol = self.symbols.get(trade.symbol)
        if symbol is None:
            self.others[TRADES].append(trade)
            return
        symbol.published[trade.trade_id] += 1
        symbol.follow()
        symbol.unpublished.pop(trade.trade_id, None)
        known = symbol.truth.get(trade.trade_id)
        if known is None or not _same(trade, known[0]):
            symbol.wrong.append(trade)

    def _on_status(self, status: FeedStatus, now_us: int) -> None:
        symbol = self.symbols.get(status.symbol)
        if symbol is None:
            self.others[FEED_STATUS].append(status)
            return
        before = symbol.complete_until
        # What one that was killed still had on its way may come between a successor's start and its first message.
        writer = [worker.id for worker in status.workers if worker.heartbeat == status.updated_at]
        goes_on, symbol.writer = writer == symbol.writer, writer
        if goes_on and before is not None and (status.complete_until is None or status.complete_until < before):
            self.misled.append(f"{status.symbol}: complete_until went back from {before} to {status.complete_until}")
        if (status.complete_until or 0) > status.updated_at + CLOCK_TOLERANCE_US:
            self.misled.append(f"{status.symbol}: a time that is not over is called complete: {status}")
        symbol.status = status
        if self._looks_at_once:
            self.look(status.symbol, now_us)

    def _on_gap(self, gap: FeedGap, now_us: int) -> None:
        symbol = self.symbols.get(gap.symbol)
        if symbol is None:
            self.others[FEED_GAPS].append(gap)
            return
        symbol.gap_messages.append(gap)
        before = symbol.gaps.get(gap.from_time)
        if before is None or gap.updated_at >= before.updated_at:
            symbol.gaps[gap.from_time] = gap
            symbol.unseen_repairs += [gap] if gap.state == "repaired" else []
        if self._looks_at_once:
            self.look(gap.symbol, now_us)

    def look(self, name: str, now_us: int) -> None:
        """See whether a window is called complete that lacks a trade: the least one around each missing trade."""
        symbol = self.symbols[name]
        symbol.follow()
        for trade, happened_us in symbol.unpublished.values():
            at = missing_at(trade, happened_us)
            if (
                happened_us - at < BACKDATED_US
                and is_complete(at, at + 1, symbol.complete_until, symbol.gaps.values())
                and (name, trade.trade_id) not in self._known_misled
            ):
                self._known_misled.add((name, trade.trade_id))
                if len(self.misled) < MOST_KEPT:
                    self.misled.append(
                        f"{name}: at {_short(now_us)} trade {trade.trade_id} of {_short(at)} is missing, "
                        f"and complete_until is {_short(symbol.complete_until)}, gaps "
                        f"{[(_short(gap.from_time), _short(gap.to_time), gap.state) for gap in symbol.gaps.values()]}"
                    )
        self._look_at_repairs(name, symbol, now_us)

    def _look_at_repairs(self, name: str, symbol: ReadSymbol, now_us: int) -> None:
        """A gap that is called repaired lacks nothing, but for what another gap tells of."""
        repaired, symbol.unseen_repairs = symbol.unseen_repairs, []
        for gap in repaired:
            for trade, happened_us in symbol.unpublished.values():
                at = trade.traded_at
                if (
                    gap.from_time <= at < (gap.to_time or 0)
                    and happened_us - at < BACKDATED_US
                    and happened_us < gap.updated_at
                    and is_complete(at, at + 1, at + 1, symbol.gaps.values())
                ):
                    self._known_misled.add((name, trade.trade_id))
                    self.misled.append(
                        f"{name}: at {_short(now_us)} the gap from {_short(gap.from_time)} to {_short(gap.to_time)} is "
                        f"called repaired, and trade {trade.trade_id} of {_short(at)} is missing"
                    )

    def look_at_all(self, now_us: int) -> None:
        """See of all symbols whether the reader is told wrong."""
        for name in self.symbols:
            self.look(name, now_us)

    @property
    def misled_trades(self) -> int:
        """How many trades were missing from windows called complete."""
        return len(self._known_misled)

    # What must be so at the end.

    def assert_never_misled(self) -> None:
        assert not self.misled, f"{self.misled_trades} trades; " + "\n".join(self.misled[:5])

    def assert_truth(self, *, missing: Iterable[str] = (), copies: int = 1) -> None:
        """All that was traded is in the topic, each at most so often, and nothing else is; `missing`: of these symbols
        trades may be."""
        allowed = set(missing)
        for name, symbol in self.symbols.items():
            symbol.follow()
            lacking = [] if name in allowed else symbol.missing()
            assert not lacking, f"{name}: {len(lacking)} of {len(symbol.truth)} trades are missing; {lacking[:3]}"
            assert not symbol.wrong, f"{name}: published and never traded so: {symbol.wrong[:3]}"
            often = [(trade_id, count) for trade_id, count in symbol.published.items() if count > copies]
            assert not often, f"{name}: published too often: {often[:3]}"

    def waste(self, lasted_us: int) -> float:
        """The share of the time of all symbols that lies in gaps without a missing trade."""
        return sum(symbol.wasted_us() for symbol in self.symbols.values()) / (lasted_us * len(self.symbols))

    def assert_exact_gaps(self, lasted_us: int) -> None:
        """What is missing is in a gap, and hardly anything else is."""
        assert self.waste(lasted_us) <= ALLOWED_WASTE, {
            name: symbol.later_gaps() for name, symbol in self.symbols.items() if symbol.wasted_us()
        }


def missing_at(trade: TrueTrade, happened_us: int) -> int:
    """The time that lacks a trade that was not published, µs."""
    return happened_us if trade.traded_at - happened_us > REFUSED_US else trade.traded_at


def _same(trade: Trade, true: TrueTrade) -> bool:
    sequences = (trade.sequence, true.sequence)
    if trade.symbol.startswith("gmo:"):  # its place among the others of its millisecond is not known when one was lost
        sequences = (0, 0)
    return (trade.price, trade.size, trade.side, trade.traded_at, sequences[0]) == (
        true.price,
        true.size,
        true.side,
        true.traded_at,
        sequences[1],
    )


def _short(us: int | None) -> str:
    return "-" if us is None else f"{us / 1e6 % 10_000:.3f}"
