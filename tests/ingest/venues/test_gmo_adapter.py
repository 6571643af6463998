from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import repeat
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repairs import NOW, Outcome, bare, new_ones, run_plan

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade
from ashi_ingest.venues.answers import MAX_TRIES
from ashi_ingest.venues.base import ListedMarket, Refused, Request
from ashi_ingest.venues.gmo import repair as gmo_repair
from ashi_ingest.venues.gmo.messages import Content
from ashi_ingest.venues.gmo.pages import LEAST_NEW, OVERLAP, ROWS, Row, find_place, next_window, wide_window
from ashi_ingest.venues.registry import VENUES

VENUE = VENUES["gmo"].live(has_key=False)
OTHER = {"BUY": "SELL", "SELL": "BUY"}
FIRST_US = 1_746_018_540_000_000
"""13:09."""
TAIL = 200
"""As many trades as a runner knows of those published last."""


class Execution(NamedTuple):
    """`ms` counts from 13:09. `alone`: REST lists one row of it, as of 6 in 909 groups recorded."""

    ms: int
    price: int = 100
    size: str = "0.01"
    taker: str = "BUY"
    alone: bool = False

    @property
    def timestamp(self) -> str:
        seconds, ms = divmod(self.ms, 1000)
        return f"2025-04-30T13:{9 + seconds // 60:02}:{seconds % 60:02}.{ms:03}Z"

    def rows(self) -> list[str]:
        """Oldest first: the taker's, and that of the other side."""
        return [self._row(side) for side in [self.taker] + [OTHER[self.taker]] * (not self.alone)]

    def _row(self, side: str) -> str:
        return json.dumps({"price": str(self.price), "side": side, "size": self.size, "timestamp": self.timestamp})

    def frame(self) -> bytes:
        fields = {"price": str(self.price), "side": self.taker, "size": self.size, "timestamp": self.timestamp}
        return json.dumps({"channel": "trades", "symbol": "BTC_JPY", **fields}).encode()


def live_trades(executions: Iterable[Execution]) -> list[Trade]:
    """As one connection gives them."""
    parser = VENUE.parser()
    return [trade for each in executions for trade in parser.parse(each.frame(), NOW).trades]


class Rest:
    """Pages of those that have happened by now, newest first; more happen between requests.

    `stale`: how many executions an answer is behind, one number for each: answers are cached, so one may be older than
    the one before.
    """

    def __init__(
        self,
        executions: Sequence[Execution],
        *,
        visible: int | None = None,
        arrivals: Iterable[int] = (),
        stale: Iterable[int] = (),
    ) -> None:
        self.rows = [each.rows() for each in executions]
        self.visible = len(executions) if visible is None else visible
        self.arrivals = iter(arrivals)
        self.stale = iter(stale)
        self.busy = 0
        self.replaced: dict[str, str] = {}

    def shown(self, stale: int) -> list[str]:
        happened = max(self.visible - stale, 0)
        return [row for rows in self.rows[:happened] for row in rows][::-1]

    def __call__(self, request: Request) -> bytes:
        assert request.path == "/public/v1/trades"
        assert request.parameters["symbol"] == "BTC_JPY"
        page, size = int(request.parameters["page"]), int(request.parameters["count"])
        assert page >= 1
        assert 1 <= size <= ROWS
        if self.busy:
            self.busy -= 1
            return b'{"status":5,"messages":[{"message_code":"ERR-5003","message_string":"Too many requests"}]}'
        rows = self.shown(next(self.stale, 0))[(page - 1) * size : page * size]
        self.visible = min(self.visible + next(self.arrivals, 0), len(self.rows))
        listed = ",".join(self.replaced.get(row, row) for row in rows)
        pagination = f'{{"currentPage":{page},"count":{len(rows)}}}'
        return (
            f'{{"status":0,"data":{{"pagination":{pagination},"list":[{listed}]}},'
            '"responsetime":"2025-04-30T13:09:43.601Z"}'
        ).encode()


def repair(rest: Rest, since: Sequence[Trade], until: Trade | None) -> Outcome:
    return run_plan(VENUE.repair("BTC_JPY", since, until), rest)


def one_a_second(times: int) -> list[Execution]:
    return [Execution(1000 * each, price=100 + each % 7, taker=("BUY", "SELL")[each % 2]) for each in range(times)]


