"""The last 24 hours of a market as candles come, against all of them added up at once."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ashi.contracts import Candle, Timeframe
from ashi.contracts.decimals import EXACT, format_decimal
from ashi.contracts.timeframe import DAY_US, HOUR_US
from ashi_chart.markets.day import Day, Step, Summary
from samples.candles import FIRST_US, a_candle


def a_part(timeframe: str, number: int, version: int = 1) -> Candle:
    price = str(number * 13 % 17 + version)
    return a_candle(number, version, timeframe=timeframe, price=price, volume=Decimal(number + version) / 8)


def added_up(candles: list[Candle], ahead: Candle | None, step: Step, now: int) -> Summary:
    """The plain oracle: everything sorted, filtered and added up."""
    slot = step.slot_us
    since = (now // slot + 1) * slot - DAY_US
    inside = sorted((c for c in candles if c.open_time >= since), key=lambda c: c.open_time)
    before = [c for c in candles if since - slot <= c.open_time < since]
    closes: list[str] = []
    for start in range(since, max((c.open_time for c in inside), default=since) + 1, slot):
        of_slot = [c for c in inside if start <= c.open_time < start + slot]
        if start + slot <= now and (of_slot or closes):
            closes.append(format_decimal(of_slot[-1].close) if of_slot else closes[-1])
    live = [ahead] if ahead is not None and ahead.open_time >= since else []
    volume = quote_volume = Decimal(0)
    for candle in inside + live:
        volume, quote_volume = EXACT.add(volume, candle.volume), EXACT.add(quote_volume, candle.quote_volume)
    everything = inside + live
    first = max(before, key=lambda c: c.open_time).close if before else everything[0].open if everything else None
    last = everything[-1].close if everything else first
    return Summary(volume, quote_volume, first, last, tuple(closes))


@settings(max_examples=300)
@given(
    timeframe=st.sampled_from(["1h", "30m", "8h"]),
    events=st.lists(
        st.tuples(
            st.sampled_from(["closed", "closed", "closed", "live", "store", "correct", "sweep", "look"]),
            st.integers(0, 3),
            st.integers(1, 9),
        ),
        max_size=80,
    ),
)
def test_a_day_is_what_its_candles_add_up_to(timeframe: str, events: list[tuple[str, int, int]]) -> None:
    step = Step.of([Timeframe.parse(timeframe)])
    length = Timeframe.parse(timeframe).length_us
    day, known, store, ahead = Day(step), dict[int, Candle](), dict[int, Candle](), None
    number, is_exact, came, newest = 0, False, list[Candle](), 0
    for kind, steps, growth in events:
        now = FIRST_US + number * length + length // 3
        version = newest + growth  # of what comes later it is greater, as in the topic
        if kind == "closed":
            part = a_part(timeframe, number, version)
            known[number], ahead, newest = part, None, version
            came.append(part)
            is_exact = day.take_closed(part) and is_exact
            number += 1 + max(steps - 1, 0)
        elif kind == "correct" and known:
            old = sorted(known)[-1 - min(steps, len(known) - 1)]
            is_again = growth % 3 == 0
            part = known[old] if is_again else a_part(timeframe, old, version)
            told = day.take_closed(part)
            came.append(part)
            if not is_again:
                known[old], newest = part, version
                is_exact = is_exact and told
        elif kind == "live":
            part = a_part(timeframe, number, version if steps else newest)
            day.take_live(part)
            if ahead is None or part.version > ahead.version:
                ahead = part
        elif kind == "store":
            store = dict(known)
        elif kind == "sweep":
            since = step.start(now) - step.slot_us
            took = day.take_all([store[each] for each in sorted(store) if store[each].open_time >= since])
            lacking = [part for each, part in known.items() if store.get(each) != part]
            assert took or lacking
            if took:
                is_exact = all(part in came[-step.recent :] for part in lacking)
        elif is_exact:
            assert day.look(now) == added_up(list(known.values()), ahead, step, now)


def swept(*parts: Candle, timeframe: str = "1h") -> Day:
    day = Day(Step.of([Timeframe.parse(timeframe)]))
    assert day.take_all(parts)
    return day


def test_before_a_store_was_asked_nothing_is_known() -> None:
    day = Day(Step.of([Timeframe.parse("1h")]))
    day.take_closed(a_part("1h", 0))
    assert day.look(FIRST_US + HOUR_US) is None


def test_what_came_while_the_store_was_read_and_is_not_in_it_counts() -> None:
    day = Day(Step.of([Timeframe.parse("1h")]))
    day.take_closed(a_part("1h", 1))
    assert day.take_all([a_part("1h", 0)])
    summary = day.look(FIRST_US + 2 * HOUR_US)
    assert summary is not None
    assert summary.volume == a_part("1h", 0).volume + a_part("1h", 1).volume


def test_a_store_that_lacks_what_is_not_remembered_is_to_be_asked_again() -> None:
    day = swept(a_part("1h", 0))
    for number in range(1, 5):
        day.take_closed(a_part("1h", number))
    before = day.look(FIRST_US + 5 * HOUR_US)
    assert not day.take_all([a_part("1h", 0)])
    assert day.look(FIRST_US + 5 * HOUR_US) == before
    assert day.take_all([a_part("1h", number) for number in range(3)])
    assert day.look(FIRST_US + 5 * HOUR_US) == before


def test_a_correction_counts_where_an_hour_is_one_candle_and_else_a_store_has_to_tell() -> None:
    day = swept(*(a_part("1h", number) for number in range(5)))
    assert day.take_closed(a_part("1h", 2, version=7))
    summary = day.look(FIRST_US + 5 * HOUR_US)
    assert summary is not None
    assert summary.volume == sum(a_part("1h", n, 7 if n == 2 else 1).volume for n in range(5))
    halves = swept(*(a_part("30m", number) for number in range(5)), timeframe="30m")
    assert not halves.take_closed(a_part("30m", 2, version=7))
    assert halves.take_closed(a_part("30m", 2, version=1))  # one that comes again is none
    flat_later = swept(a_part("30m", 0, version=9), a_part("30m", 1, version=3), timeframe="30m")
    assert flat_later.take_closed(a_part("30m", 0, version=9))


def test_the_day_goes_on_though_nothing_comes() -> None:
    day = swept(*(a_part("1h", number) for number in range(24)))
    now = FIRST_US + DAY_US - 1
    full, later = day.look(now), day.look(now + 20 * HOUR_US)
    assert full is not None
    assert later is not None
    assert (len(full.closes), later.closes) == (23, (*full.closes[20:], str(a_part("1h", 23).close)))
    assert later.before == a_part("1h", 19).close
    over = day.look(now + 30 * HOUR_US)
    assert over == Summary(Decimal(0), Decimal(0), None, None, ())


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (["1m", "5m", "1h", "1d"], Step("1h", HOUR_US)),
        (["1m", "4h"], Step("1m", HOUR_US)),
        (["4h", "1d"], Step("4h", 4 * HOUR_US)),
        (["45m"], Step("45m", 45 * 60_000_000)),
    ],
)
def test_a_day_is_made_of_the_fewest_candles_that_tell_an_hour(stored: list[str], expected: Step) -> None:
    assert Step.of([Timeframe.parse(each) for each in stored]) == expected
