"""Counting trades anew, rebuilding and comparing, without Kafka: property tests against the oracle."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ashi.contracts import Candle, Timeframe, Trade
from ashi.contracts.timeframe import format_time
from ashi.contracts.trade import MAX_AHEAD_US
from ashi.runtime.settings import Settings
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.epoch import Epoch
from ashi_audit.rebuilt_series import RebuiltSeries
from ashi_audit.recomputed import Totals
from ashi_audit.recount import BatchAggregation, SeriesRange
from ashi_audit.rules import COPIES_APART_US, CandleRules
from ashi_audit.series_check import SeriesCheck
from ashi_audit.sources.base import TradeBatch
from oracle import candles_of, closed, stored, timely, unique
from samples.hypothesis_strategies import START, cuts, trades

MINUTE = 60_000_000
SYMBOL = "binance:ETHUSDT"
NAMES = ["1m", "5m", "1h"]
TIMEFRAMES = [Timeframe.parse(name) for name in NAMES]
RULES = CandleRules(finest=TIMEFRAMES[0])
WORKERS_RULES = WindowRules(finest=TIMEFRAMES[0])


@st.composite
def logs(draw: Any) -> list[Trade]:
    """A log of one symbol in any order, over so long that many trades are late, some of them coming twice or more."""
    found = draw(trades(count=30, span_us=40 * MINUTE, symbols=[SYMBOL]))
    again = draw(st.lists(st.sampled_from(found), max_size=8))
    for trade in again:
        found.insert(draw(st.integers(0, len(found))), trade)
    return found


def late_of(log: list[Trade]) -> dict[int, Trade]:
    copies = [msgspec.structs.replace(trade) for trade in log]
    counted = {id(trade) for trade in timely(copies, "1m", RULES.horizon_us)}
    return {offset: trade for offset, trade in enumerate(log) if id(copies[offset]) not in counted}


def recounted(log: list[Trade], places: list[int], least: int = 1) -> tuple[BatchAggregation, list[SeriesRange]]:
    aggregation = BatchAggregation(SYMBOL, TIMEFRAMES, RULES, late_of(log))
    ranges = []
    for begin, end in pairwise(places):
        aggregation.add(log[begin:end], list(range(begin, end)))
        ranges += aggregation.settled(least)
    return aggregation, [*ranges, *aggregation.rest()]


def as_fields(windows: SeriesRange, totals: Totals) -> tuple[Any, dict[str, Any]]:
    ((key, value),) = stored([totals.candle(windows.timeframe, version=0)]).items()
    return key, value


def live_candles(log: list[Trade], places: list[int]) -> list[Candle]:
    """What workers publish of a log, in order."""
    aggregator = SymbolAggregator(TIMEFRAMES, WORKERS_RULES)
    candles = []
    for begin, end in pairwise(places):
        if begin < end:
            candles += aggregator.on_trades(log[begin:end], list(range(begin, end))).candles
            candles += aggregator.corrections()
            aggregator.drop_final()
    return candles


def best(candles: list[Candle]) -> dict[Any, Candle]:
    kept: dict[Any, Candle] = {}
    for candle in candles:
        key = (candle.symbol, candle.timeframe, candle.open_time)
        if key not in kept or candle.version > kept[key].version:
            kept[key] = candle
    return kept


def differences(log: list[Trade], places: list[int], kept: dict[Any, Candle]) -> list[Any]:
    aggregation, ranges = recounted(log, places)
    checks = {name: SeriesCheck(RULES, offsets=True) for name in NAMES}
    found = []
    for windows in ranges:
        name = str(windows.timeframe)
        there = {
            open_time: candle
            for (_, of, open_time), candle in kept.items()
            if of == name and windows.begin <= open_time < windows.until
        }
        for some in checks[name].check(windows, there, aggregation.clock):
            found += some
    return found


@given(st.data(), logs())
@settings(max_examples=60)
def test_every_trade_counts_once_in_each_window_with_the_late_ones_and_without(data, log):
    _, ranges = recounted(log, data.draw(cuts(len(log))), data.draw(st.integers(1, 4)))
    every: dict[Any, Any] = {}
    in_time: dict[Any, Any] = {}
    for windows in ranges:
        for window in windows.windows:
            assert windows.begin <= window.open_time < windows.until
            everything = window.everything()
            assert everything is not None
            every.update([as_fields(windows, everything)])
            if window.in_time is not None:
                in_time.update([as_fields(windows, window.in_time)])
    assert every == candles_of(unique(log), NAMES)
    assert in_time == candles_of(unique(timely(log, "1m", RULES.horizon_us)), NAMES)


@given(st.data(), logs())
@settings(max_examples=60)
def test_the_stretches_of_a_series_follow_each_other_without_a_hole(data, log):
    _, ranges = recounted(log, data.draw(cuts(len(log))))
    for timeframe in TIMEFRAMES:
        of = [windows for windows in ranges if windows.timeframe == timeframe]
        for before, after in pairwise(of):
            assert before.until == after.begin
            assert before.settled


@given(st.data(), logs())
@settings(max_examples=60)
def test_a_window_that_is_given_away_can_be_corrected_by_no_trade_that_is_still_to_come(data, log):
    aggregation = BatchAggregation(SYMBOL, TIMEFRAMES, RULES, late_of(log))
    for offset, trade in enumerate(log):
        aggregation.add([trade], [offset])
        for windows in aggregation.settled():
            assert windows.until + RULES.horizon_us < aggregation.clock


@given(st.data(), logs())
@settings(max_examples=60)
def test_rebuilt_candles_are_the_oracles_of_all_trades_flat_ones_included(data, log):
    aggregation, ranges = recounted(log, data.draw(cuts(len(log))))
    rebuilds = {name: RebuiltSeries(epoch=3, max_flat=5) for name in NAMES}
    found = [c for s in ranges if s.settled for c in rebuilds[str(s.timeframe)].candles(s)]
    expected = closed(candles_of(unique(log), NAMES), log, 2_000_000, max_flat=5)
    settled_until = aggregation.clock - RULES.horizon_us - MINUTE - COPIES_APART_US
    assert stored(found) == {key: value for key, value in expected.items() if value["close_time"] <= settled_until}
    places = {trade.trade_id: offset for offset, trade in reversed(list(enumerate(log)))}
    for candle in found:
        if candle.trade_count:
            of = [t for t in log if candle.open_time <= t.traded_at < candle.close_time]
            assert candle.version == 3 * 2**40 + max(places[trade.trade_id] for trade in of)


@given(st.data(), logs())
@settings(max_examples=60)
def test_what_workers_publish_differs_by_late_trades_only_and_that_is_explained(data, log):
    places = data.draw(cuts(len(log)))
    kept = best(live_candles(log, places))
    found = differences(log, data.draw(cuts(len(log))), kept)
    assert [one for one in found if not one.explained] == []
    every, in_time = candles_of(unique(log), NAMES), candles_of(unique(timely(log, "1m", RULES.horizon_us)), NAMES)
    windows = {(SYMBOL, one.timeframe, one.open_time) for one in found}
    assert windows <= {key for key in every if every[key] != in_time.get(key)}
    clock = max(trade.traded_at for trade in log)
    sure = {key for key in every if every[key] != in_time.get(key) and every[key]["close_time"] + 2_000_000 <= clock}
    assert sure <= windows


@given(st.data(), logs())
@settings(max_examples=60)
def test_after_a_rebuild_nothing_differs(data, log):
    places = data.draw(cuts(len(log)))
    _, ranges = recounted(log, places)
    rebuilds = {name: RebuiltSeries(epoch=1, max_flat=RULES.max_flat) for name in NAMES}
    rebuilt = [c for s in ranges if s.settled for c in rebuilds[str(s.timeframe)].candles(s)]
    kept = best([*live_candles(log, places), *rebuilt])
    final = {(str(s.timeframe), w.open_time) for s in ranges if s.settled for w in s.windows}
    found = differences(log, places, kept)
    assert [one for one in found if not one.explained] == []
    assert [one for one in found if (one.timeframe, one.open_time) in final] == []


@given(st.data(), logs())
@settings(max_examples=60)
def test_a_candle_that_is_wrong_or_missing_is_found(data, log):
    places = data.draw(cuts(len(log)))
    kept = best(live_candles(log, places))
    with_trades = [key for key, candle in kept.items() if candle.trade_count]
    if not with_trades:
        return
    key = data.draw(st.sampled_from(with_trades))
    candle = kept[key]
    change = data.draw(st.sampled_from(["missing", "volume", "trade_count", "first_trade_id", "taker_buy_volume"]))
    if change == "missing":
        del kept[key]
    elif change == "first_trade_id":
        kept[key] = msgspec.structs.replace(candle, first_trade_id="other")
    else:
        kept[key] = msgspec.structs.replace(candle, **{change: getattr(candle, change) + 1})
    found = [one for one in differences(log, places, kept) if not one.explained]
    assert {(one.symbol, one.timeframe, one.open_time) for one in found} >= {key}
    assert {one.field for one in found if (one.symbol, one.timeframe, one.open_time) == key} >= {
        "candle" if change == "missing" else change
    }


def trade(number: int, minute: float, price: int = 5) -> Trade:
    traded_at = START + int(minute * MINUTE)
    return Trade(SYMBOL, str(number), price, 1, "buy", traded_at, traded_at, number)  # type: ignore[arg-type]


def test_a_flat_candle_that_carries_another_close_or_is_missing_is_found():
    log = [trade(0, 0, 5), trade(1, 9, 7), trade(2, 30, 7)]
    kept = best(live_candles(log, [0, 3]))
    key = (SYMBOL, "1m", START + 4 * MINUTE)
    assert kept[key].trade_count == 0
    gone = {at: candle for at, candle in kept.items() if at != key}
    (missing,) = differences(log, [0, 3], gone)
    assert (missing.open_time, missing.expected, missing.explained) == (key[2], "1 flat", False)
    wrong = kept | {key: msgspec.structs.replace(kept[key], close=7, high=7)}  # type: ignore[arg-type]
    found = differences(log, [0, 3], wrong)
    assert {(one.open_time, one.field, one.stored, one.expected) for one in found} == {
        (key[2], "close", "7", "5"),
        (key[2], "high", "7", "5"),
    }


def test_a_window_that_is_still_open_may_be_absent_and_one_that_has_closed_may_not():
    log = [trade(0, 0.1), trade(1, 1.5), trade(2, 1.6)]
    assert differences(log, [0, 3], best(live_candles(log, [0, 3]))) == []
    found = differences(log, [0, 3], {})
    assert {(one.timeframe, one.open_time, one.stored) for one in found} == {
        ("1m", START, "-"),
        ("5m", START - 4 * MINUTE, "-"),
    }


def test_a_candle_with_trades_from_beyond_what_was_read_is_left_out():
    log = [trade(0, 0.1), trade(1, 1.5), trade(2, 1.6), trade(3, 0.2)]
    kept = best(live_candles(log, [0, 3, 4]))
    assert kept[SYMBOL, "1m", START].trade_count == 2
    assert differences(log[:3], [0, 3], kept) == []


def test_a_flat_candle_where_only_late_trades_were_may_carry_what_is_from_before_the_trades_read():
    log = [trade(0, 0, 5), trade(1, 9, 7), trade(2, 3, 6), trade(3, 30, 7)]
    kept = best(live_candles(log, [0, 4]))
    aggregation = BatchAggregation(SYMBOL, TIMEFRAMES, RULES, late_of(log), start=START + 3 * MINUTE)
    aggregation.add(log, [0, 1, 2, 3])
    check = SeriesCheck(RULES, offsets=True)
    (windows,) = [windows for windows in aggregation.rest() if windows.timeframe == TIMEFRAMES[0] and windows.settled]
    there = {at: candle for (_, name, at), candle in kept.items() if name == "1m" and at >= windows.begin}
    found = [one for some in check.check(windows, there, aggregation.clock) for one in some]
    assert {one.open_time for one in found} == {START + 3 * MINUTE}
    assert all(one.explained for one in found)


def test_a_copy_that_comes_too_late_is_no_late_trade():
    log = [trade(0, 0.1), trade(1, 9), trade(0, 0.1)]
    assert differences(log, [0, 3], best(live_candles(log, [0, 3]))) == []


def test_a_late_trade_that_no_letter_tells_of_is_kept_apart():
    log = [trade(0, 0.1), trade(1, 9), trade(2, 0.1)]
    aggregation = BatchAggregation(SYMBOL, TIMEFRAMES, RULES, {})
    aggregation.add(log, [0, 1, 2])
    assert [late.offset for late in aggregation.unreported] == [2]


def trade_at(time: int, trade_id: str, symbol: str = SYMBOL) -> Trade:
    return Trade(symbol, trade_id, Decimal(5), Decimal(1), "buy", time, time, 0)


def test_late_trades_that_nothing_told_of_matter_only_within_the_range():
    begin, end = START + 20 * MINUTE, START + 40 * MINUTE
    aggregation = BatchAggregation(SYMBOL, TIMEFRAMES[:1], RULES, {}, start=begin, end=end)
    times = [START + 60 * MINUTE, begin - 1, begin, end - 1, end]
    aggregation.add([trade_at(time, str(place)) for place, time in enumerate(times)], list(range(5)))
    assert [late.offset for late in aggregation.unreported] == [2, 3]


def test_a_batch_of_ascending_ids_counts_none_that_came_before():
    aggregation = BatchAggregation(SYMBOL, TIMEFRAMES, RULES, {})
    aggregation.add([trade_at(START + place, str(place)) for place in range(5)], list(range(5)))
    aggregation.add([trade_at(START + place, str(place)) for place in range(3, 8)], list(range(5, 10)))
    aggregation.add([trade_at(START + place, str(place)) for place in range(8, 10)], [10, 11])
    aggregation.add([trade_at(START + 3 * MINUTE, "9")], [12])
    minutes = [windows for windows in aggregation.rest() if windows.timeframe is TIMEFRAMES[0]]
    counts = [window.in_time.trade_count for windows in minutes for window in windows.windows if window.in_time]
    assert counts == [10, 1]


class Lake:
    """A lake whose trades are these, with their offsets from `first` on; `queries` are those that read trades."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trades: list[Trade], first: int = 0) -> None:
        pytest.importorskip("deltalake")
        from ashi_audit.sources import lake as lake_source
        from ashi_sinks.lake.location import lake_of
        from ashi_sinks.lake.query import Snapshot
        from ashi_sinks.lake.tables import StoredTrade
        from ashi_sinks.lake.trades import LakeTrades

        self._source = lake_source.LakeSource
        self._url = f"lake:///{tmp_path}/lake"
        self.notes: list[str] = []
        self.queries = 0
        self.unread: dict[int, range] = {}
        stored = [StoredTrade(0, first + place, trade) for place, trade in enumerate(trades)]

        async def fill() -> None:
            table = LakeTrades(lake_of(self._url))
            await table.open_or_make()
            await table.write(stored)
            await table.close()

        async def no_letters(*_: object) -> dict[int, Any]:
            return {}

        async def unread(*_: object) -> dict[int, range]:
            return self.unread

        real = Snapshot.batches

        def counted(snapshot: Snapshot, query: str) -> Any:
            self.queries += 1
            return real(snapshot, query)

        asyncio.run(fill())
        monkeypatch.setattr(lake_source, "read_letters", no_letters)
        monkeypatch.setattr(lake_source, "not_durable", unread)
        monkeypatch.setattr(Snapshot, "batches", counted)

    def read(self, start: int, end: int = 2**63) -> tuple[list[list[str]], list[int]]:
        """The ids of each batch, and where the parts begin."""
        epoch = Epoch(0, NAMES, RULES.lateness_us, RULES.horizon_us, 1_440)
        source = self._source(
            Settings.from_environment({}),
            self._url,
            epoch=epoch,
            partitions=1,
            symbols=[],
            start=start,
            end=end,
            on_note=self.notes.append,
        )

        async def found() -> tuple[list[list[str]], list[int]]:
            ids, begins = [], []
            async for part in source.parts():
                begins.append(part.begins_at)
                async for batch in part.batches:
                    assert isinstance(batch, TradeBatch)
                    ids.append([trade.trade_id for trade in batch.trades])
            return ids, begins

        return asyncio.run(found())


