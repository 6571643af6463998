"""Where an export takes trades from: topic `trades`, or a lake. Each symbol's in the order of their times, each once.

With them goes what the source lacks: what it has not any more, what feeds have lost, and what was not checked yet. It
has to be known by whoever reads the trades elsewhere, who would take a hole for a quiet market.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from ashi.contracts.errors import ContractError, StorageError
from ashi.contracts.late_gaps import is_of_late_trades
from ashi.contracts.records import COPY_HEADER, SINCE_HEADER, time_in, trade_in
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES
from ashi.contracts.trade import EARLIEST_US, MAX_AHEAD_US, decode_trade, encode_trade
from ashi.runtime.kafka.cluster.offsets import begin_offsets, end_offsets, offsets_at
from ashi.runtime.kafka.cluster.topics import partition_counts, require_topics
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_between
from ashi.runtime.wall_clock import now_us
from ashi_history.scratch import ScratchDirectory
from ashi_history.telling import Told
from ashi_ingest.feed.reporting.reported import read_feed, read_gaps
from ashi_ingest.history.fetch import Short

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from ashi.contracts.feed import FeedGap
    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_ingest.feed.reporting.reported import ReportedFeed
    from ashi_sinks.lake.query import Snapshot

CELL_US: Final = 600_000_000
"""Of the topic the trades of so much time are sorted at once, and in memory."""
MARGIN_US: Final = 600_000_000
"""A trade is appended to the topic after it was made, but for clocks that differ by less than this."""
RECENT_US: Final = 60_000_000
"""What was repaired or published so shortly before the source is looked at, µs, it may not have yet."""
BEFORE: Final = "the source of `ashi history export` may not have all trades of this time any more"
UNCHECKED: Final = "it was not checked yet, when it was exported, that all trades of this time were there"


def place_of(trade: Trade) -> tuple[int, int, str]:
    """A trade's place in the order in which they are exported."""
    return trade.traded_at, trade.sequence, trade.trade_id


def shorts_of(
    from_us: int, to_us: int, *, whole_from: int, gaps: Iterable[FeedGap], complete_until: int | None, seen_us: int
) -> list[Short]:
    """What a source lacks of the trades of a symbol and a time, by what was said of its feed. Pure; times in µs.

    Rather too much than too little: what was repaired shortly before the source was looked at, at `seen_us`, it may not
    have. `whole_from`: before that it may lack anything. `complete_until`: as in `feed.status`; None: nothing was said,
    and whoever has published the trades answers for them.
    """
    found = [] if whole_from <= from_us else [Short(from_us, min(whole_from, to_us), BEFORE, False, False)]
    for gap in gaps:
        if gap.state == "repaired" and gap.updated_at < seen_us - RECENT_US:
            continue
        if is_of_late_trades(gap):  # they are published, and go to the files in their order
            continue
        until = to_us if gap.to_time is None else max(gap.to_time, gap.from_time + 1)
        begin, end = max(gap.from_time, from_us), min(until, to_us)
        if begin < end:
            found.append(Short(begin, end, gap.reason, gap.final, False))
    if complete_until is not None:
        checked = max(min(complete_until, seen_us - RECENT_US), from_us)
        if checked < to_us:
            found.append(Short(checked, to_us, UNCHECKED, False, False))
    return sorted(found)