def test_every_execution_stands_there_twice_and_is_counted_once_with_the_side_of_its_first_row() -> None:
    executions = [Execution(0), Execution(5, taker="SELL"), Execution(5, taker="SELL"), Execution(5, taker="BUY")]
    outcome = repair(Rest(executions), live_trades(executions[:1]), None)
    assert [trade.side for trade in outcome.yielded] == ["buy", "sell", "sell", "buy"]
    assert [trade.sequence for trade in outcome.yielded] == [0, 0, 1, 2]
    assert bare(outcome.yielded) == bare(live_trades(executions))


def test_a_row_without_a_partner_counts_by_itself() -> None:
    executions = [Execution(0), Execution(5, alone=True), Execution(5), Execution(6, alone=True), Execution(7)]
    outcome = repair(Rest(executions), live_trades(executions[:1]), None)
    assert bare(outcome.yielded) == bare(live_trades(executions))


def test_the_partner_of_a_row_need_not_follow_it_at_once() -> None:
    first, second = Execution(5, price=100), Execution(5, price=101)
    swept = [first.rows()[0], second.rows()[0], first.rows()[1], second.rows()[1]]
    rest = Rest([Execution(0)])
    rest.shown = lambda stale: [*Execution(0).rows(), *swept][::-1]
    outcome = repair(rest, live_trades([Execution(0)]), None)
    assert bare(outcome.yielded) == bare(live_trades([Execution(0), first, second]))


def test_what_is_missing_of_the_last_known_millisecond_is_repaired_as_a_multiset() -> None:
    executions = [Execution(0), Execution(5), Execution(5), Execution(5, price=101), Execution(5)]
    truth = live_trades(executions)
    outcome = repair(Rest(executions), truth[:3], None)
    assert bare(new_ones(outcome.yielded, truth[:3])) == bare(truth[3:])


def test_a_connection_that_begins_within_a_millisecond_is_covered_by_the_repair() -> None:
    executions = [Execution(0), Execution(5), Execution(5), Execution(5)]
    (counted_anew,) = live_trades(executions[3:])
    outcome = repair(Rest(executions), live_trades(executions[:1]), counted_anew)
    assert counted_anew.trade_id in {trade.trade_id for trade in outcome.yielded}
    assert bare(outcome.yielded) == bare(live_trades(executions))


def test_a_trade_that_came_late_just_when_the_connection_broke_is_found() -> None:
    executions = [*one_a_second(30), Execution(29_100, price=7), Execution(29_105, price=8)]
    truth = live_trades(executions)
    known = [*truth[:30], truth[31]]
    outcome = repair(Rest(executions), known, None)
    assert bare(new_ones(outcome.yielded, known)) == bare([truth[30]])


def came_at(trades: Iterable[Trade], offsets_ms: Iterable[int]) -> list[Trade]:
    """The trades as they came at these times, from 13:09 on, whatever the venue's clock said of them."""
    return [
        msgspec.structs.replace(trade, received_at=FIRST_US + 1000 * ms)
        for trade, ms in zip(trades, offsets_ms, strict=True)
    ]


def stamped(times_s: Iterable[int], off_s: int = 0) -> list[Execution]:
    """Executions at these times by the venue's clock, which is off by so much."""
    ms = 7 if off_s else 0
    return [Execution(1000 * (each + off_s) + ms, 100 + each, taker=("BUY", "SELL")[each % 2]) for each in times_s]


@pytest.mark.parametrize("has_come", [True, False])
def test_a_clock_that_was_ahead_before_the_connection_broke_hides_nothing_that_happened_since(has_come: bool) -> None:
    """More than a page of what was missed is stamped earlier than the last known trade."""
    executions = [*stamped(range(100)), *stamped(range(100, 110), 50), *stamped(range(110, 180))]
    truth = came_at(live_trades(executions), range(0, 180_000, 1000))
    known, until = truth[:110], truth[179] if has_come else None
    outcome = repair(Rest(executions), known, until)
    assert outcome.reason is None
    assert bare(new_ones(outcome.yielded, known)) == bare(truth[110:])


def test_a_clock_that_was_set_back_meanwhile_hides_nothing_that_happened_before_it() -> None:
    executions = [*stamped(range(100)), *stamped(range(100, 150), -90), *stamped(range(150, 220))]
    truth = came_at(live_trades(executions), range(0, 220_000, 1000))
    for count in (90, 120, 160):
        outcome = repair(Rest(executions), truth[:count], truth[-1])
        assert outcome.reason is None
        assert bare(new_ones(outcome.yielded, truth[:count])) == bare(truth[count:])