def test_years_without_trades_in_a_lake_cost_nothing(tmp_path, monkeypatch):
    day = 1_440 * MINUTE
    lake = Lake(tmp_path, monkeypatch, [trade_at(START + place * day, str(place)) for place in (0, 300, 301)])
    ids, _ = lake.read(START - 1_000 * day)
    assert ids == [["0", "300", "301"]]
    assert lake.queries < 10


def test_trades_of_a_lake_are_read_in_pieces_each_once_whatever_their_size(tmp_path, monkeypatch):
    from ashi_sinks.lake import trades as lake_trades

    rng = random.Random(1)
    times = sorted(START + rng.randint(0, 300 * MINUTE) for _ in range(2_000))
    log = [trade_at(time, str(place)) for place, time in enumerate(times)]
    copies = [msgspec.structs.replace(log[place], traded_at=times[place] - 900_000) for place in range(5, 2_000, 7)]
    lake = Lake(tmp_path, monkeypatch, [*log, *copies])
    whole, _ = lake.read(START)
    monkeypatch.setattr(lake_trades, "TRADES_AT_ONCE", 150)
    pieces, _ = lake.read(START)
    assert len(pieces) > 10
    assert max(map(len, pieces)) <= 150
    assert [name for piece in pieces for name in piece] == [name for batch in whole for name in batch]
    assert [name for batch in whole for name in batch] == [str(place) for place in range(2_000)]


