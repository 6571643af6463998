"""What was stored and what is streamed, joined wherever one falls: no candle is missing, and none is told twice.

A log is drawn as workers write it: windows of several series close and are corrected, a worker that crashed repeats
what it wrote, clocks of venues are off by up to a minute, and several symbols share a partition. A store has taken some
of each partition, in its order. Somebody begins to follow at any moment, and the log goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ashi_series import Closed, Corrected, OhlcvStore
from ashi_series.join import APPENDED_BEFORE_US, Join, NewestStored, read_from
from samples.candles import FIRST_US, MINUTE_US, a_candle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.contracts.candle import Candle

SYMBOLS = ["a:X", "a:Y", "b:Z"]
TIMEFRAMES = ["1m", "5m"]
HOME = {"a:X": 0, "a:Y": 0, "b:Z": 1}
LIMIT = 4


@dataclass
class World:
    """The log, of each partition the candles with their times of append, and how far it has come at each moment.

    Attributes:
        log: by partition, in order.
        stored: so many records of each partition the store has taken.
        read: so many there are of each partition when somebody begins to follow.

    """

    log: dict[int, list[tuple[int, Candle]]] = field(default_factory=lambda: {0: [], 1: []})
    stored: dict[int, int] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)

    def newest(self, partition: int, until: int | None = None) -> dict[tuple[str, str, int], Candle]:
        """The greatest version of each window, of the first records."""
        found: dict[tuple[str, str, int], Candle] = {}
        for _, candle in self.log[partition][:until]:
            key = (candle.symbol, candle.timeframe, candle.open_time)
            if key not in found or candle.version > found[key].version:
                found[key] = candle
        return found


@st.composite
def worlds(draw: Any) -> World:
    world = World()
    version = 0
    skew = {symbol: draw(st.sampled_from([-MINUTE_US, 0, MINUTE_US])) for symbol in SYMBOLS}
    silent = {symbol: draw(st.sets(st.integers(0, 11), max_size=8)) for symbol in SYMBOLS}
    clock = dict.fromkeys(world.log, 0)
    at = 0
    for step in range(draw(st.integers(0, 12))):
        # Windows are an hour apart in part, so that the time from which the topic is read is within the log.
        at += draw(st.sampled_from([1, 5, 75]))
        for symbol in SYMBOLS:
            if step in silent[symbol]:
                continue
            for timeframe in TIMEFRAMES:
                window = at if timeframe == "1m" else at // 5
                version += 1
                candle = a_candle(window, version, symbol, timeframe)
                _append(world, candle, clock, candle.close_time + skew[symbol] + 2_000_000)
        for _ in range(draw(st.integers(0, 2))):
            partition = draw(st.sampled_from([0, 1]))
            if world.log[partition]:
                _, known = draw(st.sampled_from(world.log[partition]))
                version += 1
                again = draw(st.booleans())  # a crash repeats it as it was; else a late trade corrects it
                number = (known.open_time - FIRST_US) // (known.close_time - known.open_time)
                candle = known if again else a_candle(number, version, known.symbol, known.timeframe)
                _append(world, candle, clock, clock[partition])
    for partition, records in world.log.items():
        world.stored[partition] = draw(st.integers(0, len(records)))
        world.read[partition] = draw(st.integers(world.stored[partition], len(records)))
    return world


def _append(world: World, candle: Candle, clock: dict[int, int], now: int) -> None:
    partition = HOME[candle.symbol]
    clock[partition] = max(clock[partition], now)  # the broker's clock: it goes on by itself
    world.log[partition].append((clock[partition], candle))


def windows_after(world: World, since: int) -> set[tuple[str, str, int]]:
    return {
        key for partition in world.log for key, candle in world.newest(partition).items() if candle.close_time > since
    }


def read_topic(world: World, begins_at: int | None, wanted: Iterable[str]) -> list[Candle]:
    """As Kafka gives it: of each partition from the first record appended at or after a time up to the end."""
    candles = []
    for partition, records in world.log.items():
        first = next(
            (at for at, (time, _) in enumerate(records) if begins_at is None or time >= begins_at), len(records)
        )
        candles += [candle for _, candle in records[first : world.read[partition]] if candle.symbol in wanted]
    return candles


@settings(max_examples=300)
@given(worlds(), st.data())
def test_wherever_store_and_stream_meet_nothing_is_missing_and_nothing_comes_twice(
    world: World, data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True))
    closes = sorted({candle.close_time for records in world.log.values() for _, candle in records})
    since = data.draw(st.sampled_from([None, FIRST_US, *closes]))
    stored = [candle for number in world.log for candle in world.newest(number, world.stored[number]).values()]
    store = OhlcvStore(TIMEFRAMES, limit=LIMIT)
    join = Join(store, since)

    # From the store the newest of each series, and from the topic what the store may lack.
    for symbol in wanted:
        for timeframe in TIMEFRAMES:
            of_series = sorted(
                (each for each in stored if (each.symbol, each.timeframe) == (symbol, timeframe)),
                key=lambda each: each.open_time,
            )
            told_of = [each for each in of_series if since is not None and each.close_time > since]
            for candle in of_series[: len(of_series) - len(told_of)][-LIMIT:] + told_of:
                join.take(candle)
    begins_at = read_from(
        [NewestStored(each.symbol, each.close_time) for each in stored], wanted, lambda symbol: HOME[symbol]
    )
    for candle in read_topic(world, begins_at, wanted):
        join.take(candle)
    silent = {(symbol, name): list(store.get_series(symbol, name)) for symbol in wanted for name in TIMEFRAMES}

    # What is told, on the way and at the end, is what stands in the log.
    events: list[Closed | Corrected] = []
    for event in join.begin():
        assert store.get_latest(event.candle.symbol, event.candle.timeframe) == event.candle, "as of that event"
        events.append(event)
    backlog = len(events)
    for partition, records in world.log.items():
        for _, candle in records[world.read[partition] :]:
            if candle.symbol in wanted and (told := join.stream(candle)) is not None:
                events.append(told)
    newest = {key: each for number in world.log for key, each in world.newest(number).items() if key[0] in wanted}
    for symbol in wanted:
        for name in TIMEFRAMES:
            expected = sorted((each for key, each in newest.items() if key[:2] == (symbol, name)), key=_open_time)
            assert list(store.get_series(symbol, name)) == expected[-LIMIT:]
            assert all(since is None or each.close_time <= since for each in silent[symbol, name])

    known = {(each.symbol, each.timeframe, each.open_time): each for kept in silent.values() for each in kept}
    closed = []
    for event in events:
        candle = event.candle
        key = (candle.symbol, candle.timeframe, candle.open_time)
        if isinstance(event, Closed):
            assert key not in known, "told once"
            closed.append(key)
        else:
            assert isinstance(event, Corrected)
            assert event.replaced == known.get(key)
            assert event.replaced is None or event.replaced.version < candle.version
        known[key] = candle
    for key, candle in known.items():
        assert candle.version <= newest[key].version
    if since is not None:
        at_first = {
            key: candle
            for number in world.log
            for key, candle in world.newest(number, world.read[number]).items()
            if key[0] in wanted and candle.close_time > since
        }
        in_order = sorted(
            at_first.values(), key=lambda each: (each.close_time, len(each.timeframe), each.timeframe, each.symbol)
        )
        assert [event.candle for event in events[:backlog]] == in_order
        assert {key for key in windows_after(world, since) if key[0] in wanted} <= known.keys()
    else:
        assert backlog == 0


def test_what_closed_at_one_time_is_told_by_timeframe_and_then_by_symbol() -> None:
    join = Join(OhlcvStore([60, 300]), since=FIRST_US)
    minutes = [a_candle(4, 3, symbol) for symbol in ("a:X", "b:Z")]
    for candle in (fives := a_candle(0, 9, "a:X", "5m"), *minutes[::-1]):
        join.take(candle)
    assert [event.candle for event in join.begin()] == [*minutes, fives]


def test_of_what_was_there_the_greatest_version_is_told_whatever_came_last() -> None:
    join = Join(OhlcvStore(), since=FIRST_US)
    for candle in (a_candle(1, 4), a_candle(0, 9), a_candle(0, 7)):
        join.take(candle)
    assert list(join.begin()) == [Closed(a_candle(0, 9)), Closed(a_candle(1, 4))]
    assert list(join.begin()) == []
    assert join.stream(a_candle(0, 8)) is None
    assert join.stream(a_candle(0, 10)) == Corrected(a_candle(0, 10), a_candle(0, 9))


def _open_time(candle: Candle) -> int:
    return candle.open_time


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        ([], ["a:X"], None),
        ([NewestStored("a:Y", 70)], ["a:X"], 70),
        ([NewestStored("a:X", 50), NewestStored("a:Y", 70)], ["a:X"], 70),
        ([NewestStored("a:Y", 70), NewestStored("a:X", 50)], ["a:X"], 70),
        ([NewestStored("a:X", 50), NewestStored("b:Z", 30)], ["a:X", "a:Y"], 50),
        ([NewestStored("a:X", 50), NewestStored("b:Z", 30)], ["a:X", "b:Z"], 30),
        ([NewestStored("a:X", 50)], ["a:X", "b:Z"], None),
    ],
)
def test_the_topic_is_read_from_the_newest_candle_of_the_partition_that_is_furthest_behind(
    stored: list[NewestStored], wanted: list[str], expected: int | None
) -> None:
    found = read_from(stored, wanted, lambda symbol: HOME[symbol])
    assert found == (None if expected is None else expected - APPENDED_BEFORE_US)
