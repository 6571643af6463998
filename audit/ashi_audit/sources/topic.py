"""Where trades that are to be counted again come from: topic `trades` with topic `trades.late`."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ashi.contracts.errors import ContractError, StateError
from ashi.contracts.topics import TRADES, TRADES_LATE
from ashi.contracts.trade import MAX_AHEAD_US, decode_trade
from ashi.runtime.kafka.clients import partition_of
from ashi.runtime.kafka.dead_letters import trade_place
from ashi.runtime.kafka.offsets import begin_offsets, end_offsets, offsets_at
from ashi.runtime.kafka.records import read_at, read_between, read_topic
from ashi_aggregate.chunk import Chunk, ChunkDecoder
from ashi_aggregate.core.window_state import edge_of
from ashi_aggregate.inspect import durable_ends
from ashi_audit.recount import Recount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_aggregate.core.window_state import WindowRules
    from ashi_aggregate.epoch import Epoch
    from ashi_audit.recount import Late, Stretch

WINDOWS_AT_ONCE: Final = 200
"""A series is looked at so many windows at a time: a look into the store costs more than a window."""
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
        begins_at: as `ashi_aggregate.core.window_state.edge_of` takes it, µs; 0 where it begins with the log.
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


async def open_source(
    settings: Settings,
    lake: str | None,
    *,
    epoch: Epoch,
    partitions: int,
    symbols: Collection[str],
    start: int,
    end: int,
    say: Callable[[str], None],
) -> TradeSource:
    """Topic `trades`, or the lake of a URL if one is given; the windows wanted begin in [`start`, `end`), µs.

    `partitions`: of the topic. `symbols`: only these, all if empty. `say`: told of what is left out.
    Raises UsageError for a wrong URL or a lake without a start, StateError when the workers have not begun.
    """
    if lake is None:
        topic = TopicTrades(settings, epoch, partitions, symbols, start)
        await topic.prepare()
        return topic
    from ashi_audit.sources.lake import LakeSource

    return LakeSource(
        settings, lake, epoch=epoch, partitions=partitions, symbols=symbols, start=start, end=end, say=say
    )


async def count(
    part: Part,
    rules: WindowRules,
    timeframes: Sequence[Timeframe],
    *,
    start: int,
    end: int,
    symbols: Collection[str] = (),
    strays: list[Late],
    seen: set[str],
) -> AsyncIterator[tuple[Recount, Stretch]]:
    """Count the windows of a part that begin in [start, end), µs, and are whole: stretch by stretch of each series.

    `symbols`: only these, all if empty. Late trades of these windows that nothing had told of are added to `strays`,
    the symbols that have trades to `seen`.
    """
    counts: dict[str, Recount] = {}
    async for symbol, trades, offsets, told_late in part.batches:
        if symbols and symbol not in symbols:
            continue
        seen.add(symbol)
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

    What they have not aggregated and made durable yet is left out, so nothing is missed that is only still to come.
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
        home = {partition_of(symbol.encode(), self._partitions) for symbol in self._symbols}
        skip_to = await offsets_at(settings, TRADES, (self._start - MARGIN_US) // 1000) if self._start else {}
        firsts = {
            number: max(begin[number], skip_to.get(number, 0)) for number in sorted(home or end) if number in begin
        }

        def is_read(number: int, offset: int, _: Trade) -> bool:
            # By its place, not by its time: one from before `start` is late all the same where it is read.
            return number in firsts and firsts[number] <= offset < end.get(number, 0)

        letters = await read_letters(settings, self._symbols, is_read)
        for number, first in firsts.items():
            stop = end.get(number, 0)
            if first >= stop:
                continue
            late = await self._verified(number, letters.get(number, {}), first, stop)
            begins_at = await self._begins_at(number, begin[number])
            yield Part(number, late, begins_at, self._batches(number, first, stop))

    async def _range(self) -> tuple[dict[int, int], dict[int, int]]:
        durable = await durable_ends(self._settings, self._epoch.epoch)
        earliest, ends = await begin_offsets(self._settings, TRADES), await end_offsets(self._settings, TRADES)
        if not durable and any(ends[number] > earliest[number] for number in ends):
            raise StateError(
                f"no aggregate worker has made anything of topic {TRADES} durable in epoch {self._epoch.epoch}, so "
                "there is nothing to compare with: start `ashi aggregate` and wait until it has come to the end"
            )
        for number, offset in durable.items():
            if offset > ends.get(number, 0):
                raise StateError(
                    f"{TRADES}/{number} ends at offset {ends.get(number, 0)}, but up to {offset} of it has been "
                    "aggregated: the topic was made anew. Run `ashi aggregate reconfigure` first"
                )
        return {number: max(offset, self._epoch.begin.get(number, 0)) for number, offset in earliest.items()}, durable

    async def _begins_at(self, number: int, begin: int) -> int:
        """As the workers do it: see `ashi_aggregate.core.window_state.edge_of`."""
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


async def not_durable(settings: Settings, epoch: Epoch) -> dict[int, range]:
    """The offsets of each partition of `trades` that the log has, and the state of the epoch has not made durable."""
    durable = await durable_ends(settings, epoch.epoch)
    earliest, ends = await begin_offsets(settings, TRADES), await end_offsets(settings, TRADES)
    return {number: range(durable.get(number, earliest[number]), end) for number, end in ends.items()}


async def read_letters(
    settings: Settings, symbols: Collection[str], wanted: Callable[[int, int, Trade], bool]
) -> dict[int, dict[int, tuple[bytes, Trade]]]:
    """What topic `trades.late` holds: by partition and offset in `trades`, the value and the trade.

    Only of `symbols`, all if empty, and only what is `wanted`, which is given partition, offset and trade.
    """
    letters: dict[int, dict[int, tuple[bytes, Trade]]] = {}
    async for record in read_topic(settings, TRADES_LATE):
        place = trade_place(record.headers)
        if place is None:  # somebody else's record
            continue
        try:
            trade = decode_trade(record.value or b"")
        except ContractError:
            continue
        number, offset = place
        if (not symbols or trade.symbol in symbols) and wanted(number, offset, trade):
            letters.setdefault(number, {})[offset] = (record.value, trade)
    return letters
