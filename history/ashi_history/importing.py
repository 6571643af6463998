"""`ashi history import`: what was exported into topic `trades` of a Kafka that does not have it.

Each symbol's trades in the order of their times and each once, so that none is late. What the topic has of them already
is compared trade by trade, so an import that was killed goes on where it was, and one that is done publishes nothing.
What the source lacked is told in `feed.gaps` before any of the trades.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ashi.contracts.errors import ContractError, StateError, UsageError
from ashi.contracts.feed import FEED_GAP_SCHEMA, FeedGap, encode_feed
from ashi.contracts.records import SINCE_HEADER, trade_in
from ashi.contracts.timeframe import format_time
from ashi.contracts.topics import FEED_GAPS, TRADES
from ashi.contracts.trade import EARLIEST_US, TRADE_SCHEMA, encode_trade
from ashi.runtime import wall_clock
from ashi.runtime.kafka.cluster.offsets import begin_offsets, end_offsets
from ashi.runtime.kafka.cluster.topics import partition_counts, require_topics
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_between
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.kafka.producing.record_batches import RecordBatches
from ashi_history.export_sources import place_of
from ashi_history.exported import exports_in
from ashi_history.telling import Told
from ashi_ingest.feed.reporting.reported import read_gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade
    from ashi.runtime.kafka.producing.dead_letters import Headers
    from ashi.runtime.settings import Settings
    from ashi_history.exported import Export

BATCH: Final = 5_000
NOT_EXPORTED: Final = "from before what `ashi history import` has brought here"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to publish: the exports of these symbols, of all if empty, that a directory has."""

    directory: Path
    symbols: Sequence[str] = ()


def run_import(settings: Settings, options: ImportOptions, tell: Callable[[str], None]) -> int:
    """Publish them; gives the exit status.

    Raises UsageError for a directory that has no such exports, or not all files of one, StateError where the topic has
    trades that these would be late after, RecordingError where a file can be read no further, BrokerError.
    """
    with sole(options.directory):
        exports = exports_in(options.directory, options.symbols)
        asyncio.run(_import(settings, exports, tell))
    return 0


