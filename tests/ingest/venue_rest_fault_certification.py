"""What a worker of every venue must do when the venue's REST interface lags, refuses, or answers something else."""

from __future__ import annotations

import pytest
from rehearsal import Rehearsal, Rehearsed

from ashi.contracts.topics import TRADES
from ashi_simulator.faults import SHAPES

FIRST_ANSWER_S = 10.0
"""Live trades wait at most so long for the first answer of a repair."""


class RestFaultCertification(Rehearsed):
    """The part of the suite about REST."""

    @pytest.mark.parametrize(("rate", "lag_s"), [(3.0, 20), (0.2, 3)])
    def test_rest_that_lags_is_not_believed_before_it_knows_the_time_after_the_gap(
        self, rate: float, lag_s: int
    ) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.fault("rest_lag", milliseconds=1000 * lag_s, seconds=200.0)
            for _ in range(3):
                run.fault("silence", seconds=7.0)
                await run.pause(60)
            await run.pause(120)

        run = self.rehearsal(rate).run(act)
        assert_repaired(run)

    def test_a_lag_that_nobody_has_seen_before_is_allowed_for(self) -> None:
        """Of markets that trade rarely no trade after the interruption tells that REST knows the time after it."""

        async def act(run: Rehearsal) -> None:
            await run.pause(120)
            run.fault("rest_lag", milliseconds=20_000, seconds=300.0)
            run.fault("silence", seconds=7.0)
            await run.pause(300)

        run = Rehearsal(self.name, self.many(12), rate=0.6).run(act)
        assert_repaired(run)

    def test_rest_that_refuses_for_a_while_is_asked_again(self) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            for status in (403, 451, 503):
                run.fault("rest_refuse", status=status, seconds=40.0)
                run.fault("silence", seconds=5.0)
                await run.pause(5)
                await run.until(lambda: set(self.simulated) <= set(run.sim.subscribed), 20)
                await run.pause(FIRST_ANSWER_S + 2)
                published = published_trades(run)
                await run.pause(10)
                assert published_trades(run) > published, "live trades do not wait longer"
                await run.pause(120)

        run = self.rehearsal().run(act)
        assert_repaired(run)

    def test_a_venue_that_says_when_to_come_again_is_left_alone_until_then(self) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.fault("rest_refuse", status=429, seconds=40.0, retry_after_s=40, banned=True)
            await run.pause(25)  # until it is known: what is on its way while it is told comes too early
            run.fault("silence", seconds=5.0)
            await run.pause(200)
            assert run.sim.limits()["rest_too_early"] == 0

        run = self.rehearsal().run(act)
        assert_repaired(run)

    def test_a_ban_that_outlasts_the_patience_is_a_lost_gap_that_is_repaired_when_it_is_over(self) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.kafka.acknowledgment_s = lambda topic: 3.0 if topic == TRADES else 0.001
            run.fault("rest_refuse", status=418, seconds=300.0, retry_after_s=300, banned=True)
            run.fault("silence", seconds=5.0)
            await run.pause(250)
            states = {gap.state for symbol in run.reader.symbols.values() for gap in symbol.later_gaps()}
            assert "lost" in states
            await run.pause(250)

        run = self.rehearsal(settings={"ASHI_REPAIR_PATIENCE": "2m"}).run(act)
        assert_repaired(run)

    def test_rest_that_answers_something_else_is_asked_again(self) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            for shape in SHAPES:
                run.fault("rest_garbled", shape=shape, seconds=30.0)
                run.fault("silence", seconds=5.0)
                await run.pause(120)

        run = self.rehearsal().run(act)
        assert_repaired(run)


def published_trades(run: Rehearsal) -> int:
    return sum(record.topic == TRADES for record in run.kafka.log)


def assert_repaired(run: Rehearsal) -> None:
    """Nothing is missing, and no gap is left."""
    run.assert_told_the_truth()
    run.assert_all_is_known()
    assert all(gap.state == "repaired" for gaps in run.gaps.values() for gap in gaps), run.gaps