def test_what_was_known_before_is_no_evidence_that_rest_has_caught_up_however_late_it_is_stamped() -> None:
    executions = [*stamped(range(100)), *stamped(range(100, 110), 50), *stamped(range(110, 130))]
    truth = came_at(live_trades(executions), range(0, 130_000, 1000))
    outcome = repair(Rest(executions[:110]), truth[:110], truth[125])
    assert outcome.reason is not None
    assert f"does not list trade {truth[125].trade_id}" in outcome.reason
    assert outcome.end.shown_until == FIRST_US + 108_000_000, "it lists what came at 109 s"
    outcome = repair(Rest(executions[:110]), truth[:110], None)
    assert (outcome.reason, outcome.end.shown_until) == (None, FIRST_US + 108_000_000)


def test_what_is_known_but_was_cut_off_is_not_fetched_again() -> None:
    executions = [Execution(5, price=price) for price in range(20)] + one_a_second(30)[1:]
    truth = live_trades(executions)
    since = truth[10:40]  # begins in the midst of a millisecond
    outcome = repair(Rest(executions), since, None)
    assert bare(new_ones(outcome.yielded, since)) == bare(truth[40:])


@st.composite
def histories(draw: st.DrawFn, *, most_in_ms: int) -> list[Execution]:
    """Milliseconds with one to many executions, some equal in every field, after gaps of all kinds."""
    lonely = draw(st.booleans())
    executions: list[Execution] = []
    ms = 0
    groups = st.tuples(
        st.sampled_from([1, 1, 2, 900, 60_000]),
        st.integers(1, most_in_ms),
        st.integers(1, 5),
        st.integers(1, 8),
    )
    for gap, size, prices, times in draw(st.lists(groups, min_size=1, max_size=8)):
        for _ in range(times):
            ms += gap
            for each in range(size):
                price = 100 + each % prices
                # Only where all equal rows are of one side can it be told that one has no partner.
                taker = ("BUY", "SELL")[(price if lonely else each // 2) % 2]
                executions.append(Execution(ms, price, taker=taker, alone=lonely and each % 4 == 1))
    return executions


@settings(max_examples=75)
@given(
    executions=histories(most_in_ms=12),
    known=st.integers(1, 600),
    live=st.one_of(st.none(), st.integers(0, 600)),
    hidden=st.integers(0, 30),
    arrivals=st.lists(st.integers(0, 6), max_size=40),
    stale=st.lists(st.sampled_from([0, 0, 0, 1, 4]), max_size=60),
)
def test_everything_is_repaired_however_pages_shift_and_lag_and_whatever_is_equal(
    executions: list[Execution],
    known: int,
    live: int | None,
    hidden: int,
    arrivals: list[int],
    stale: list[int],
) -> None:
    truth = live_trades(executions)
    known = min(known, len(truth))
    since = truth[:known][-TAIL:]
    until = truth[known + live] if live is not None and known + live < len(truth) else None
    # It catches up in the end: one of the tries sees all there is.
    rest = Rest(
        executions,
        visible=max(len(truth) - hidden, known),
        arrivals=[*arrivals[: MAX_TRIES - 2], 600],
        stale=[*stale[: MAX_TRIES - 1], 0, *stale[MAX_TRIES - 1 :]],
    )
    shown = rest.visible - (stale[0] if stale else 0)
    outcome = repair(rest, since, until)
    assert outcome.reason is None
    recovered = new_ones(outcome.yielded, since)
    assert bare(recovered) == bare(truth[known : known + len(recovered)])
    if until is None:
        assert known + len(recovered) >= shown
    else:
        assert truth.index(until) < known + len(recovered) or _is_equal_to_one_before(until, recovered)


def _is_equal_to_one_before(until: Trade, recovered: Sequence[Trade]) -> bool:
    """An equal trade of the same millisecond was taken for it: the runner asks again once the venue has settled."""
    content = until.trade_id.rpartition("-")[0]
    return any(trade.trade_id.rpartition("-")[0] == content for trade in recovered)


@settings(max_examples=75)
@given(
    executions=histories(most_in_ms=120),
    known=st.integers(1, 600),
    arrivals=st.lists(st.integers(0, 40), max_size=40),
    stale=st.lists(st.integers(0, 11), max_size=40),
)
@pytest.mark.slow
def test_what_cannot_be_told_apart_is_never_guessed(
    executions: list[Execution], known: int, arrivals: list[int], stale: list[int]
) -> None:
    truth = live_trades(executions)
    known = min(known, len(truth))
    since = truth[:known][-TAIL:]
    rest = Rest(executions, visible=max(known, len(truth) // 2), arrivals=arrivals, stale=stale)
    outcome = repair(rest, since, None)
    recovered = new_ones(outcome.yielded, since)
    if outcome.reason is None:
        assert bare(recovered) == bare(truth[known : known + len(recovered)])
    else:
        places = [each.trade_id for each in truth]
        at = places.index(recovered[0].trade_id) if recovered else 0
        assert bare(recovered) == bare(truth[at : at + len(recovered)])


def test_a_sweep_of_a_whole_page_within_one_millisecond_is_joined_when_its_rows_differ() -> None:
    executions = [*one_a_second(3), *(Execution(5000, price=price) for price in range(150)), Execution(6000)]
    truth = live_trades(executions)
    outcome = repair(Rest(executions), truth[:2], None)
    assert outcome.reason is None
    assert bare(new_ones(outcome.yielded, truth[:2])) == bare(truth[2:])


def test_when_equal_trades_fill_a_page_the_reason_says_so_and_what_is_newer_is_published() -> None:
    executions = [*one_a_second(3), *([Execution(5000)] * 150), *(Execution(6000 + each) for each in range(20))]
    truth = live_trades(executions)
    outcome = repair(Rest(executions), truth[:2], None)
    assert outcome.reason is not None
    assert "could not be joined" in outcome.reason
    assert bare(outcome.yielded) == bare(truth[-20:])


def test_a_page_that_is_older_than_the_one_before_leaves_no_hole() -> None:
    executions = one_a_second(200)
    truth = live_trades(executions)
    outcome = repair(Rest(executions, stale=[0, 20, 20, 0]), truth[:100], None)
    assert outcome.reason is None
    assert bare(new_ones(outcome.yielded, truth[:100])) == bare(truth[100:])


def test_pages_of_a_market_that_moves_on_fast_are_followed() -> None:
    executions = one_a_second(2000)
    truth = live_trades(executions)
    outcome = repair(Rest(executions, visible=600, arrivals=repeat(30)), truth[:300], None)
    assert outcome.reason is None
    assert bare(new_ones(outcome.yielded, truth[:300])) == bare(truth[300:600])
    assert len(outcome.requests) < 30


def test_an_outage_is_read_with_hardly_more_pages_than_its_rows_need() -> None:
    executions = one_a_second(2000)
    truth = live_trades(executions)
    outcome = repair(Rest(executions), truth[:10], None)
    assert bare(new_ones(outcome.yielded, truth[:10])) == bare(truth[10:])
    assert len(outcome.requests) <= 2 * 1990 / ROWS * 1.3


def test_no_more_than_the_documented_pages_are_read_and_what_is_there_is_published() -> None:
    executions = one_a_second(500)
    truth = live_trades(executions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gmo_repair, "MAX_PAGES", 3)
        outcome = repair(Rest(executions), truth[:10], None)
    assert len(outcome.requests) == 3
    assert outcome.reason is not None
    assert "more than 3 pages are not read" in outcome.reason
    assert outcome.end.beyond_reach
    assert "known up to 2025-04-30T13:09:09.000+00:00" in outcome.reason
    assert len(outcome.yielded) > 100
    assert bare(outcome.yielded) == bare(truth[-len(outcome.yielded) :])


def test_a_history_that_does_not_reach_back_is_no_repair() -> None:
    executions = one_a_second(40)
    truth = live_trades(executions)
    outcome = repair(Rest(executions[20:]), truth[:10], None)
    assert bare(outcome.yielded) == bare(truth[20:])
    assert outcome.reason is not None
    assert "was read back to 2025-04-30T13:09:20.000+00:00 only" in outcome.reason
    assert outcome.end.beyond_reach


def test_an_empty_history_is_no_repair() -> None:
    outcome = repair(Rest([]), live_trades(one_a_second(1)), None)
    assert outcome.yielded == []
    assert outcome.reason is not None
    assert "/public/v1/trades lists no trade of BTC_JPY" in outcome.reason
    assert not outcome.end.beyond_reach


def test_a_rest_interface_that_lags_is_asked_again_until_it_shows_the_first_live_trade() -> None:
    executions = one_a_second(20)
    truth = live_trades(executions)
    outcome = repair(Rest(executions, visible=10, arrivals=repeat(6)), truth[:8], truth[15])
    assert outcome.reason is None
    assert bare(new_ones(outcome.yielded, truth[:8])) == bare(truth[8:16])
    assert len(outcome.requests) == MAX_TRIES


def test_a_rest_interface_that_never_catches_up_is_given_up_with_the_reason() -> None:
    executions = one_a_second(20)
    truth = live_trades(executions)
    outcome = repair(Rest(executions[:15]), truth[:8], truth[19])
    assert bare(new_ones(outcome.yielded, truth[:8])) == bare(truth[8:15])
    assert len(outcome.requests) == MAX_TRIES
    assert outcome.reason is not None
    assert f"does not list trade {truth[19].trade_id} of BTC_JPY" in outcome.reason


def test_a_venue_that_is_busy_is_asked_again() -> None:
    executions = one_a_second(100)
    truth = live_trades(executions)
    rest = Rest(executions)
    rest.busy = MAX_TRIES - 1
    outcome = repair(rest, truth[:8], None)
    assert outcome.reason is None
    assert bare(new_ones(outcome.yielded, truth[:8])) == bare(truth[8:])


def test_a_venue_that_stays_busy_is_given_up_with_the_reason() -> None:
    rest = Rest(one_a_second(1))
    rest.busy = 1000
    outcome = repair(rest, live_trades(one_a_second(1)), None)
    assert outcome.yielded == []
    assert outcome.reason is not None
    assert "/public/v1/trades lists no trade of BTC_JPY" in outcome.reason
    assert "ERR-5003 Too many requests" in outcome.reason


def test_a_bad_row_is_named_and_the_good_ones_are_published() -> None:
    executions = [Execution(1000 * each, price=100 + each) for each in range(100)]
    truth = live_trades(executions)
    rest = Rest(executions)
    for row in executions[50].rows():
        rest.replaced[row] = row.replace('"150"', '"NaN"')
    outcome = repair(rest, truth[:8], None)
    assert bare(new_ones(outcome.yielded, truth[:8])) == bare(truth[8:50] + truth[51:])
    assert outcome.reason is not None
    assert "price 'NaN'" in outcome.reason
    assert executions[50].timestamp in outcome.reason


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not valid JSON"),
        (b"<html>", "<html>"),
        (b"[]", "/public/v1/trades"),
        (b'{"status":0,"data":[]}', "/public/v1/trades"),
        (b"\xff", "/public/v1/trades"),
        (
            b'{"status":5,"messages":[{"message_code":"ERR-5106","message_string":"Bad symbol."}]}',
            "ERR-5106 Bad symbol",
        ),
        (b'{"status":2}', "status 2: nothing more"),
    ],
)
def test_an_answer_that_cannot_be_read_at_all_is_an_error_that_says_which(body: bytes, said: str) -> None:
    with pytest.raises(ContractError, match="/public/v1/trades") as error:
        run_plan(VENUE.repair("BTC_JPY", live_trades(one_a_second(1)), None), lambda _: body)
    assert said in str(error.value)


@given(st.integers(0, 40_000))
def test_the_next_page_overlaps_what_is_known_a_little_and_brings_much(known: int) -> None:
    window = next_window(known)
    assert window.start <= max(known - OVERLAP, 0)
    assert window.start + window.size >= known + ROWS // 2 - OVERLAP
    assert window.size <= ROWS


@given(st.integers(ROWS, 40_000), st.integers(OVERLAP, LEAST_NEW))
def test_a_wide_page_overlaps_what_is_known_by_much_and_brings_a_little(known: int, new: int) -> None:
    window = wide_window(known, new)
    # As much as pages of any size can: of 1.6 million cases all but 907 have a quarter of a page, the least is 15 rows.
    assert window.start == min((known + new - 1) // size * size for size in range(ROWS // 2, ROWS + 1))
    assert window.start <= known - OVERLAP
    assert window.start + window.size >= known + new
    assert window.size <= ROWS


def rows(*moments: int) -> list[Row]:
    return [Row(Content(moment * 1000, "1", "1", "BUY"), NOW) for moment in moments]


def test_a_page_is_placed_by_a_change_of_the_millisecond_however_little_overlaps() -> None:
    for is_wide in (False, True):
        assert find_place(rows(9, 9, 8, 8, 8), rows(9, 8, 8, 8, 8, 7), is_wide=is_wide) == 1
        assert find_place(rows(9, 8, 7), rows(8, 7, 6), is_wide=is_wide) == 1
        assert find_place(rows(9, 8, 7), rows(11, 10, 9, 8), is_wide=is_wide) == -2
        assert find_place(rows(9, 8, 7, 6), rows(8, 7), is_wide=is_wide) == 1


def test_a_page_whose_place_is_not_certain_has_none() -> None:
    for is_wide in (False, True):
        assert find_place(rows(9, 8, 7), rows(6, 5), is_wide=is_wide) is None
        assert find_place(rows(9, 8, 8), rows(8, 8, 8, 7), is_wide=is_wide) is None
        assert find_place(rows(9, *[8] * 50), rows(*[8] * 50, 7), is_wide=is_wide) is None
        assert find_place(rows(9), [], is_wide=is_wide) is None


def test_within_one_millisecond_only_a_wide_overlap_is_believed() -> None:
    sweep = [Row(Content(8000, str(price), "1", "BUY"), NOW) for price in range(50)]
    known, page = [*rows(9), *sweep[:30]], [*sweep[20:], *rows(7)]
    assert find_place(known, page, is_wide=False) is None
    assert find_place(known, page, is_wide=True) == 21


def test_each_market_is_subscribed_by_a_message_of_its_own_and_only_to_takers() -> None:
    subscriptions = VENUE.subscriptions(["BTC", "BTC_JPY"], 7)
    assert [(each.request_id, each.markets) for each in subscriptions] == [(7, ("BTC",)), (8, ("BTC_JPY",))]
    assert json.loads(subscriptions[1].message) == {
        "command": "subscribe",
        "channel": "trades",
        "symbol": "BTC_JPY",
        "option": "TAKER_ONLY",
    }


@pytest.mark.parametrize(
    ("frame", "control"),
    [
        (
            '{"error":"ERR-5003 Request too many."}',
            Refused(None, None, "GMO Coin answered ERR-5003 Request too many.", retryable=True),
        ),
        (
            '{"error":"ERR-5106 Invalid request parameter. symbol"}',
            Refused(None, None, "GMO Coin answered ERR-5106 Invalid request parameter. symbol", retryable=False),
        ),
        (
            '{"error":"ERR-5201 MAINTENANCE."}',
            Refused(None, None, "GMO Coin answered ERR-5201 MAINTENANCE.", retryable=True),
        ),
        ('{"channel":"ticker","symbol":"BTC"}', None),
        ('{"error":5}', None),
        ("[]", None),
        ("nonsense", None),
        ("\x00", None),
    ],
)
def test_what_a_frame_without_trades_says(frame: str, control: object) -> None:
    assert VENUE.control(frame.encode()) == control


def test_spot_and_leverage_are_listed_by_the_venues_own_names() -> None:
    body = b"""{"status":0,"data":[
        {"symbol":"BTC","minOrderSize":"0.0001","maxOrderSize":"5","sizeStep":"0.0001","tickSize":"1","takerFee":"0.0005"},
        {"symbol":"BTC_JPY"}],"responsetime":"x"}"""
    assert VENUE.read_markets(body) == [
        ListedMarket("BTC", "BTC", "JPY", Decimal(1), Decimal("0.0001"), "trading"),
        ListedMarket("BTC_JPY", "BTC", "JPY", None, None, "trading"),
    ]
    assert VENUE.markets_request() == Request("/public/v1/symbols", {})
    with pytest.raises(ContractError, match="ERR-5201 MAINTENANCE"):
        VENUE.read_markets(b'{"status":5,"messages":[{"message_code":"ERR-5201","message_string":"MAINTENANCE"}]}')


def test_the_limits_are_the_documented_ones() -> None:
    limits = VENUE.limits
    assert limits.websocket_url == "wss://api.coin.z.com/ws/public/v1"
    assert limits.rest_url == "https://api.coin.z.com"
    assert limits.message_interval_s >= 1.0
    assert limits.paced_by == "address"
    assert not limits.acknowledges
    assert not VENUE.ordered_ids
    assert not VENUE.contiguous("BTC")
