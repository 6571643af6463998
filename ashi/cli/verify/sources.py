"""Where trades that are to be counted again come from: topic `trades` with topic `trades.late`, or recordings."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from aggregate.chunk import Chunk, ChunkDecoder
from aggregate.core.recount import Recount
from aggregate.core.row import edge_of, is_late
from ashi.contracts.errors import RecordingError, StateError
from ashi.contracts.topics import AGGREGATE_APP, TRADES, TRADES_LATE
from ashi.contracts.trade import MAX_AHEAD_US, decode_trade
from ashi.runtime.kafka import partition_of, read_topic
from ashi.runtime.offsets import begin_offsets, committed_offsets, end_offsets, offsets_at
from ashi.runtime.stretches import read_at, read_between

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from aggregate.core.recount import Late, Stretch
    from aggregate.core.row import WindowRules
    from aggregate.epoch import Epoch
    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings

WINDOWS_AT_ONCE: Final = 200
"""A series is looked at so many windows at a time: a look into the store costs more than a window."""
TRADES_AT_ONCE: Final = 5_000
MARGIN_US: Final = 600_000_000
"""A trade is appended to the log after it was made, but for clocks that differ (MAX_AHEAD_US and the broker's)."""
END_OF_TIME: Final = 2**63


_NONE: Final[Mapping[int, Trade]] = MappingProxyType({})


class Batch(NamedTuple):
    """Trades of one symbol and their offsets; by offset, those that came too late and that the part has not told of."""

    symbol: str
    trades: Sequence[Trade]
    offsets: Sequence[int]
    late: Mapping[int, Trade] = _NONE


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the trades that no other part has symbols of: a partition, or all of some recordings.

    Attributes:
        number: of the partition of topic `trades` that its symbols are in; None for recordings.
        late: by symbol and offset, the trades that came too late for the workers.
        begins_at: as `aggregate.core.row.edge_of` takes it, µs; 0 where it begins with the log.
        batches: all trades, the late ones too.

    """

    number: int | None
    late: Mapping[str, Mapping[int, Trade]]
    begins_at: int
    batches: AsyncIterator[Batch]


class TradeSource(Protocol):
    """What can be counted again."""

    def parts(self) -> AsyncIterator[Part]:
        """The parts, one after the other."""


async def count(
    part: Part,
    rules: WindowRules,
    timeframes: Sequence[Timeframe],
    *,
    start: int,
    end: int,
    symbols: Collection[str] = (),
    strays: list[Late],
) -> AsyncIterator[tuple[Recount, Stretch]]:
    """Count the windows of a part that begin in [start, end), µs, and are whole: stretch by stretch of each series.

    `symbols`: only these, all if empty. Late trades that nothing had told of are added to `strays`.
    """
    counts: dict[str, Recount] = {}
    async for symbol, trades, offsets, told_late in part.batches:
        if symbols and symbol not in symbols:
            continue
        recount = counts.get(symbol)
        if recount is None:
            late = part.late.get(symbol, {})
            # One that is late says nothing of how far those before it had come.
            first = next((trade for trade, at in zip(trades, offsets, strict=True) if at not in late), None)
            if first is None:
                continue
            edge = edge_of(rules, part.begins_at, first.traded_at)
            recount = Recount(symbol, timeframes, rules, late, start=max(start, edge), end=end)
            counts[symbol] = recount
        recount.tell_late(told_late)
        recount.add(trades, offsets)
        for stretch in recount.settled(WINDOWS_AT_ONCE):
            yield recount, stretch
    for recount in counts.values():
        for stretch in recount.rest():
            yield recount, stretch
        strays += recount.strays


class TopicTrades:
    """Topic `trades`, from where the state of the current epoch begins to where its workers have come.

    What they have not aggregated and committed yet is left out, so nothing is missed that is only still to come.
    """

    def __init__(self, settings: Settings, epoch: Epoch, partitions: int, symbols: Collection[str], start: int) -> None:
        """`partitions`: of the topic. `symbols`: only these, all if empty. `start`: of the first window wanted, µs."""
        self._settings = settings
        self._epoch = epoch
        self._symbols = symbols
        self._start = start
        self._partitions = partitions
        self._decoder = ChunkDecoder(partitions)
        self._begin: dict[int, int] = {}
        self._end: dict[int, int] = {}

    async def prepare(self) -> None:
        """Look how far the workers have come; all candles of what is read have been published by then.

        Raises StateError when they have not begun, or when the topic was made anew.
        """
        self._begin, self._end = await self._range()

    async def parts(self) -> AsyncIterator[Part]:
        """One for each partition. Call `prepare` first."""
        settings, begin, end = self._settings, self._begin, self._end
        letters = await read_letters(settings, self._symbols, self._start)
        home = {partition_of(symbol.encode(), self._partitions) for symbol in self._symbols}
        skip_to = await offsets_at(settings, TRADES, (self._start - MARGIN_US) // 1000) if self._start else {}
        for number in sorted(home or end):
            first, stop = max(begin[number], skip_to.get(number, 0)), end.get(number, 0)
            if first >= stop:
                continue
            late = await self._verified(number, letters.get(number, {}), first, stop)
            begins_at = await self._begins_at(number, begin[number])
            yield Part(number, late, begins_at, self._batches(number, first, stop))

    async def _range(self) -> tuple[dict[int, int], dict[int, int]]:
        committed = await committed_offsets(self._settings, AGGREGATE_APP, TRADES)
        earliest, ends = await begin_offsets(self._settings, TRADES), await end_offsets(self._settings, TRADES)
        if not committed and any(ends[number] > earliest[number] for number in ends):
            raise StateError(
                f"no aggregate worker has committed anything of topic {TRADES}, so there is nothing to compare with: "
                "start `ashi aggregate` and wait until it has come to the end"
            )
        for number, offset in committed.items():
            if offset > ends[number]:
                raise StateError(
                    f"{TRADES}/{number} ends at offset {ends[number]}, but up to {offset} of it has been aggregated: "
                    "the topic was made anew. Run `ashi aggregate reconfigure` first"
                )
        return {number: max(offset, self._epoch.begin.get(number, 0)) for number, offset in earliest.items()}, committed

    async def _begins_at(self, number: int, begin: int) -> int:
        """As the workers do it: see `aggregate.core.row.edge_of`."""
        if begin == 0 and number not in self._epoch.begin:
            return 0
        async with aclosing(read_between(self._settings, TRADES, {number: begin}, {number: END_OF_TIME})) as fetched:
            _, records = await anext(fetched)
        return int(records[0].timestamp) * 1000 + MAX_AHEAD_US

    async def _verified(
        self, number: int, letters: Mapping[int, tuple[bytes, Trade]], first: int, stop: int
    ) -> dict[str, dict[int, Trade]]:
        """The late trades that stand in the log where their letters say: others are of a topic made anew since."""
        asked = [offset for offset in letters if first <= offset < stop]
        late: dict[str, dict[int, Trade]] = {}
        for offset, record in (await read_at(self._settings, TRADES, number, asked)).items():
            value, trade = letters[offset]
            if record.value == value:
                late.setdefault(trade.symbol, {})[offset] = trade
        return late

    async def _batches(self, number: int, first: int, stop: int) -> AsyncIterator[Batch]:
        async for _, records in read_between(self._settings, TRADES, {number: first}, {number: stop}):
            chunk = Chunk(number, records[0].offset, records[-1].offset + 1, records)
            by_symbol, _ = self._decoder.decode(chunk)
            for symbol, group in by_symbol.items():
                yield Batch(symbol, group.trades, group.offsets)


async def read_letters(
    settings: Settings, symbols: Collection[str], start: int
) -> dict[int, dict[int, tuple[bytes, Trade]]]:
    """What topic `trades.late` holds: by partition and offset in `trades`, the value and the trade.

    Only of `symbols`, all if empty, and only trades from `start` (µs) on.
    """
    letters: dict[int, dict[int, tuple[bytes, Trade]]] = {}
    async for record in read_topic(settings, TRADES_LATE):
        source = dict(record.headers).get("ashi.source", b"").decode(errors="replace").split("/")
        try:
            topic, number, offset = source[0], int(source[1]), int(source[2])
            trade = decode_trade(record.value or b"")
        except (IndexError, ValueError):  # somebody else's record; a ContractError is a ValueError
            continue
        if topic == TRADES and (not symbols or trade.symbol in symbols) and trade.traded_at >= start:
            letters.setdefault(number, {})[offset] = (record.value, trade)
    return letters


class RecordedTrades:
    """Recordings, in the order in which a replay publishes them. They are read twice: first for the late trades."""

    def __init__(
        self,
        recordings: Sequence[tuple[str, Path]],
        rules: WindowRules,
        symbols: Collection[str],
        say: Callable[[str], None],
    ) -> None:
        """`recordings`: venue and path of each. `symbols`: these, all if empty. `say`: told what cannot be read."""
        self._recordings = recordings
        self._rules = rules
        self._symbols = symbols
        self._say = say
        self.spans: dict[str, tuple[int, int]] = {}
        """From when to when (µs) each venue was recorded, by the times its trades were received."""

    async def parts(self) -> AsyncIterator[Part]:
        """All as one part."""
        yield Part(None, self._late(), 0, self._batches())

    def _late(self) -> dict[str, dict[int, Trade]]:
        clocks: dict[str, int] = {}
        late: dict[str, dict[int, Trade]] = {}
        for offset, trade in self._trades(self._say):
            venue = trade.symbol.partition(":")[0]
            first, last = self.spans.get(venue, (trade.received_at, trade.received_at))
            self.spans[venue] = (min(first, trade.received_at), max(last, trade.received_at))
            clock = clocks[trade.symbol] = max(clocks.get(trade.symbol, 0), trade.traded_at)
            if is_late(self._rules, clock, 0, trade.traded_at):
                late.setdefault(trade.symbol, {})[offset] = trade
        return late

    async def _batches(self) -> AsyncIterator[Batch]:
        trades = self._trades(lambda _: None)
        while some := list(islice(trades, TRADES_AT_ONCE)):
            by_symbol: dict[str, tuple[list[Trade], list[int]]] = {}
            for offset, trade in some:
                of, offsets = by_symbol.setdefault(trade.symbol, ([], []))
                of.append(trade)
                offsets.append(offset)
            for symbol, (of, offsets) in by_symbol.items():
                yield Batch(symbol, of, offsets)

    def _trades(self, say: Callable[[str], None]) -> Iterator[tuple[int, Trade]]:
        from ingest.recording import Line, read_recording
        from ingest.venues import VENUES

        offset = 0
        parsers = {venue: VENUES[venue]() for venue, _ in self._recordings}
        # As a replay does it: all files of a venue are one feed that was written in pieces.
        for venue, path in sorted(self._recordings, key=lambda one: list(parsers).index(one[0])):
            try:
                for line in read_recording(path):
                    parsed = parsers[venue].parse(line.frame, line.received_at) if isinstance(line, Line) else None
                    for trade in parsed.trades if parsed is not None else ():
                        if not self._symbols or trade.symbol in self._symbols:
                            yield offset, trade
                        offset += 1
            except RecordingError as error:
                say(str(error))
