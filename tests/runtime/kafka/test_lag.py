"""How far a reader is behind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ashi.runtime.kafka.consuming.lag import Lag, LagWatch

SECOND = 1_000_000


def test_with_nothing_unread_there_is_no_lag_however_old_the_last_record_is() -> None:
    assert LagWatch().look(0, at=7, end=7, read_until=1, now=10**15) == Lag(0, 0.0)


def test_a_backlog_is_as_old_as_the_last_record_that_was_read() -> None:
    assert LagWatch().look(0, at=7, end=10, read_until=100 * SECOND, now=160 * SECOND) == Lag(3, 60.0)


def test_in_a_quiet_partition_a_new_record_is_no_older_than_the_last_look_that_found_none() -> None:
    watch = LagWatch()
    watch.look(0, at=7, end=7, read_until=SECOND, now=1_000 * SECOND)
    assert watch.look(0, at=7, end=8, read_until=SECOND, now=1_005 * SECOND) == Lag(1, 5.0)
    assert watch.look(1, at=7, end=8, read_until=SECOND, now=1_005 * SECOND) == Lag(1, 1_004.0), "of another partition"


def test_while_nothing_is_known_of_the_time_only_the_records_are_told() -> None:
    assert LagWatch().look(0, at=0, end=5, read_until=0, now=10**15) == Lag(5, None)


def test_a_clock_that_is_behind_gives_no_negative_lag() -> None:
    assert LagWatch().look(0, at=0, end=5, read_until=100 * SECOND, now=90 * SECOND) == Lag(5, 0.0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=40))
def test_the_lag_is_never_less_than_the_age_of_the_oldest_unread_record(steps: list[tuple[int, int, bool]]) -> None:
    watch, now, at = LagWatch(), SECOND, 0
    appended: list[int] = []
    for wait_s, read, appends in steps:
        now += wait_s * SECOND
        if appends:
            appended.append(now)
        at = min(at + read, len(appended))
        lag = watch.look(0, at=at, end=len(appended), read_until=appended[at - 1] if at else 0, now=now)
        assert lag.records == len(appended) - at
        if at < len(appended) and lag.seconds is not None:
            assert lag.seconds >= (now - appended[at]) / 1e6
            assert lag.seconds <= (now - max([0, *appended[:at]])) / 1e6