def test_what_the_workers_have_not_made_durable_is_not_read_of_a_lake_either(tmp_path, monkeypatch):
    lake = Lake(tmp_path, monkeypatch, [trade_at(START + place, str(place)) for place in range(9)])
    lake.unread = {0: range(4, 7), 1: range(9)}
    ids, _ = lake.read(START)
    assert ids == [["0", "1", "2", "3", "7", "8"]], "beyond the log's end are records of a topic made anew since"


def test_a_lake_that_has_the_first_record_of_a_partition_lacks_nothing_before_it(tmp_path, monkeypatch):
    log = [trade_at(START + place * MINUTE, str(place)) for place in range(10)]
    lake = Lake(tmp_path, monkeypatch, log)
    assert lake.read(START)[1] == [0]
    assert lake.notes == []


def test_a_lake_that_begins_within_a_partition_may_lack_trades_and_it_is_said(tmp_path, monkeypatch):
    log = [trade_at(START + place * MINUTE, str(place)) for place in range(30)]
    lake = Lake(tmp_path, monkeypatch, log, first=7)
    (begins_at,) = lake.read(START)[1]
    assert begins_at == START + MAX_AHEAD_US
    (note,) = lake.notes
    assert note == (
        f"windows of {SYMBOL} before {format_time(begins_at)} are left out: the lake may lack trades of them"
    )
    lake.notes.clear()
    assert lake.read(START + 20 * MINUTE)[1] == [START + 10 * MINUTE + MAX_AHEAD_US]
    assert lake.notes == [], "the range begins later"