class ExportSource(Protocol):
    """Trades of some symbols and a time, as they stood at one moment."""

    where: str
    """In words, for messages."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def symbols(self) -> list[str]:
        """Those that there are trades of."""

    async def shorts(self, symbol: str, from_us: int, to_us: int) -> list[Short]:
        """What is lacking of them, up to `to_us` or the newest trade, as far as is known."""

    def trades(self, symbol: str, from_us: int, to_us: int) -> AsyncIterator[list[Trade]]:
        """They, some at a time, by `place_of`."""


class TopicExport:
    """Of topic `trades`. They stand there as they came, repaired ones after later ones: so they are parted, on disk.

    All partitions are read: a symbol has had another one where the topic was given more of them.
    """

    def __init__(
        self,
        settings: Settings,
        chosen: Collection[str],
        from_us: int,
        to_us: int,
        *,
        directory: Path,
        tell: Callable[[str], None],
    ) -> None:
        """`chosen`: the symbols that are wanted; all of them if there is none. `directory`: where there is room.

        Raises UsageError where it cannot be written to.
        """
        self.where = f"topic {kafka_name(settings, TRADES)}"
        self._settings = settings
        self._keys = {symbol.encode() for symbol in chosen}
        self._from_us = from_us
        self._to_us = to_us
        self._tell = tell
        self._whole_from: dict[str, int] = {}
        self._gaps: list[FeedGap] = []
        self._feeds: dict[str, ReportedFeed] = {}
        self._seen_us = 0
        self._scratch = ScratchDirectory(directory)
        self._cells = Cells(str(self._scratch.path))

    async def __aenter__(self) -> Self:
        """Read the topic up to its end. Raises BrokerError."""
        try:
            await require_topics(self._settings, [TRADES, FEED_GAPS, FEED_STATUS])
            await self._read()
            # After the end of the trades was looked up, as a gap is told before the trades that follow it; and the
            # status before the gaps that it rests on.
            self._feeds = await read_feed(self._settings, self._cells.symbols)
            self._gaps = await read_gaps(self._settings)
        except BaseException:
            self._scratch.remove()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._scratch.remove()

    async def symbols(self) -> list[str]:
        """See `ExportSource`."""
        return self._cells.symbols

    async def shorts(self, symbol: str, from_us: int, to_us: int) -> list[Short]:
        """See `ExportSource`."""
        status = self._feeds[symbol].status
        return shorts_of(
            from_us,
            to_us,
            whole_from=self._whole_from.get(symbol, 0),
            gaps=[gap for gap in self._gaps if gap.symbol == symbol],
            complete_until=None if status is None else status.complete_until or 0,
            seen_us=self._seen_us,
        )

    async def trades(self, symbol: str, from_us: int, to_us: int) -> AsyncIterator[list[Trade]]:
        """See `ExportSource`."""
        for trades in self._cells.of(symbol):
            yield [trade for trade in trades if from_us <= trade.traded_at < to_us]

    async def _read(self) -> None:
        settings = self._settings
        partitions = (await partition_counts(settings))[TRADES]
        self._seen_us = now_us()
        first, end = await begin_offsets(settings, TRADES), await end_offsets(settings, TRADES)
        begin = await offsets_at(settings, TRADES, (self._from_us - MARGIN_US) // 1_000)
        told = Told(f"reading {self.where}", sum(max(end[each] - begin[each], 0) for each in end), self._tell)
        heads: dict[int, int] = {}
        found_in: dict[str, set[int]] = {}
        async for partition, records in read_between(settings, TRADES, begin, end):
            if partition not in heads:
                is_head = begin[partition] == first[partition]
                heads[partition] = _missing_until(records[0], first[partition]) if is_head else 0
            trades = []
            for record in records:
                if self._keys and record.key not in self._keys:
                    continue
                try:
                    trade = trade_in(record)
                except ContractError:
                    continue  # no worker counts it
                if trade.symbol not in found_in:
                    found_in[trade.symbol] = {partition_of(record.key, partitions)}
                    self._note_copy(trade.symbol, record)
                found_in[trade.symbol].add(partition)
                if self._from_us <= trade.traded_at < self._to_us:
                    trades.append(trade)
            self._cells.put(trades)
            told.add(len(records))
        for symbol, places in found_in.items():
            whole_from = max(heads.get(place, 0) for place in places)
            self._whole_from[symbol] = max(whole_from, self._whole_from.get(symbol, 0))

    def _note_copy(self, symbol: str, record: Any) -> None:
        """A copy that comes first stands for others in the partition before, which may not be there any more."""
        appended_at = time_in(record.headers, COPY_HEADER)
        if appended_at is not None:
            self._whole_from[symbol] = appended_at + MAX_AHEAD_US


def _missing_until(record: Any, offset: int) -> int:
    """No trade that stood before the first record of a partition is stamped later, µs; 0: there was none."""
    if offset:
        return int(record.timestamp) * 1_000 + MAX_AHEAD_US
    return time_in(record.headers, SINCE_HEADER) or 0


class Cells:
    """Trades on disk, by symbol and by the time that they were made in."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._starts: dict[str, set[int]] = {}
        self._numbers: dict[str, int] = {}
        self._count = 0

    @property
    def symbols(self) -> list[str]:
        """Those that there are trades of."""
        return sorted(self._starts)

    def put(self, trades: Sequence[Trade]) -> None:
        """Keep some, in any order; of copies the one that is put first counts."""
        lines: dict[tuple[str, int], list[bytes]] = {}
        for trade in trades:
            line = b"%d %b\n" % (self._count, encode_trade(trade))
            self._count += 1
            lines.setdefault((trade.symbol, trade.traded_at // CELL_US), []).append(line)
        for (symbol, cell), of_cell in lines.items():
            self._starts.setdefault(symbol, set()).add(cell)
            with open(self._path(symbol, cell), "ab") as file:  # noqa: PTH123
                file.writelines(of_cell)

    def of(self, symbol: str) -> Iterator[list[Trade]]:
        """Those of each cell that has any, each trade once, by `place_of`."""
        before: dict[str, tuple[int, Trade]] = {}
        for cell in sorted(self._starts.get(symbol, ())):
            first = self._read(symbol, cell)
            for trade_id in before.keys() & first.keys():  # copies, stamped on both sides of the border
                del (first if before[trade_id][0] < first[trade_id][0] else before)[trade_id]
            if before:
                yield _in_order(before)
            before = first
        if before:
            yield _in_order(before)

    def _read(self, symbol: str, cell: int) -> dict[str, tuple[int, Trade]]:
        """The trades of a cell by id, and which ones they were of all that were put."""
        first: dict[str, tuple[int, Trade]] = {}
        with open(self._path(symbol, cell), "rb") as file:  # noqa: PTH123
            for line in file:
                number, _, message = line.partition(b" ")
                trade = decode_trade(message)
                first.setdefault(trade.trade_id, (int(number), trade))
        return first

    def _path(self, symbol: str, cell: int) -> str:
        number = self._numbers.setdefault(symbol, len(self._numbers))
        return f"{self._directory}/{number}-{cell}"


def _in_order(trades: dict[str, tuple[int, Trade]]) -> list[Trade]:
    return sorted((trade for _, trade in trades.values()), key=place_of)


class LakeExport:
    """Of a lake, which must keep candles as well to know what feeds have lost."""

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        """Raises UsageError for a wrong URL."""
        from ashi_sinks.lake.location import lake_of
        from ashi_sinks.lake.reader import LakeReader
        from ashi_sinks.lake.trades import LakeTrades

        lake = lake_of(url)
        self.where = f"the lake {url}"
        self._table = LakeTrades(lake)
        self._reader: LakeReader | None = LakeReader(lake)
        self._snapshot: Snapshot
        self._tell = tell
        self._seen_us = 0
        self._missing_until = 0

    async def __aenter__(self) -> Self:
        """Open it. Raises StorageError where it keeps no trades."""
        try:
            await self._table.open()
            self._seen_us = now_us()
            self._snapshot = await self._table.snapshot()
            self._missing_until = await self._table.missing_until(self._snapshot)
            await self._open_reader()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._table.close()
        if self._reader is not None:
            await self._reader.close()

    async def _open_reader(self) -> None:
        try:
            if self._reader is not None:
                await self._reader.open()
        except StorageError:
            self._reader = None
            self._tell(
                f"note: {self.where} keeps no candles and no gaps of feeds, so what these have lost is not known"
            )

    async def symbols(self) -> list[str]:
        """See `ExportSource`."""
        return await self._table.symbols()

    async def shorts(self, symbol: str, from_us: int, to_us: int) -> list[Short]:
        """See `ExportSource`. What came after the last trade that the lake has may not have come into it yet."""
        newest = None
        async for cell, _ in self._table.counts(self._snapshot, symbol, from_us, to_us, CELL_US):
            newest = cell
        if newest is None:
            return []
        last = max(
            [row.trade.traded_at async for row in self._table.read(symbol, newest, newest + CELL_US, self._snapshot)]
        )
        gaps: list[FeedGap] = []
        complete_until = last + 1
        if self._reader is not None:
            status = await self._reader.status(symbol)
            gaps = await self._reader.gaps(symbol, from_us, to_us)
            if status is not None:
                complete_until = min(complete_until, status.complete_until or 0)
        return shorts_of(
            from_us,
            to_us,
            whole_from=self._missing_until,
            gaps=gaps,
            complete_until=complete_until,
            seen_us=self._seen_us,
        )

    async def trades(self, symbol: str, from_us: int, to_us: int) -> AsyncIterator[list[Trade]]:
        """See `ExportSource`."""
        from ashi_sinks.lake.publish import trades_in_order

        begin = max(from_us, EARLIEST_US)
        async for trades in trades_in_order(self._table, self._snapshot, symbol, begin, to_us):
            yield sorted(trades, key=place_of)
