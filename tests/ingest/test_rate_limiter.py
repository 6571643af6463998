"""Turns to ask a venue: their order, their distance, and pauses."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from ashi_ingest.rate_limiter import RateLimiter


class Time:
    """A clock that only sleeping moves, and a task that sleeps less than it asked for, as timers do."""

    def __init__(self, short=0.0):
        self.now_s = 1000.0
        self.short = short

    def clock(self):
        return self.now_s

    async def sleep(self, seconds):
        await asyncio.sleep(0)
        self.now_s += max(seconds - self.short, seconds / 2, 1e-6)


def test_turns_come_in_the_order_of_asking_and_never_closer_than_the_interval():
    async def run():
        time = Time(short=0.3)
        limiter = RateLimiter(1.0, clock_s=time.clock, sleep=time.sleep)
        turns = []

        async def take(name):
            await limiter.turn()
            turns.append((name, time.now_s))

        await asyncio.gather(*(take(name) for name in range(5)))
        assert [name for name, _ in turns] == [0, 1, 2, 3, 4]
        times = [at_s for _, at_s in turns]
        assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in pairwise(times))
        assert times[-1] - times[0] < 4.1

    asyncio.run(run())


def test_a_heavy_turn_makes_the_next_one_wait_as_many_intervals():
    async def run():
        time = Time()
        limiter = RateLimiter(0.5, clock_s=time.clock, sleep=time.sleep)
        await limiter.turn(25)
        assert time.now_s == 1000.0
        await limiter.turn()
        assert time.now_s == pytest.approx(1012.5)

    asyncio.run(run())


def test_unused_time_is_not_saved_up_for_a_burst():
    async def run():
        time = Time()
        limiter = RateLimiter(1.0, clock_s=time.clock, sleep=time.sleep)
        await limiter.turn()
        time.now_s += 100.0
        await limiter.turn()
        before_s = time.now_s
        await limiter.turn()
        assert time.now_s - before_s == pytest.approx(1.0)

    asyncio.run(run())


def test_whoever_is_cancelled_while_waiting_uses_up_no_turn():
    async def run():
        time = Time()

        async def sleep(seconds):
            await (time.sleep(seconds) if free else blocked.wait())

        limiter = RateLimiter(1.0, clock_s=time.clock, sleep=sleep)
        blocked, free = asyncio.Event(), False
        await limiter.turn()
        waiting = [asyncio.create_task(limiter.turn()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        free = True
        await limiter.turn()
        assert time.now_s == pytest.approx(1001.0)

    asyncio.run(run())


def test_a_pause_holds_back_even_who_waits_already():
    async def run():
        time = Time()
        limiter = RateLimiter(1.0, clock_s=time.clock, sleep=time.sleep)
        await limiter.turn()
        waiting = asyncio.create_task(limiter.turn())
        await asyncio.sleep(0)
        limiter.pause(60.0)
        limiter.pause(5.0)
        await waiting
        assert time.now_s == pytest.approx(1060.0)

    asyncio.run(run())
