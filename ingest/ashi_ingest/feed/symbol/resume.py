"""Resume points: the trades published last, at the end of topic `trades`; a worker goes on after them.

The log is read backwards, in windows that grow, until every symbol of the partition has enough trades. A symbol that
trades rarely beside busy ones may not be among the last 500,000 records; then `feed.status` tells when it traded last,
and the log is read there.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import ContractError
from ashi.contracts.records import trade_in
from ashi.contracts.topics import TRADES
from ashi.contracts.trade import Trade
from ashi.runtime.kafka.cluster.ends import stable_ends
from ashi.runtime.kafka.connections.clients import assigned_consumer, partition_of
from ashi.runtime.kafka.consuming.records import fetch_to
from ashi.runtime.logs import get_logger
from ashi_ingest.feed.symbol.sequencer import RESUME_TRADES
from ashi_ingest.publish.publisher import LATE_HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from ashi.contracts.feed import FeedStatus
    from ashi.runtime.settings import Settings
    from ashi_ingest.feed.reporting.reported import ReportedFeed

FIRST_WINDOW: Final = 2_000
GROWTH: Final = 4
MAX_RECORDS: Final = 500_000
"""Offsets of a partition that are looked at from its end, about 5 s of reading; a symbol that is not among them is
looked for by the time of its last trade."""

BEFORE_MS: Final = 10_000
"""Clocks of the venue and of Kafka differ by less than this, so reading begins so long before the last trade."""
AFTER_MS: Final = 30_000
"""How long after the trade that `feed.status` names one is looked for that it does not name yet: it lags by 10 s."""
MAX_RANGE: Final = 100_000
"""Offsets that are looked at for the trade that `feed.status` names."""

MAX_UNCOMPARED: Final = 5_000
"""Trades of a symbol that are read when it is not known whether one is missing between them."""

_POLL_MS: Final = 200

_log = get_logger(__name__)


async def read_resume_points(
    settings: Settings,
    symbols: Iterable[str],
    reported: Mapping[str, ReportedFeed] | None = None,
    *,
    since: Mapping[str, int] | None = None,
    late: dict[str, list[Trade]] | None = None,
    unread: set[str] | None = None,
) -> dict[str, list[Trade]]:
    """The last trades of each symbol in topic `trades`, at most 200, in the order of the log; [] where there are none.

    Records that are no trades, or of other symbols, are passed over. `reported` is what `read_feed` has found: with it
    a symbol is found however long ago it traded. A symbol whose partition has changed, because the topic was given
    more of them, is not found.

    `late` is filled with those, by symbol, that were published among them and late: nothing goes on after them, but
    they are there.

    `since`: back to this time of trade, µs, all of a symbol are wanted, at most 5,000: see `CheckedSymbol.begin`.
    `unread` is filled with the symbols of which older trades than were found may stand, or have stood, in the topic.

    Raises:
        BrokerError: Kafka cannot be reached or lacks the topic.

    """
    began = time.monotonic()
    wanted = dict.fromkeys(symbols)
    if not wanted:
        return {}
    async with assigned_consumer(settings, TRADES) as (consumer, partitions):
        by_partition: dict[Any, list[str]] = {}
        for symbol in wanted:
            by_partition.setdefault(partitions[partition_of(symbol.encode(), len(partitions))], []).append(symbol)
        needed = list(by_partition)
        consumer.pause(*partitions)  # each is resumed where it is to be read
        begins, ends = await consumer.beginning_offsets(needed), await stable_ends(consumer, needed)
        searches = [
            _Search(partition, by_partition[partition], begins[partition], ends[partition], since or {})
            for partition in needed
        ]
        await _read_backwards(consumer, searches)
        found = {symbol: trades for search in searches for symbol, trades in search.found.items()}
        for search in searches:
            for symbol in search.symbols:
                status = reported[symbol].status if reported is not None and symbol in reported else None
                if not found[symbol] and status is not None and status.last_trade_id is not None:
                    found[symbol] = await _read_at(consumer, search, status)
        if unread is not None:
            unread.update(symbol for search in searches if not search.has_read_all for symbol in search.symbols)
        if late is not None:
            late.update((symbol, trades) for search in searches for symbol, trades in search.late.items())
    count = sum(map(len, found.values()))
    _log.info("read what was published last", trades=count, seconds=round(time.monotonic() - began, 3))
    return found


class _Search:
    """What is looked for in one partition. The window being read is from offset `lower` up to, without it, `upper`."""

    def __init__(self, partition: Any, symbols: Sequence[str], begin: int, end: int, since: Mapping[str, int]) -> None:
        self.partition = partition
        self.symbols = symbols
        self.found: dict[str, list[Trade]] = {symbol: [] for symbol in symbols}
        self.late: dict[str, list[Trade]] = {}
        self.lower = self.upper = end
        self._begin = begin
        self._limit = max(begin, end - MAX_RECORDS)
        self._since = since
        self._size = FIRST_WINDOW
        self._window: dict[bytes, deque[Trade]] = {}

    @property
    def has_read_all(self) -> bool:
        """Whether every record that the partition ever had has been read."""
        return self.lower <= 0 == self._begin

    def next_window(self) -> bool:
        """Go on to the window before this one. False when nothing is missing, or the bound or the beginning reached."""
        for key, window in self._window.items():
            self.found[key.decode()][:0] = window
        missing = {symbol: count for symbol in self.symbols if (count := self._missing(symbol)) > 0}
        if not missing or self.lower <= self._limit:
            return False
        self._window = {symbol.encode(): deque(maxlen=count) for symbol, count in missing.items()}
        self.upper = self.lower
        self.lower = max(self._limit, self.upper - self._size)
        self._size *= GROWTH
        return True

    def _missing(self, symbol: str) -> int:
        """How many trades of a symbol are still wanted."""
        trades, since = self.found[symbol], self._since.get(symbol)
        if since is None or (trades and trades[0].traded_at < since):
            return RESUME_TRADES - len(trades)
        return MAX_UNCOMPARED - len(trades)

    def take(self, records: Iterable[Any]) -> None:
        """Keep the trades of the window that are looked for."""
        for record in records:
            if record.offset >= self.upper:
                break
            window = self._window.get(record.key)
            if window is None or (trade := trade_of(record)) is None:
                continue
            if is_late(record):
                self.late.setdefault(trade.symbol, []).append(trade)
            else:
                window.append(trade)


async def _read_backwards(consumer: Any, searches: Sequence[_Search]) -> None:
    unread = {search.partition: search for search in searches}
    while True:
        for search in list(unread.values()):
            # The position, not the records, tells the end of a window: the last ones may be markers of transactions.
            if search.upper == search.lower or await consumer.position(search.partition) >= search.upper:
                if search.next_window():
                    consumer.seek(search.partition, search.lower)
                    consumer.resume(search.partition)
                else:
                    consumer.pause(search.partition)
                    del unread[search.partition]
        if not unread:
            return
        for partition, records in (await consumer.getmany(*unread, timeout_ms=_POLL_MS)).items():
            unread[partition].take(records)


async def _read_at(consumer: Any, search: _Search, status: FeedStatus) -> list[Trade]:
    """The trades of a symbol around the last one that `feed.status` names; [] when that one is not there."""
    trades: deque[Trade] = deque(maxlen=RESUME_TRADES)
    until_ms: int | None = None
    async with aclosing(_read_from(consumer, search, (status.last_traded_at or 0) // 1_000 - BEFORE_MS)) as records:
        async for record in records:
            if until_ms is not None and record.timestamp > until_ms:
                break
            if record.key == status.symbol.encode() and not is_late(record) and (trade := trade_of(record)) is not None:
                trades.append(trade)
                if trade.trade_id == status.last_trade_id:
                    until_ms = record.timestamp + AFTER_MS
    if until_ms is None:
        _log.warning(
            "the last trade that feed.status names is not in topic trades near its time, so what came after it is not "
            "fetched",
            symbol=status.symbol,
            trade_id=status.last_trade_id,
            traded_at=status.last_traded_at,
        )
        return []
    return list(trades)


async def _read_from(consumer: Any, search: _Search, time_ms: int) -> AsyncGenerator[Any, None]:
    """The records appended from a time on, ms, up to those that have been looked at: at most 100,000."""
    partition = search.partition
    entry = (await consumer.offsets_for_times({partition: max(time_ms, 0)})).get(partition)
    if entry is None:
        return
    end = min(entry.offset + MAX_RANGE, search.lower)
    consumer.seek(partition, entry.offset)
    consumer.resume(partition)
    try:
        async with aclosing(fetch_to(consumer, partition, end)) as records:
            async for record in records:
                if record.offset < end:
                    yield record
    finally:
        consumer.pause(partition)


def is_late(record: Any) -> bool:
    """Whether later trades of the symbol stand before it: it was missed. Nothing goes on after it."""
    return any(name == LATE_HEADER for name, _ in record.headers)


def trade_of(record: Any) -> Trade | None:
    """The trade of a record, if it is one and stands under its own symbol."""
    try:
        return trade_in(record)
    except ContractError:
        return None
