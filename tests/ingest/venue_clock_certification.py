"""What a worker of every venue must do when the venue's clock is off."""

from __future__ import annotations

import pytest
from rehearsal import Rehearsal, Rehearsed

from ashi.contracts.topics import TRADES_DEAD


class ClockCertification(Rehearsed):
    """The part of the suite about clocks."""

    @pytest.mark.parametrize("offset_s", [50.0, 5.0, -5.0, -90.0])
    def test_a_clock_that_is_off_costs_no_trade_unnoticed(self, offset_s: float) -> None:
        """Of one that is behind it takes one to two periods to tell that not only one trade has come late.

        A break soon after each step: what was stamped by another clock is no evidence of what has happened since.
        """

        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.fault("rest_lag", milliseconds=3_000, seconds=220.0)
            run.fault("clock", offset_s=offset_s, seconds=150.0)
            await run.pause(2)
            run.fault("close", code=1012)
            await run.pause(98)
            reasons = [symbol.status.reason for symbol in run.reader.symbols.values() if symbol.status is not None]
            assert all((reason is not None and "clock" in reason) == (abs(offset_s) > 5) for reason in reasons), reasons
            await run.pause(52)
            run.fault("close", code=1012)
            await run.pause(8)
            run.fault("close", code=1012)
            await run.pause(340)

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        assert not any(record.topic == TRADES_DEAD for record in run.kafka.log)

    def test_what_was_refused_for_a_clock_that_is_ahead_comes_when_its_time_has_come(self) -> None:
        """After a break and a crash as well; and once: another crash after that brings none of it again."""

        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.fault("clock", offset_s=80.0, seconds=40.0)
            await run.pause(10)
            run.fault("close", code=1012)
            await run.pause(20)
            await run.kill()
            await run.start()
            await run.until(lambda: not run.lost_gaps(), 700)
            await run.kill()
            await run.start()
            await run.pause(20)

        run = self.rehearsal().run(act)
        assert any(record.topic == TRADES_DEAD for record in run.kafka.log)
        run.assert_told_the_truth()
        run.assert_all_is_known()
        assert all(gap.state == "repaired" for gaps in run.gaps.values() for gap in gaps), run.gaps
