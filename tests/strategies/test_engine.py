"""When the engine deals with what, what it tells, and what it does about strategies that do what they must not."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import pytest
from strategy_samples import Views, a_candle, a_plan

from ashi.contracts.candle import Candle
from ashi.contracts.errors import StrategyError, UsageError
from ashi.contracts.feed import FeedGap
from ashi.contracts.signal import Signal
from ashi_series.events import Closed, Corrected, Gap, InProgress
from ashi_strategies import Strategy, Target, long
from ashi_strategies.engine import PATIENCE_US, Engine
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US

NOW = FIRST_US + 1_000 * MINUTE_US
GAP = FeedGap(BTC, FIRST_US, None, "open", 0, "silent for 30 s", NOW)


class Each(Strategy):
    """Long at every candle, and keeps a book of what it is called with."""

    symbols_together = True
    startup_candles = 1

    book: ClassVar[list[Any]] = []

    def on_candle(self, candle: Candle, series: Any) -> Target | None:
        self.book.append((candle.symbol, candle.timeframe, minute(candle.close_time)))
        return long()

    def on_correction(self, candle: Candle, series: Any) -> None:
        self.book.append(("corrected", minute(candle.close_time), [int(one.close) for one in series]))

    def on_gap(self, gap: FeedGap) -> None:
        self.book.append(gap)


@pytest.fixture(autouse=True)
def book() -> list[Any]:
    Each.book.clear()
    return Each.book


def minute(time: int) -> int:
    return (time - FIRST_US) // MINUTE_US


def an_engine(symbols: Any = (BTC,), timeframes: Any = (), warm: bool = True, **more: Any) -> Engine:
    """One that has had a candle of each series before the first minute, so that the next one's signal counts."""
    engine = Engine(a_plan(Each, symbols, timeframes), **more)
    if warm:
        before = [
            msgspec.structs.replace(
                candle, open_time=FIRST_US - back * length, close_time=FIRST_US - (back - 1) * length
            )
            for symbol, timeframe in engine.plan.startup
            for candle in [a_candle(0, 1, 1, symbol, str(timeframe))]
            for length in [timeframe.length_us]
            for back in (2, 1)
        ]
        engine.feed(map(Closed, before), 0)
        engine.finish()
        Each.book.clear()
    return engine


def closed(*candles: Candle) -> list[Closed]:
    return [Closed(candle) for candle in candles]


def where(signals: list[Signal]) -> list[tuple[str, str, int, bool, str]]:
    return [
        (signal.symbol, signal.timeframe, minute(signal.close_time), signal.all_closed, signal.status)
        for signal in signals
    ]


def test_a_close_time_waits_for_all_series_and_is_dealt_with_in_the_order_of_timeframe_and_symbol(book: Any) -> None:
    engine = an_engine([ETH, BTC], ["2m", "1m"])
    assert where(engine.feed(closed(a_candle(0, symbol=BTC)), NOW)) == []
    assert [each[:3] for each in where(engine.feed(closed(a_candle(0, symbol=ETH)), NOW))] == [
        (ETH, "1m", 1),
        (BTC, "1m", 1),
    ]
    two = [a_candle(0, 1, 1, symbol, "2m") for symbol in (BTC, ETH)]
    assert engine.feed(closed(*two, a_candle(1, symbol=BTC)), NOW) == []
    assert engine.pending == 1
    assert where(engine.feed(closed(a_candle(1, symbol=ETH)), NOW)) == [
        (ETH, "1m", 2, True, "active"),
        (BTC, "1m", 2, True, "active"),
        (ETH, "2m", 2, True, "active"),
        (BTC, "2m", 2, True, "active"),
    ]
    assert book[2:] == [(ETH, "1m", 2), (BTC, "1m", 2), (ETH, "2m", 2), (BTC, "2m", 2)]


def test_a_series_whose_candle_does_not_come_is_waited_for_five_seconds(book: Any) -> None:
    engine = an_engine([BTC, ETH])
    engine.feed(closed(a_candle(0)), NOW)
    engine.feed(closed(a_candle(1)), NOW + 1)
    assert engine.tick(NOW + PATIENCE_US - 1) == []
    assert where(engine.tick(NOW + PATIENCE_US)) == [(BTC, "1m", 1, False, "active")]
    assert engine.done == a_candle(0).close_time
    assert where(engine.tick(NOW + PATIENCE_US + 1)) == [(BTC, "1m", 2, False, "active")]
    assert engine.pending == 0
    assert PATIENCE_US == 5_000_000