@contextmanager
def sole(directory: Path) -> Iterator[None]:
    """While nobody else imports what a directory has, or exports to it. Raises UsageError."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another `ashi history import` or `export` is at work in {directory}: wait for it, as what two "
                "publish at once is late"
            ) from None
        yield
    finally:
        os.close(lock)


async def _import(settings: Settings, exports: Sequence[Export], tell: Callable[[str], None]) -> None:
    await require_topics(settings, [TRADES, FEED_GAPS])
    partitions = (await partition_counts(settings))[TRADES]
    homes = {export.symbol: partition_of(export.symbol.encode(), partitions) for export in exports}
    told = Told("importing", sum(export.size for export in exports), tell)
    continued = {export.symbol: Continuation(export, told.add) for export in exports}
    await _compare(settings, continued, set(homes.values()))
    for each in continued.values():
        each.check(kafka_name(settings, TRADES))
    producer = make_producer(settings)
    await producer.start()
    batches = RecordBatches(producer, settings)
    try:
        known = {(gap.symbol, gap.from_time): gap for gap in await read_gaps(settings)}
        for each in continued.values():
            for gap in gaps_of(each.export, each.before_us, known, wall_clock.now_us()):
                await producer.send(
                    FEED_GAPS, encode_feed(gap), gap.symbol.encode(), headers=message_headers(FEED_GAP_SCHEMA)
                )
        await producer.flush()
        for symbol, home in homes.items():
            # The first record of a partition tells for all of its symbols.
            of_home = [each.since_us or 0 for each in exports if homes[each.symbol] == home]
            headers = _headers(max(of_home))
            key, sent = symbol.encode(), 0
            rest = continued[symbol].rest()
            while trades := list(islice(rest, BATCH)):
                records = [(key, encode_trade(trade), headers) for trade in trades]
                acknowledged = await batches.send(TRADES, home, records)
                sent += len(records)
            if sent:
                await acknowledged
            there = continued[symbol].there
            had = f"; {there:,} were there" if there else ""
            tell(f"{symbol}: {sent:,} trades published to {kafka_name(settings, TRADES)}{had}")
    finally:
        batches.close()
        await producer.stop()


def _headers(since_us: int) -> Headers:
    headers = message_headers(TRADE_SCHEMA)
    if since_us:
        headers.append((SINCE_HEADER, str(since_us).encode()))
    return headers


async def _compare(settings: Settings, continued: dict[str, Continuation], partitions: Collection[int]) -> None:
    """Take what the topic has of the symbols. Raises BrokerError, RecordingError."""
    begin, end = await begin_offsets(settings, TRADES), await end_offsets(settings, TRADES)
    keys = {symbol.encode() for symbol in continued}
    places = {partition: begin[partition] for partition in partitions}
    async for _, records in read_between(settings, TRADES, places, end):
        for record in records:
            if record.key not in keys:
                continue
            try:
                trade = trade_in(record)
            except ContractError:
                continue
            continued[trade.symbol].take(trade)


class Continuation:
    """An export beside what the topic has of its symbol: which of its trades is the next one.

    Attributes:
        there: how many of its trades, from the first one on, the topic has.
        before_us: the time of the newest trade in the topic from before them, µs; None: there is none.

    """

    def __init__(self, export: Export, on_read: Callable[[int], None] = lambda _: None) -> None:
        self.export = export
        self.there = 0
        self.before_us: int | None = None
        self._trades = export.trades(on_read)
        self._next: Trade | None = next(self._trades, None)
        self._last: Trade | None = None
        self._other: Trade | None = None

    def take(self, trade: Trade) -> None:
        """The topic has this one next."""
        if self._next is not None and place_of(trade) == place_of(self._next):
            self.there += 1
            self._last, self._next = self._next, next(self._trades, None)
        elif self._last is None:
            self.before_us = max(self.before_us or 0, trade.traded_at)
        elif place_of(trade) > place_of(self._last) and (
            self._other is None or trade.traded_at > self._other.traded_at
        ):
            self._other = trade

    def check(self, topic: str) -> None:
        """Raises StateError where what is left may not be published, as it would be late or there twice."""
        if self._next is None:
            return
        newest_us = max(self.before_us or 0, 0 if self._other is None else self._other.traded_at)
        if newest_us >= self._next.traded_at:
            raise StateError(
                f"{topic} has trades of {self.export.symbol} up to {format_time(newest_us)} UTC that were not "
                f"imported, and the next to import is of {format_time(self._next.traded_at)}: it would be late. "
                "Nothing was published. Import before `ashi ingest` begins; what is older than live candles goes "
                "through `ashi history load`"
            )

    def rest(self) -> Iterator[Trade]:
        """Those that the topic does not have."""
        return iter(()) if self._next is None else chain([self._next], self._trades)


def gaps_of(
    export: Export, before_us: int | None, known: Mapping[tuple[str, int], FeedGap], now_us: int
) -> Iterable[FeedGap]:
    """What the export lacks, as `feed.gaps` is to tell it, but for what is told as far (`known`). Pure; times in µs.

    `before_us`: when the topic's last trade from before it was made.
    """
    symbol = export.symbol
    found: dict[int, FeedGap] = {}
    if export.since_us is not None:
        begun = EARLIEST_US if before_us is None else before_us
        found[begun] = FeedGap(symbol, begun, max(export.since_us, begun), "lost", 0, NOT_EXPORTED, now_us)
    for short in export.shorts:
        begun = short.from_us
        while begun in found:  # a gap is named by its beginning; rather too much is called lost than too little
            begun -= 1
        found[begun] = FeedGap(symbol, begun, short.to_us, "lost", 0, short.reason, now_us, final=short.final)
    news = []
    for begun, gap in sorted(found.items()):
        told = known.get((symbol, begun))
        if told is None:
            news.append(gap)
        elif _ends_later(gap, told):
            news.append(replace(gap, updated_at=max(now_us, told.updated_at + 1)))
    return news


def _ends_later(gap: FeedGap, told: FeedGap) -> bool:
    """Whether what is known does not reach as far: the gap had no end yet when an export before was made."""
    return told.to_time is not None and gap.to_time is not None and gap.to_time > told.to_time
