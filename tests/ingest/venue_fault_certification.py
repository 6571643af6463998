"""What a worker of every venue must do when only a part fails, against the simulated venue, judged by a FeedReader.

Every test ends with the same three demands: topic `trades` is what was traded, the gaps are exact both ways, and at no
moment of the run did the rule call a window complete that lacked a trade.
"""

from __future__ import annotations

import itertools
from statistics import median

import pytest
from rehearsal import Rehearsal, Rehearsed

from ashi.contracts.topics import FEED_GAPS, TRADES
from ashi_simulator import possible_faults, random_script

FOUND_S = 60.0
MEDIANS = 10
LOST_FRAME_S = 120.0
"""Within this a frame lost in one of three markets without contiguous ids is found; see docs/venues.md."""


class FaultCertification(Rehearsed):
    """The part of the suite about connections and single markets.

    `paced_apart_s`: so far apart are the subscriptions of a venue that takes one message a market; else None.
    """

    paced_apart_s: float | None = None

    @pytest.mark.parametrize(("rate", "seconds"), [(3.0, 600), (0.1, 3600)])
    def test_without_a_fault_there_is_no_gap_and_no_resubscription_and_all_is_known(
        self, rate: float, seconds: float
    ) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(10)
            before = run.sim.limits()
            await run.pause(seconds)
            after = run.sim.limits()
            for count in ("subscribe_messages", "connections"):
                assert after[count] == before[count], count
            assert after["rest_refused"] == after["rest_too_early"] == 0

        run = self.rehearsal(rate, uneven=True).run(act)
        assert not any(run.gaps.values()), run.gaps
        run.assert_told_the_truth()
        run.assert_all_is_known()

    def test_subscriptions_keep_the_pace_that_the_venue_documents_with_sixty_symbols(self) -> None:
        """At the start, and when all have to be made anew at once."""
        markets = self.many(60)

        async def act(run: Rehearsal) -> None:
            first = run.sim.limits()
            run.fault("drop")
            made_s = 60 + 2 * len(markets)
            await run.until(lambda: run.sim.limits()["subscribe_messages"] > first["subscribe_messages"], 10)
            await run.until(lambda: set(markets) <= set(run.sim.subscribed), made_s)
            again = run.sim.limits()
            assert again["subscribe_messages"] == 2 * first["subscribe_messages"]
            if self.paced_apart_s is not None:
                assert first["subscribe_messages"] == len(markets)
                assert again["subscribe_least_interval_s"] >= self.paced_apart_s
            assert again["subscribe_violations"] == 0

        Rehearsal(self.name, markets, rate=1.0, quiet_s=1.0).run(act)

    @pytest.mark.parametrize("number", range(3))
    def test_a_mute_market_is_found_and_subscribed_to_anew_and_its_neighbours_notice_nothing(self, number: int) -> None:
        market = self.simulated[number]

        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            connections, since_us = run.sim.limits()["connections"], run.now_us()
            run.fault("mute", market=market)
            await run.until(run.found_s(market, since_us), FOUND_S)
            await run.until(run.is_whole(market), 20)
            await run.pause(30)
            assert run.sim.limits()["connections"] == connections

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()
        assert [name for name, gaps in run.gaps.items() if gaps] == [run.symbol(market)]
        assert {gap.state for gap in run.gaps[run.symbol(market)]} == {"repaired"}

    def test_of_many_markets_the_mute_ones_are_found_as_soon(self) -> None:
        """Comparing all of them in turn takes longer."""
        markets = self.many(60)
        mute = markets[7::10]

        async def act(run: Rehearsal) -> None:
            await run.pause(120)
            since_us = run.now_us()
            for market in mute:
                run.fault("mute", market=market)
            await run.until(lambda: all(run.found_s(market, since_us)() for market in mute), FOUND_S + 5)
            await run.until(lambda: all(run.is_whole(market)() for market in mute), 30)

        run = Rehearsal(self.name, markets, rate=30.0).run(act)
        run.assert_told_the_truth()

    def test_a_mute_market_that_trades_rarely_is_found_within_ten_of_its_median_intervals(self) -> None:
        market = self.simulated[0]

        async def act(run: Rehearsal) -> None:
            await run.pause(900)
            truth = [trade.traded_at for trade in run.sim.truth(markets=[market])]
            interval_s = median(later - earlier for earlier, later in itertools.pairwise(truth)) / 1e6
            since_us = run.now_us()
            run.fault("mute", market=market)
            count = len(truth)
            await run.until(lambda: len(run.sim.truth(markets=[market])) > count, 600)
            await run.until(run.found_s(market, since_us), max(FOUND_S, MEDIANS * interval_s))
            await run.until(run.is_whole(market), 60)

        run = self.rehearsal(rate=0.2).run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()

    def test_a_market_that_stays_mute_is_subscribed_to_again_and_again_and_told_of(self) -> None:
        market = self.simulated[0]

        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.fault("mute", market=market, resubscriptions=4)
            await run.pause(900)

        run = self.rehearsal(rate=1.0).run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()

    def test_a_single_frame_that_is_lost_is_found(self) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(30)
            for market in self.simulated:
                run.fault("lose", market=market)
            await run.pause(5)
            for market in self.simulated:
                await run.until(run.is_whole(market), LOST_FRAME_S)

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()

    @pytest.mark.parametrize("fault", ["subscribe_unanswered", "subscribe_refused"])
    def test_a_subscription_that_fails_costs_its_neighbours_nothing(self, fault: str) -> None:
        market = self.simulated[1]

        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.fault(fault, market=market, seconds=120.0)
            run.fault("drop")
            await run.pause(40)
            connections = run.sim.limits()["connections"]
            for other in set(self.simulated) - {market}:
                assert run.is_whole(other)()
                assert run.reader.symbols[run.symbol(other)].status.state == "connected"  # type: ignore[union-attr]
            await run.pause(60)
            assert run.sim.limits()["connections"] == connections
            await run.pause(400)

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()

    def test_subscriptions_that_take_effect_late_are_waited_for(self) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.fault("subscribe_late", delay_s=4.0, seconds=30.0)
            run.fault("drop")
            await run.pause(100)

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()

    def test_a_halt_is_no_mute_market_and_ends_by_itself(self) -> None:
        market = self.simulated[0]

        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            run.fault("halt", market=market, seconds=400.0)
            await run.pause(500)

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()
        assert not any(run.gaps.values()), run.gaps

    def test_faults_of_connections_end_with_exact_gaps_too(self) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            for fault, arguments in (
                ("drop", {}),
                ("close", {"code": 1012}),
                ("silence", {"seconds": 20.0}),
                ("half_frame", {}),
                ("lifetime", {"notice_s": 1.0}),
                ("refuse", {"seconds": 10.0}),
                ("slow", {"seconds": 20.0, "delay_s": 5.0}),
            ):
                run.fault(fault, **arguments)
                await run.pause(40)

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()

    @pytest.mark.parametrize("seed", [1, 2])
    def test_under_fifty_faults_every_trade_is_published_once_and_no_gap_stays_open(self, seed: int) -> None:
        """One a second, so that repairs meet each other. REST fails as often as it was told to, so it may take minutes
        then: what it refuses waits longer each time."""
        faults = possible_faults(self.name, self.simulated, partial=False)

        async def act(run: Rehearsal) -> None:
            await run.pause(4)  # a market that nothing was published of yet has nothing to go on from
            begun_s = run.monotonic_s()
            for step in random_script(seed, 50, self.name, self.simulated, faults=faults):
                await run.pause(max(begun_s + (step.at_s or 0.0) - run.monotonic_s(), 0.0))
                run.fault(step.fault, **step.args)
            await run.until(lambda: not any(symbol.open_gaps() for symbol in run.reader.symbols.values()), 600)

        run = self.rehearsal(15.0, seed=seed, quiet_s=60.0).run(act)
        run.reader.assert_never_misled()
        run.reader.assert_truth()
        for name, gaps in run.gaps.items():
            assert any(gap.state == "repaired" and gap.trades_recovered for gap in gaps), name
            # Of garbage that names a market whose ids do not show what is missing, nobody knows that it was no trade.
            left = [gap for gap in gaps if gap.state != "repaired" and "could not be published" not in gap.reason]
            assert not left, left

    def test_a_websocket_that_is_refused_after_a_first_success_is_weather(self) -> None:
        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            for status in (403, 404, 451, 429, 500):
                run.fault("handshake_refused", status=status, seconds=20.0)
                await run.pause(10)
                states = {symbol.status.state for symbol in run.reader.symbols.values() if symbol.status is not None}
                assert states == {"down"}, status
                await run.until(lambda: set(self.simulated) <= set(run.sim.subscribed), 300)
                await run.pause(30)

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()

    def test_what_is_said_waits_until_kafka_has_what_it_is_said_of(self) -> None:
        """Partitions have different leaders: trades may take seconds while a status takes none."""

        async def act(run: Rehearsal) -> None:
            run.kafka.acknowledgment_s = lambda topic: {TRADES: 3.0, FEED_GAPS: 2.0}.get(topic, 0.001)
            await run.pause(60)
            for market in self.simulated:
                run.fault("lose", market=market)
            run.fault("drop", connections="one")
            await run.pause(60)
            run.fault("silence", seconds=5.0)
            await run.pause(100)

        run = self.rehearsal().run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()
