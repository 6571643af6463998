"""What every venue's repair over REST must do, against a REST interface in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repairs import NOW, Outcome, bare, new_ones, run_plan
from venue_connection_certification import UNREADABLE, ConnectionCertification
from venue_samples import Execution, Rest, certifying, histories, one_a_second

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade
from ashi_ingest.venues.answers import MAX_TRIES
from ashi_ingest.venues.base import Request

uneven = settings(certifying, max_examples=25)
LAGS = st.lists(st.sampled_from([0, 0, 1, 30, 450, 900, 1100]), min_size=1, max_size=8)
"""By how many executions each answer lags behind the last one."""


class RepairCertification(ConnectionCertification):
    """The part of the suite about repairs."""

    @certifying
    @given(
        executions=histories(),
        known=st.integers(1, 40),
        live=st.none() | st.integers(0, 40),
        lag=st.integers(0, 6),
        arrivals=st.lists(st.integers(0, 3), max_size=MAX_TRIES - 2),
    )
    def test_what_was_missed_is_the_same_trades_as_over_the_websocket_however_rest_lags(
        self, executions: list[Execution], known: int, live: int | None, lag: int, arrivals: list[int]
    ) -> None:
        truth = self.trades(executions)
        known = min(known, len(truth))
        since, missed = truth[:known], truth[known:]
        until = missed[live] if live is not None and live < len(missed) else None
        visible = [max(len(truth) - lag, min(known + 1, len(truth)))]
        for arrived in arrivals:
            visible.append(min(visible[-1] + arrived, len(truth)))
        visible.append(len(truth))  # it catches up in the end
        outcome = self.repair(Rest(self, executions, visible), since, until)
        assert outcome.reason is None
        recovered = new_ones(outcome.yielded, since)
        assert bare(recovered) == bare(missed[: len(recovered)]), "the same ids, times and order, and none left out"
        if until is None:
            assert len(recovered) >= visible[0] - known
        elif self.venue.ordered_ids:
            assert len(recovered) >= missed.index(until)
        for request in outcome.requests:
            self.check_request(request)
        self.check_shown(outcome, truth, since, until)

    def check_shown(
        self, outcome: Outcome, truth: Sequence[Trade], since: Sequence[Trade], until: Trade | None
    ) -> None:
        """What REST is said to have shown has been yielded or was known, and it is as much as can be said."""
        shown_us = outcome.end.shown_until
        known = {trade.trade_id for trade in (*since, *outcome.yielded)}
        if shown_us is None:
            assert not new_ones(outcome.yielded, since)
            return
        assert {trade.trade_id for trade in truth if trade.traded_at < shown_us} <= known
        newest_us = max(trade.traded_at for trade in (*since, *outcome.yielded))
        disorder_us = round(self.venue.limits.disorder_s * 1e6)
        if until is not None or new_ones(outcome.yielded, since):
            assert shown_us >= newest_us - disorder_us
        assert shown_us <= newest_us - disorder_us, (
            "REST may lack all that is as new as its newest trade, or out of order"
        )

    @uneven
    @given(known=st.integers(1, 1290), live=st.none() | st.integers(0, 1299), lags=LAGS)
    def test_what_one_answer_shows_is_not_held_for_what_another_lists(
        self, known: int, live: int | None, lags: list[int]
    ) -> None:
        """Each answer lags by another time, and a repair of many answers takes some of each."""
        executions, truth = self.busy
        since, until = truth[max(known - 200, 0) : known], None if live is None else truth[max(live, known)]
        rest = Rest(self, executions, [len(truth) - lag for lag in lags])
        plan = self.venue.repair(self.market, since, until)
        outcome = run_plan(plan, rest, now_us=truth[-1].traded_at + 100_000)
        recovered = new_ones(outcome.yielded, since)
        if outcome.reason is None and until is not None:
            assert bare(recovered[: truth.index(until) - known]) == bare(truth[known : truth.index(until)])
        shown_us = outcome.end.shown_until
        if outcome.reason is None and shown_us is not None:
            ids = {trade.trade_id for trade in outcome.yielded}
            assert [each for each in truth[known:] if each.traded_at < shown_us and each.trade_id not in ids] == []

    def test_nothing_new_shows_no_more_than_what_was_known(self) -> None:
        truth = self.trades(one_a_second(20))
        outcome = self.repair(Rest(self, one_a_second(20), [12]), truth[:12], None)
        assert outcome.end.reason is None
        assert (outcome.end.shown_until or 0) <= truth[11].traded_at

    def test_a_reason_is_final_only_where_the_venue_itself_says_that_there_is_nothing(self) -> None:
        """It lists nothing, it lags, it lists a row that cannot be read: none of that says what does not exist."""
        executions = one_a_second(20)
        truth = self.trades(executions)
        weather = [Rest(self, []), Rest(self, executions[:15]), Rest(self, executions, bad={9, 10})]
        for rest in weather:
            outcome = self.repair(rest, truth[:5], truth[19])
            assert outcome.reason is not None
            assert not outcome.end.final
            assert not outcome.end.beyond_reach

    def test_an_outage_of_many_pages_is_repaired_in_order_and_from_few_requests(self) -> None:
        executions = one_a_second(2300)
        truth = self.trades(executions)
        outcome = self.repair(Rest(self, executions), truth[:10], truth[-1])
        assert outcome.reason is None
        assert bare(new_ones(outcome.yielded, truth[:10]))[:2289] == bare(truth[10:-1])
        assert len(outcome.requests) <= 2300 / 20, "pages as large as the venue allows"

    def test_trades_that_happen_during_the_repair_move_nothing(self) -> None:
        executions = one_a_second(700)
        truth = self.trades(executions)
        visible = range(540, 701, 20)
        outcome = self.repair(Rest(self, executions, visible), truth[:100], truth[550])
        assert outcome.reason is None
        recovered = new_ones(outcome.yielded, truth[:100])
        assert bare(recovered) == bare(truth[100 : 100 + len(recovered)])
        assert len(recovered) >= 450

    def test_a_short_interruption_costs_hardly_a_request(self) -> None:
        executions = one_a_second(20)
        truth = self.trades(executions)
        outcome = self.repair(Rest(self, executions), truth[:15], truth[18])
        assert len(outcome.requests) <= 2
        assert {trade.received_at for trade in outcome.yielded} <= {NOW, NOW + 500_000}, "when REST has answered"

    def test_when_nothing_was_missed_nothing_is_new(self) -> None:
        executions = one_a_second(20)
        truth = self.trades(executions)
        outcome = self.repair(Rest(self, executions), truth, None)
        assert new_ones(outcome.yielded, truth) == []
        assert outcome.reason is None
        assert len(outcome.requests) <= 2

    def test_a_plan_does_nothing_before_it_is_run_and_twice_the_same(self) -> None:
        executions = one_a_second(30)
        truth = self.trades(executions)
        self.venue.repair(self.market, truth[:3], truth[20])  # not run, and forgotten
        first, second = (self.repair(Rest(self, executions), truth[:3], truth[20]) for _ in range(2))
        assert first == second

    def test_of_a_history_that_lists_nothing_the_reason_is_given_and_an_end_is_found(self) -> None:
        truth = self.trades(one_a_second(5))
        outcome = self.repair(Rest(self, []), truth[:3], truth[4])
        assert outcome.yielded == []
        assert outcome.reason is not None
        assert self.market in outcome.reason
        assert 1 < len(outcome.requests) <= 2 * MAX_TRIES, "it may only lag, so it is asked again"

    def test_a_rest_interface_that_lags_is_asked_until_it_shows_the_first_live_trade(self) -> None:
        executions = one_a_second(20)
        truth = self.trades(executions)
        outcome = self.repair(Rest(self, executions, [*[12] * (MAX_TRIES - 1), 20]), truth[:8], truth[19])
        assert outcome.reason is None
        recovered = bare(new_ones(outcome.yielded, truth[:8]))
        assert recovered[: len(truth[8:19])] == bare(truth[8:19])
        assert len(outcome.requests) >= MAX_TRIES

    def test_one_that_never_catches_up_is_given_up_with_the_reason_and_what_it_has_is_published(self) -> None:
        executions = one_a_second(20)
        truth = self.trades(executions)
        outcome = self.repair(Rest(self, executions[:15]), truth[:8], truth[19])
        assert bare(new_ones(outcome.yielded, truth[:8])) == bare(truth[8:15])
        assert outcome.reason is not None
        assert truth[19].trade_id in outcome.reason
        assert self.market in outcome.reason
        assert len(outcome.requests) <= 2 * MAX_TRIES

    @pytest.mark.parametrize("bad", [{9}, {9, 10, 14}, {20}])
    def test_a_bad_row_costs_only_itself_and_the_first_is_named(self, bad: set[int]) -> None:
        executions = one_a_second(20)
        truth = self.trades(executions)
        outcome = self.repair(Rest(self, executions, bad=bad), truth[:5], None)
        good = [trade for each, trade in zip(executions, truth, strict=True) if each.number not in bad]
        assert bare(new_ones(outcome.yielded, truth[:5])) == bare(good[5:])
        assert outcome.reason is not None
        assert any(f'{{"bad":{number}}}' in outcome.reason for number in bad)

    def test_rows_that_are_all_bad_do_not_keep_the_plan_going_for_ever(self) -> None:
        executions = one_a_second(1500)
        truth = self.trades(executions)
        for until in (None, truth[-1]):
            outcome = self.repair(Rest(self, executions, bad=range(1, 1501)), truth[:5], until)
            assert outcome.yielded == []
            assert outcome.reason is not None
            assert len(outcome.requests) <= 2 * MAX_TRIES

    def test_an_answer_that_cannot_be_read_is_an_error_that_says_which(self) -> None:
        truth = self.trades(one_a_second(5))
        for body in (*UNREADABLE, *self.error_answers):
            requests: list[Request] = []

            def answer(request: Request, body: bytes = body, requests: list[Request] = requests) -> bytes:
                requests.append(request)
                return body

            with pytest.raises(ContractError) as error:
                self.repair(answer, truth[:3], truth[4])
            assert requests[-1].path in str(error.value)
            assert len(str(error.value)) <= 1000

    def test_requests_have_only_what_can_stand_in_a_url_and_the_key_of_the_description(self) -> None:
        executions = one_a_second(1500)
        truth = self.trades(executions)
        outcome = self.repair(Rest(self, executions), truth[:5], truth[-1])
        for request in outcome.requests:
            self.check_request(request)
        keys = {request.api_key for request in outcome.requests}
        assert keys | {None} == {self.description.api_key, None}, "what the description names is needed, nothing else"
        if self.description.api_key is not None:
            without = self.description.live(has_key=False)
            first = next(without.repair(self.market, truth[:5], truth[-1]))
            assert isinstance(first, Request)
            assert first.api_key is None, "without the key nothing is asked that needs it"
