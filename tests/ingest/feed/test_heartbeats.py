"""Heartbeats of many symbols: each at its moment, found without looking at all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ashi_ingest.feed.reporting.heartbeats import BEAT_US, Heartbeats, is_past, phase_of

SYMBOLS = [f"binance:M{number}USDT" for number in range(200)]
STEPS = st.lists(
    st.one_of(
        st.integers(0, 300_000),
        st.integers(-BEAT_US, 3 * BEAT_US),
        st.sampled_from([0, 1, BEAT_US - 1, BEAT_US, *((-phase_of(symbol)) % BEAT_US for symbol in SYMBOLS[:3])]),
    ),
    max_size=30,
)


@given(st.integers(10**15, 10**15 + BEAT_US), STEPS)
def test_each_symbol_whose_moment_has_come_is_found_and_in_small_steps_no_other(
    begin_us: int, steps: list[int]
) -> None:
    heartbeats = Heartbeats()
    for symbol in SYMBOLS:
        heartbeats.add(symbol)
    assert sorted(heartbeats.passed(begin_us)) == sorted(SYMBOLS)
    now_us = begin_us
    for step in steps:
        before_us, now_us = now_us, now_us + step
        due = [symbol for symbol in SYMBOLS if is_past(phase_of(symbol), before_us, now_us)]
        found = heartbeats.passed(now_us)
        assert len(found) == len(set(found))
        assert set(due) <= set(found)
        if 0 <= step < BEAT_US:
            assert sorted(found) == sorted(due)
