"""Topic `trades` with topic `trades.late`, as something that can be counted again."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from ashi.contracts.errors import ContractError, StateError
from ashi.contracts.records import SINCE_HEADER, time_in, trade_in
from ashi.contracts.topics import TRADES, TRADES_LATE
from ashi.contracts.trade import MAX_AHEAD_US, decode_trade
from ashi.runtime.kafka.cluster.offsets import begin_offsets, end_offsets, offsets_at
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_at, read_between, read_topic
from ashi.runtime.kafka.producing.dead_letters import trade_place
from ashi_aggregate.inspect import durable_ends
from ashi_audit.sources.base import END_OF_TIME, MARGIN_US, SourcePart, TradeBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_aggregate.epoch import Epoch


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
        self._homes: dict[str, int] = {}
        self._begin: dict[int, int] = {}
        self._end: dict[int, int] = {}

    async def prepare(self) -> None:
        """Look how far the workers have come; all candles of what is read have been published by then.

        Raises StateError when they have not begun, or when the topic was made anew.
        """
        self._begin, self._end = await self._range()

    async def parts(self) -> AsyncIterator[SourcePart]:
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
            begins_at = await self._begins_at(number, begin[number], stop)
            read_until = partial(appended_from, self._settings, number, stop)
            yield SourcePart(number, late, begins_at, self._batches(number, first, stop), read_until)

    async def _range(self) -> tuple[dict[int, int], dict[int, int]]:
        durable = await durable_ends(self._settings, self._epoch.epoch)
        earliest, ends = await begin_offsets(self._settings, TRADES), await end_offsets(self._settings, TRADES)
        if not durable and any(ends[number] > earliest[number] for number in ends):
            raise StateError(
                f"no aggregate worker has made anything of topic {kafka_name(self._settings, TRADES)} durable "
                f"in epoch {self._epoch.epoch}, so there is nothing to compare with: start "
                "`ashi aggregate` and wait until it has come to the end"
            )
        for number, offset in durable.items():
            if offset > ends.get(number, 0):
                raise StateError(
                    f"{kafka_name(self._settings, TRADES)}/{number} ends at offset {ends.get(number, 0)}, "
                    f"but up to {offset} of it has been aggregated: the topic was made anew. Run "
                    "`ashi aggregate reconfigure` first"
                )
        return {number: max(offset, self._epoch.begin.get(number, 0)) for number, offset in earliest.items()}, durable

    async def _begins_at(self, number: int, begin: int, end: int) -> int:
        """See `CandleRules.whole_from`: when the first record was appended, and a minute for clocks that are ahead."""
        if begin == 0 and number not in self._epoch.begin:
            first = (await read_at(self._settings, TRADES, number, [0])).get(0)
            return 0 if first is None else time_in(first.headers, SINCE_HEADER) or 0
        if self._epoch.whole_from is not None and begin == self._epoch.begin.get(number):
            return self._epoch.whole_from
        async with aclosing(read_between(self._settings, TRADES, {number: begin}, {number: end})) as fetched:
            async for _, records in fetched:
                return int(records[0].timestamp) * 1000 + MAX_AHEAD_US
        return 0  # what is there was aborted

    async def _verified(
        self, number: int, letters: Mapping[int, tuple[bytes, Trade]], first: int, stop: int
    ) -> dict[str, dict[int, Trade]]:
        """The late trades that stand in the log where their letters say: others are of a topic made anew since."""
        within = [offset for offset in letters if first <= offset < stop]
        late: dict[str, dict[int, Trade]] = {}
        for offset, record in (await read_at(self._settings, TRADES, number, within)).items():
            value, trade = letters[offset]
            if record.value == value:
                late.setdefault(trade.symbol, {})[offset] = trade
        return late

    async def _batches(self, number: int, first: int, stop: int) -> AsyncIterator[TradeBatch]:
        async for _, records in read_between(self._settings, TRADES, {number: first}, {number: stop}):
            by_symbol: dict[str, tuple[list[Trade], list[int]]] = {}
            for record in records:
                trade = self._trade_of(record, number)
                if trade is not None:
                    trades, offsets = by_symbol.setdefault(trade.symbol, ([], []))
                    trades.append(trade)
                    offsets.append(record.offset)
            for symbol, (trades, offsets) in by_symbol.items():
                yield TradeBatch(symbol, trades, offsets)

    def _trade_of(self, record: Any, number: int) -> Trade | None:
        """The trade of a record of partition `number`; None when it is none, or has another key, or belongs elsewhere.

        Those are in topic `trades.dead` and count in no candle.
        """
        try:
            trade = trade_in(record)
        except ContractError:
            return None
        symbol = trade.symbol
        if symbol not in self._homes:
            self._homes[symbol] = partition_of(symbol.encode(), self._partitions)
        return trade if self._homes[symbol] == number else None


async def appended_from(settings: Settings, number: int, offset: int) -> int:
    """When the first record of a partition of `trades` from this offset on was appended, µs.

    `END_OF_TIME` where there is none yet, 0 where the log begins after the offset.
    """
    if offset < (await begin_offsets(settings, TRADES))[number]:
        return 0
    ends = await end_offsets(settings, TRADES)
    async with aclosing(read_between(settings, TRADES, {number: offset}, ends)) as fetched:
        async for _, records in fetched:
            return int(records[0].timestamp) * 1000
    return END_OF_TIME


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
