"""What every venue's plan by time must do, against a REST interface in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repairs import Outcome, bare, run_plan
from venue_connection_certification import UNREADABLE, ConnectionCertification
from venue_repair_certification import LAGS, uneven
from venue_samples import FIRST_MS, Execution, Rest, certifying, histories, one_a_second

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade
from ashi_ingest.venues.base import Request

FIRST_US = FIRST_MS * 1000
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
NOW_US = FIRST_US + DAY_US


class HistoryCertification(ConnectionCertification):
    """The part of the suite about plans by time."""

    history_days: ClassVar[int | None] = None
    """How far back the venue gives trades, as it documents it; None: as far as it lists any."""
    says_where_it_begins: ClassVar[bool] = True
    """Whether a list that ends with a first trade says that there was none before."""

    def refuses_old(self, request: Request, oldest: int) -> bytes | None:
        """What is answered, by HTTP 400, to a request that goes back beyond the execution of that number."""
        return None

    def history(
        self, rest: Callable[[Request], bytes], since_us: int, until_us: int | None, *, now_us: int = NOW_US
    ) -> Outcome:
        """`now_us`: when the first answer is received."""
        return run_plan(self.venue.history(self.market, since_us, until_us), rest, now_us=now_us)

    @property
    def disorder_us(self) -> int:
        return round(self.venue.limits.disorder_s * 1e6)

    @certifying
    @given(
        executions=histories(),
        begin=st.integers(-5, 80),
        length=st.none() | st.integers(0, 60),
        off_us=st.sampled_from([0, 1, -1, 1000, 400_000]),
        lag=st.integers(0, 6),
        arrivals=st.lists(st.integers(0, 3), max_size=4),
    )
    def test_the_trades_of_a_stretch_are_those_of_the_websocket_and_it_is_told_how_far_they_are_shown(
        self,
        executions: list[Execution],
        begin: int,
        length: int | None,
        off_us: int,
        lag: int,
        arrivals: list[int],
    ) -> None:
        """It may begin within a millisecond of many trades, between two, before the first and after the last."""
        truth = self.trades(executions)
        times = [FIRST_US - SECOND_US, *(trade.traded_at for trade in truth), truth[-1].traded_at + SECOND_US]
        since_us = times[max(0, min(begin, len(times) - 1))] + off_us
        until_us = None if length is None else times[min(max(begin, 0) + length, len(times) - 1)] + off_us
        visible = [max(len(truth) - lag, 0)]
        for arrived in arrivals:
            visible.append(min(visible[-1] + arrived, len(truth)))
        now_us = truth[-1].traded_at + SECOND_US
        outcome = self.history(Rest(self, executions, visible), since_us, until_us, now_us=now_us)
        seen = truth[: visible[0]]
        self.check_yielded(outcome, truth, since_us, until_us)
        if outcome.end.shown_until is None:
            assert not seen
        if self.is_whole(seen, since_us):
            assert outcome.reason is None
            self.check_listed(outcome, seen, since_us, until_us)
        for request in outcome.requests:
            self.check_request(request)

    @uneven
    @given(begin=st.integers(-5, 1299), length=st.none() | st.integers(1, 1300), lags=LAGS)
    def test_what_one_answer_shows_of_a_stretch_is_not_held_for_what_another_lists(
        self, begin: int, length: int | None, lags: list[int]
    ) -> None:
        executions, truth = self.busy
        since_us = truth[begin].traded_at if begin >= 0 else truth[0].traded_at + begin * SECOND_US
        until_us = None if length is None else since_us + length * 40_000
        rest = Rest(self, executions, [len(truth) - lag for lag in lags])
        outcome = self.history(rest, since_us, until_us, now_us=truth[-1].traded_at + 100_000)
        self.check_yielded(outcome, truth, since_us, until_us)

    def is_whole(self, seen: Sequence[Trade], since_us: int) -> bool:
        """Whether the venue can say that there was nothing before."""
        return self.says_where_it_begins or not seen or seen[0].traded_at < since_us

    def check_yielded(self, outcome: Outcome, truth: Sequence[Trade], since_us: int, until_us: int | None) -> None:
        """Each trade once, in the venue's order, with the ids of the websocket; none left out between two."""
        ids = [trade.trade_id for trade in outcome.yielded]
        assert len(set(ids)) == len(ids)
        wanted = self.within(outcome.yielded, since_us, until_us)
        named = {trade.trade_id: trade for trade in truth}
        assert bare(wanted) == bare([named[trade.trade_id] for trade in wanted])
        shown_us = outcome.end.shown_until
        if shown_us is not None and outcome.reason is None:
            end_us = shown_us if until_us is None else min(shown_us, until_us)
            assert bare(self.within(outcome.yielded, since_us, end_us)) == bare(self.within(truth, since_us, end_us))

    def check_listed(self, outcome: Outcome, seen: Sequence[Trade], since_us: int, until_us: int | None) -> None:
        """What REST has listed has been yielded, and no less is said of it than can be said."""
        if not seen:
            return
        newest_us = max(trade.traded_at for trade in seen)
        shown_us = outcome.end.shown_until
        assert shown_us is not None
        assert shown_us >= min(newest_us - self.disorder_us, since_us if until_us is None else until_us)
        ids = {trade.trade_id for trade in outcome.yielded}
        if until_us is None:
            assert {trade.trade_id for trade in seen if trade.traded_at >= since_us} <= ids

    def within(self, trades: Iterable[Trade], since_us: int, until_us: int | None) -> list[Trade]:
        return [
            trade
            for trade in trades
            if trade.traded_at >= since_us and (until_us is None or trade.traded_at < until_us)
        ]

    @pytest.mark.parametrize(("begin", "end"), [(0, None), (1700, None), (2100, 2110), (20, 1990), (2290, 9999)])
    def test_a_stretch_of_a_long_history_takes_few_requests_beside_its_own_pages(
        self, begin: int, end: int | None
    ) -> None:
        executions = one_a_second(2300)
        truth = self.trades(executions)
        since_us = FIRST_US + begin * SECOND_US
        until_us = None if end is None else FIRST_US + end * SECOND_US
        outcome = self.history(Rest(self, executions), since_us, until_us, now_us=truth[-1].traded_at)
        assert bare(self.within(outcome.yielded, since_us, until_us)) == bare(self.within(truth, since_us, until_us))
        assert outcome.reason is None or (begin == 0 and not self.says_where_it_begins)
        wanted = len(truth[begin:end])
        assert len(outcome.requests) <= wanted / 40 + 30

    def test_of_a_long_history_no_more_is_in_memory_than_some_answers(self) -> None:
        executions = one_a_second(4000)
        plan = self.venue.history(self.market, FIRST_US, None)
        largest = 0

        def note(trades: list[Trade]) -> None:
            nonlocal largest
            largest = max(largest, len(trades))

        run_plan(plan, Rest(self, executions), now_us=NOW_US, on_trades=note)
        assert 0 < largest <= 1000

    def test_trades_that_happen_meanwhile_move_nothing(self) -> None:
        executions = one_a_second(1500)
        truth = self.trades(executions)
        since_us = FIRST_US + 300 * SECOND_US
        outcome = self.history(Rest(self, executions, range(900, 1501, 7)), since_us, None, now_us=NOW_US)
        assert outcome.reason is None
        wanted = self.within(outcome.yielded, since_us, None)
        assert bare(wanted) == bare(truth[300 : 300 + len(wanted)])
        assert len(wanted) >= 600

    def test_a_time_within_a_millisecond_of_many_trades_takes_all_of_it_or_nothing(self) -> None:
        executions = one_a_second(1600)
        at_ms = executions[700].at_ms
        executions[700:740] = [replace(each, at_ms=at_ms) for each in executions[700:740]]
        executions[800:] = [replace(each, at_ms=each.at_ms + 40_000) for each in executions[800:]]
        truth = self.trades(executions)
        for since_us, first in ((at_ms * 1000, 700), (at_ms * 1000 + 1, 740)):
            outcome = self.history(Rest(self, executions), since_us, None, now_us=NOW_US)
            assert outcome.reason is None
            assert bare(self.within(outcome.yielded, since_us, None)) == bare(truth[first:])

    def test_a_stretch_without_a_trade_is_empty_and_known_to_be(self) -> None:
        before, after = one_a_second(700), one_a_second(700, first=701)
        later_ms = 20 * 86_400_000
        executions = before + [replace(each, at_ms=each.at_ms + later_ms) for each in after]
        now_us = FIRST_US + later_ms * 1000 + 700 * SECOND_US
        since_us, until_us = FIRST_US + 5 * DAY_US, FIRST_US + 9 * DAY_US
        outcome = self.history(Rest(self, executions), since_us, until_us, now_us=now_us)
        assert self.within(outcome.yielded, since_us, until_us) == []
        assert outcome.reason is None
        assert outcome.end.shown_until is not None
        assert outcome.end.shown_until >= until_us
        assert len(outcome.requests) <= 60

    def test_a_market_without_any_trade_shows_nothing_and_costs_hardly_a_request(self) -> None:
        outcome = self.history(Rest(self, []), FIRST_US, None)
        assert outcome.yielded == []
        assert outcome.end.shown_until is None
        assert not outcome.end.final
        assert len(outcome.requests) <= 2

    def test_nobody_waits_for_a_rest_interface_that_lags(self) -> None:
        executions = one_a_second(40)
        outcome = self.history(Rest(self, executions[:20]), FIRST_US + 10 * SECOND_US, FIRST_US + 30 * SECOND_US)
        assert outcome.reason is None
        assert outcome.end.shown_until is not None
        assert outcome.end.shown_until < FIRST_US + 30 * SECOND_US
        assert len(outcome.requests) <= 2

    def test_where_the_venue_does_not_go_back_so_far_there_is_what_it_has_and_from_when_on(self) -> None:
        executions = one_a_second(3000)
        truth = self.trades(executions)
        kept = 1200
        rest = Rest(self, executions[kept:])

        def answer(request: Request) -> bytes:
            return self.refuses_old(request, executions[kept].number) or rest(request)

        for days in (1, 400):
            since_us = FIRST_US - days * DAY_US
            outcome = self.history(answer, since_us, None, now_us=truth[-1].traded_at)
            assert bare(outcome.yielded) == bare(truth[kept:])
            if self.says_where_it_begins and self.history_days is None:
                assert outcome.reason is None
                continue
            assert outcome.end.beyond_reach
            assert not outcome.end.final
            assert [place for place, missing in outcome.missing if missing.beyond_reach] == [0], "before all trades"
            first = datetime.fromtimestamp(truth[kept].traded_at / 1e6, UTC).isoformat(timespec="milliseconds")
            assert outcome.reason is not None
            assert first in outcome.reason
            assert self.market in outcome.reason

    @pytest.mark.parametrize("bad", [{109}, {109, 110, 114}, {120}])
    def test_a_bad_row_of_a_stretch_costs_only_itself_and_is_named(self, bad: set[int]) -> None:
        executions = one_a_second(120)
        truth = self.trades(executions)
        since_us = FIRST_US + 30 * SECOND_US
        outcome = self.history(Rest(self, executions, bad=bad), since_us, None)
        good = [trade for each, trade in zip(executions, truth, strict=True) if each.number not in bad]
        assert bare(self.within(outcome.yielded, since_us, None)) == bare(good[30:])
        assert outcome.reason is not None
        assert any(f'{{"bad":{number}}}' in outcome.reason for number in bad)
        assert not outcome.end.final
        assert outcome.missing
        before = outcome.yielded[: outcome.missing[0][0]]
        assert all(trade.traded_at < truth[min(bad) - 1].traded_at for trade in before), "told before it is passed"
        assert not any(missing.final or missing.beyond_reach for _, missing in outcome.missing)

    def test_a_history_of_bad_rows_ends(self) -> None:
        executions = one_a_second(1500)
        outcome = self.history(Rest(self, executions, bad=range(1, 1501)), FIRST_US, None)
        assert outcome.yielded == []
        assert outcome.reason is not None
        assert len(outcome.requests) <= 100

    def test_an_answer_of_a_history_that_cannot_be_read_is_an_error_that_says_which(self) -> None:
        good = Rest(self, one_a_second(3000))
        for broken in (0, 1, 2, 5):
            for body in (*UNREADABLE, *self.error_answers):
                requests: list[Request] = []

                def answer(
                    request: Request, body: bytes = body, broken: int = broken, requests: list[Request] = requests
                ) -> bytes:
                    requests.append(request)
                    return body if len(requests) > broken and not request.may_be_refused else good(request)

                with pytest.raises(ContractError) as error:
                    self.history(answer, FIRST_US, None)
                assert requests[-1].path in str(error.value)

    def test_a_plan_by_time_does_nothing_before_it_is_run_and_twice_the_same(self) -> None:
        executions = one_a_second(2000)
        first, second = (self.history(Rest(self, executions), FIRST_US, FIRST_US + 600 * SECOND_US) for _ in range(2))
        assert first == second

    def test_of_a_history_nothing_is_asked_without_its_key_and_the_reason_names_the_setting(self) -> None:
        executions = one_a_second(3000)
        plan = self.description.live(has_key=False).history(self.market, FIRST_US, None)
        outcome = run_plan(plan, Rest(self, executions), now_us=NOW_US)
        assert {request.api_key for request in outcome.requests} == {None}
        key = self.description.api_key
        assert outcome.end.beyond_reach is (key is not None or not self.says_where_it_begins)
        assert key is None or key.setting in (outcome.reason or "")