def test_a_series_that_has_gone_on_is_not_waited_for(book: Any) -> None:
    engine = an_engine([BTC, ETH])
    engine.feed(closed(a_candle(0)), NOW)
    assert where(engine.feed(closed(a_candle(1, symbol=ETH)), NOW)) == [(BTC, "1m", 1, False, "active")]


def test_a_candle_that_was_awaited_in_vain_supersedes_what_was_said_without_it(book: Any) -> None:
    engine = an_engine([BTC, ETH])
    engine.feed(closed(a_candle(0)), NOW)
    (alone,) = engine.tick(NOW + PATIENCE_US)
    later = NOW + 60_000_000
    signals = engine.feed(closed(a_candle(0, symbol=ETH)), later)
    assert where(signals) == [
        (ETH, "1m", 1, True, "active"),
        (BTC, "1m", 1, False, "superseded"),
        (BTC, "1m", 1, True, "active"),
    ]
    assert signals[1] == msgspec.structs.replace(alone, status="superseded", updated_at=later)
    assert [signal.revision for signal in signals] == [0, 0, 1]
    assert book[-1] == ("corrected", 1, [1, 1, 100]), "it is told once it has been run again"


def test_a_correction_gives_the_signal_anew_with_the_greater_version_and_tells_the_strategy(book: Any) -> None:
    engine = an_engine()
    (given,) = engine.feed(closed(a_candle(0, 100, 5)), NOW)
    assert (given.version, given.revision, given.price, given.updated_at) == (5, 0, 100, NOW)
    assert engine.feed(closed(a_candle(0, 100, 5), a_candle(0, 90, 4)), NOW) == []
    assert where(engine.feed([Corrected(a_candle(0, 101, 6), a_candle(0, 100, 5))], NOW + 9)) == [
        (BTC, "1m", 1, True, "superseded"),
        (BTC, "1m", 1, True, "active"),
    ]
    assert [(one.version, one.revision, one.price, one.updated_at) for one in engine.signals()[-1:]] == [
        (6, 0, 101, NOW + 9)
    ]
    assert book[-1] == ("corrected", 1, [1, 1, 101])


def test_candles_in_progress_of_other_series_and_gaps_of_other_symbols_are_passed_over(book: Any) -> None:
    engine = an_engine()
    others = closed(a_candle(0, symbol=ETH), a_candle(0, timeframe="5m"))
    assert engine.feed([*others, InProgress(a_candle(0)), Gap(msgspec.structs.replace(GAP, symbol=ETH))], NOW) == []
    assert (engine.pending, book) == (0, [])
    engine.feed([Gap(GAP)], NOW)
    assert book == [GAP]


def test_whether_a_candle_is_complete_is_said_as_far_as_it_is_known_and_is_no_change() -> None:
    engine = an_engine()
    said = engine.feed([Closed(a_candle(0), is_complete=True), Closed(a_candle(1)), Closed(a_candle(2), False)], NOW)
    assert [signal.is_complete for signal in said] == [True, None, False]
    assert engine.feed([Closed(a_candle(2), is_complete=True)], NOW) == []
    corrected = engine.feed([Corrected(a_candle(0, 101, 6), a_candle(0))], NOW)
    assert [(signal.status, signal.is_complete) for signal in corrected] == [("superseded", True), ("active", None)]


def test_without_a_clock_a_signal_is_of_the_time_of_its_candle() -> None:
    engine = an_engine()
    (signal,) = engine.feed(closed(a_candle(0)))
    assert signal.updated_at == signal.close_time


def test_what_is_known_is_not_given_again_and_what_is_not_said_any_more_is_taken_back() -> None:
    first = an_engine()
    given = first.feed(closed(a_candle(0), a_candle(1), a_candle(2)), NOW)
    assert len(given) == 3
    wrong = msgspec.structs.replace(given[1], target="short")
    other = msgspec.structs.replace(given[2], strategy="another")
    again = an_engine(known=[given[0], wrong, other])
    said = again.feed(closed(a_candle(0), a_candle(1), a_candle(2)), NOW + 5)
    assert [(minute(one.close_time), one.target, one.status, one.revision) for one in said] == [
        (2, "short", "superseded", 0),
        (2, "long", "active", 1),
        (3, "long", "active", 0),
    ]


def test_a_signal_of_a_version_that_is_still_to_come_stands_until_it_does() -> None:
    """A store that is behind the topic gives an older candle; nothing may be taken back for that."""
    (given,) = an_engine().feed(closed(a_candle(0, 101, 7)), NOW)
    again = an_engine(known=[given])
    assert again.feed(closed(a_candle(0, 100, 5)), NOW) == []
    assert again.feed(closed(a_candle(0, 101, 7)), NOW) == []
    assert again.signals()[-1] == given


