"""Trying again: how long the backoff waits, and when the loop around it gives up."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.runtime import retry as module
from ashi.runtime.retry import Backoff, retry


@given(st.integers(1, 40), st.floats(0, 1))
def test_a_wait_is_never_longer_than_a_ceiling_that_doubles_up_to_the_cap(tries, share):
    backoff = Backoff(0.5, 30.0, uniform=lambda low, high: low + (high - low) * share)
    waits = [backoff.next_s() for _ in range(tries)]
    ceilings = [min(0.5 * 2**number, 30.0) for number in range(tries)]
    assert waits == pytest.approx([ceiling * share for ceiling in ceilings])


def test_waits_are_spread_over_the_whole_range_below_the_ceiling():
    uniform = random.Random(5).uniform
    waits = [Backoff(10.0, 30.0, uniform=uniform).next_s() for _ in range(1000)]
    assert min(waits) < 0.5
    assert max(waits) > 9.5
    assert 4.5 < sum(waits) / len(waits) < 5.5


def test_a_connection_that_lived_longer_than_could_be_waited_for_it_resets_the_backoff():
    backoff = Backoff(0.5, 30.0, uniform=lambda low, high: high)
    assert [backoff.next_s() for _ in range(3)] == [0.5, 1.0, 2.0]
    backoff.lived(2.0)
    assert backoff.next_s() == 4.0
    backoff.lived(4.1)
    assert backoff.next_s() == 0.5


def test_a_connection_that_delivered_nothing_does_not_reset_the_backoff():
    backoff = Backoff(0.5, 30.0, uniform=lambda low, high: high)
    backoff.next_s()
    backoff.lived(0.0)
    assert backoff.next_s() == 1.0


class Attempts:
    """Fails as often as it is told to, on a clock that only waiting moves."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.now_s = 0.0
        self.waits = []
        self.told = []

    async def attempt(self):
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.now_s += seconds

    def run(self, monkeypatch, *, least_wait_s=lambda _: 0.0, **options):
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now_s)

        async def main():
            return await retry(
                self.attempt,
                least_wait_s=least_wait_s,
                backoff=Backoff(1.0, 4.0, uniform=lambda low, high: high),
                on_wait=lambda error, wait_s: self.told.append((str(error), wait_s)),
                sleep=self.sleep,
                **options,
            )

        return asyncio.run(main())


def test_what_fails_is_tried_again_after_longer_and_longer_waits(monkeypatch):
    attempts = Attempts(OSError("a"), OSError("b"), OSError("c"), OSError("d"))
    assert attempts.run(monkeypatch) == "done"
    assert attempts.waits == [1.0, 2.0, 4.0, 4.0]
    assert attempts.told == [("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 4.0)]


def test_a_wait_that_was_asked_for_is_kept_and_spread_beyond_it(monkeypatch):
    """All who were sent away together must not come back together."""
    attempts = Attempts(OSError(), OSError())
    attempts.run(monkeypatch, least_wait_s=lambda _: 60.0)
    assert attempts.waits == [61.0, 62.0]


def test_an_error_that_will_not_go_away_is_raised_at_once(monkeypatch):
    attempts = Attempts(OSError(), KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        attempts.run(monkeypatch, least_wait_s=lambda error: 0.0 if isinstance(error, OSError) else None)
    assert attempts.waits == [1.0]


def test_patience_ends_before_the_attempt_that_would_come_too_late(monkeypatch):
    attempts = Attempts(*[OSError(number) for number in range(9)])
    with pytest.raises(OSError, match="2"):
        attempts.run(monkeypatch, patience_s=5.0)
    assert attempts.waits == [1.0, 2.0]


def test_after_so_many_attempts_the_last_error_is_raised(monkeypatch):
    attempts = Attempts(*[OSError(number) for number in range(9)])
    with pytest.raises(OSError, match="2"):
        attempts.run(monkeypatch, max_attempts=3)
    assert attempts.waits == [1.0, 2.0]


def test_waiting_may_end_the_attempts(monkeypatch):
    attempts = Attempts(OSError())

    async def stopped(seconds):
        raise RuntimeError("stopped")

    attempts.sleep = stopped
    with pytest.raises(RuntimeError, match="stopped"):
        attempts.run(monkeypatch)