def test_no_signal_is_given_at_or_before_the_time_it_is_to_begin_after() -> None:
    engine = an_engine(since=FIRST_US + MINUTE_US)
    assert where(engine.feed(closed(a_candle(0), a_candle(1)), NOW)) == [(BTC, "1m", 2, True, "active")]
    assert engine.feed(closed(a_candle(0, 99, 2)), NOW) == []


def test_nothing_counts_before_it_has_had_its_startup_candles_and_it_says_how_many_are_lacking() -> None:
    plan = a_plan(Views, length=3)
    ((key, count),) = plan.history.items()
    assert count == 5
    engine = Engine(plan)
    assert engine.shortage() == {key: 5}
    engine.feed(closed(*(a_candle(window) for window in range(4))), NOW)
    assert (engine.is_warm, engine.shortage(), engine.signals()) == (False, {key: 1}, [])
    engine.feed(closed(a_candle(4)), NOW)
    assert (engine.is_warm, engine.shortage()) == (True, {})


def test_what_is_kept_is_bounded_and_a_correction_out_of_reach_is_counted() -> None:
    """Signals there stand, as nobody can say any more what the strategy would say."""
    engine = an_engine(warm=False, reach=10)
    given = engine.feed(closed(*(a_candle(window) for window in range(1_000))), NOW)
    assert engine.out_of_reach == 0
    kept = engine._series[BTC, engine.plan.history.copy().popitem()[0][1]]
    assert len(kept) == kept.limit == 13
    assert engine.feed(closed(a_candle(3, 99, 2)), NOW) == []
    assert engine.out_of_reach == 1
    oldest = minute(kept[0].open_time)
    superseded, anew = engine.feed(closed(a_candle(oldest + 5, 99, 2)), NOW)
    assert (superseded.status, anew.status) == ("superseded", "active")
    assert engine.feed(closed(a_candle(oldest, 99, 2)), NOW) == []
    assert engine.out_of_reach == 2
    assert len(given) == 999
    assert where(engine.feed(closed(a_candle(1_000)), NOW)) == [(BTC, "1m", 1_001, True, "active")]


def test_a_correction_that_cannot_be_followed_does_not_silence_a_strategy_that_had_had_enough() -> None:
    """What is kept of a busy market reaches back less far than the candles of a quiet one that a new instance needs."""
    engine = Engine(a_plan(type("Two", (Each,), {"startup_candles": 2}), [BTC, ETH]), reach=0)
    busy, quiet = (
        [a_candle(window) for window in range(100)],
        [a_candle(window, symbol=ETH) for window in range(0, 95, 19)],
    )
    engine.feed(closed(*busy, *quiet), NOW)
    engine.finish()
    assert engine.is_warm
    engine.feed(closed(a_candle(95, 99, 2)), NOW)
    assert engine.out_of_reach > 0
    engine.feed(closed(a_candle(100)), NOW)
    assert where(engine.finish()) == [(BTC, "1m", 101, False, "active")]


@pytest.mark.parametrize("changed", ["strength", "labels"])
def test_whatever_else_a_signal_says_is_not_changed_in_silence_either(changed: str) -> None:
    """Also where its own candle is as it was, and another series' was corrected."""

    class Says(Views):
        def on_candle(self, candle: Candle, series: Any) -> Target | None:
            close = series.of(ETH)[-1].close
            return long(strength=close / 100) if changed == "strength" else long(other=close)

    engine = Engine(a_plan(Says, [BTC, ETH], length=1))
    candles = [a_candle(window, 50, 1, symbol) for window in range(3) for symbol in (BTC, ETH)]
    engine.feed(closed(*candles), NOW)
    said = engine.feed(closed(a_candle(2, 51, 2, ETH)), NOW)
    assert [(one.symbol, one.status, one.version, one.revision) for one in said] == [
        (ETH, "superseded", 1, 0),
        (ETH, "active", 2, 0),
        (BTC, "superseded", 1, 0),
        (BTC, "active", 1, 1),
    ]


def test_signals_and_what_is_known_of_candles_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = an_engine(reach=10)
    engine._given._prune_at = 50
    for window in range(30_000):
        engine.feed([Closed(a_candle(window), is_complete=True)], NOW)
    assert len(engine._given) < 25_000
    engine._given._prune_at = 0
    engine.feed(closed(a_candle(30_000)), NOW)
    said = engine.feed(closed(a_candle(29_992, 99, 2)), NOW)
    assert where(said)[0] == (BTC, "1m", 29_993, True, "superseded"), "what may still be corrected is not forgotten"


def test_what_a_strategy_raises_is_told_with_its_place() -> None:
    class Broken(Views):
        def on_candle(self, candle: Candle, series: Any) -> Target | None:
            raise KeyError("closes")

    place = "the 1m candle of bitflyer:BTC_JPY that closed at 2022-01-01 00:01:00"
    line = rf"{__file__}:{Broken.on_candle.__code__.co_firstlineno + 1}"
    told = rf"^strategy broken\(.*\) raised KeyError at {place}: 'closes' \({line}\)$"
    with pytest.raises(StrategyError, match=told) as error:
        Engine(a_plan(Broken, length=1)).feed(closed(a_candle(0)), NOW)
    assert isinstance(error.value.__cause__, KeyError)


@pytest.mark.parametrize("method", ["__post_init__", "on_candle", "on_correction", "on_gap"])
def test_a_strategy_that_calls_exit_ends_nothing_in_silence(method: str) -> None:
    def leave(*_: Any) -> None:
        sys.exit()

    plan = replace(a_plan(Each), strategy=type("Leaves", (Each,), {method: leave}))

    def run() -> None:
        engine = Engine(plan)
        engine.feed(closed(a_candle(0)), NOW)
        engine.feed([*closed(a_candle(0, 99, 2)), Gap(GAP)], NOW)

    with pytest.raises(StrategyError, match=r"^strategy each.* raised SystemExit at [^(]*[a-z0-9_] \(.*\)$"):
        run()


def test_labels_that_a_strategy_keeps_and_changes_stay_in_its_earlier_signals() -> None:
    class Keeps(Each):
        def __post_init__(self) -> None:
            self.labels = {"count": "0"}

        def on_candle(self, candle: Candle, series: Any) -> Target | None:
            self.labels["count"] = str(int(self.labels["count"]) + 1)
            return Target("long", labels=self.labels)

    engine = Engine(a_plan(Keeps))
    said = engine.feed(closed(*map(a_candle, range(3))), NOW)
    assert [signal.labels["count"] for signal in said] == ["2", "3"]


@pytest.mark.parametrize("method", ["on_correction", "on_gap"])
def test_what_it_raises_when_it_is_told_something_is_told_too(method: str) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no")

    broken = type("Broken", (Each,), {method: fail})
    engine = Engine(a_plan(broken))
    engine.feed(closed(a_candle(0)), NOW)
    with pytest.raises(StrategyError, match=f"raised ValueError at {method}: no"):
        engine.feed(closed(a_candle(0, 99, 2)) if method == "on_correction" else [Gap(GAP)], NOW)


@pytest.mark.parametrize("said", ["buy", True, [long()], Target("buy")])  # type: ignore[arg-type]
def test_what_is_no_target_is_refused(said: Any) -> None:
    class Wrong(Views):
        def on_candle(self, candle: Candle, series: Any) -> Target | None:
            return said  # type: ignore[no-any-return]

    with pytest.raises(
        StrategyError, match=r"strategy wrong\(bitflyer:BTC_JPY,length=1\) said .* on_candle must return long"
    ):
        Engine(a_plan(Wrong, length=1)).feed(closed(a_candle(0)), NOW)


def test_a_target_that_no_signal_may_hold_is_refused() -> None:
    class Loud(Views):
        def on_candle(self, candle: Candle, series: Any) -> Target | None:
            return Target("long", reason="x" * 501)

    with pytest.raises(StrategyError, match=r"strategy loud\(.*reason 'x+' has 501 characters"):
        Engine(a_plan(Loud, length=1)).feed(closed(a_candle(0)), NOW)


def test_a_strategy_is_handed_exactly_what_it_declares_and_nothing_later() -> None:
    handed = []

    class Looks(Views):
        def on_candle(self, candle: Candle, series: Any) -> Target | None:
            other = series.of(ETH)
            handed.append((len(series), series.last, len(other), other.last.close_time - candle.close_time))
            with pytest.raises(IndexError):
                series[len(series)]
            assert series.at(candle.close_time) is None
            with pytest.raises(UsageError, match="no series gmo:BTC 1m: it declares binance:ETHUSDT 1m, bitflyer"):
                series.of("gmo:BTC")
            assert len(series.until(2**60)) == len(series)
            assert list(series.of()) == list(series)
            return None

    engine = Engine(a_plan(Looks, [BTC, ETH], length=3))
    candles = [a_candle(window, window + 1, 1, symbol) for window in range(6) for symbol in (BTC, ETH)]
    engine.feed(closed(*candles), NOW)
    engine.feed(closed(a_candle(3, 50, 2)), NOW)  # it is run again, and later candles are there
    assert {(length, other, apart) for length, _, other, apart in handed} == {(3, 3, 0)}
    assert len(handed) == 2 * 4 + 2 * 4
