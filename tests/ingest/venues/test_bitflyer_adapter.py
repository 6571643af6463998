from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repairs import NOW, Outcome, bare, new_ones, run_plan

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade
from ashi_ingest.venues.answers import MAX_TRIES
from ashi_ingest.venues.base import Acknowledged, Answer, ListedMarket, Refused, Request
from ashi_ingest.venues.bitflyer import repair as bitflyer_repair
from ashi_ingest.venues.registry import VENUES

VENUE = VENUES["bitflyer"].live(has_key=False)
COUNT = 4
"""Rows of an answer in these tests, so that short histories have many pages."""


def execution(number: int, exec_date: str) -> str:
    side = ("BUY", "SELL", "")[number % 3]
    return (
        f'{{"id":{number},"side":"{side}","price":{5_860_000 + number}.0,"size":1e-08,"exec_date":"{exec_date}",'
        '"buy_child_order_acceptance_id":"JRF1","sell_child_order_acceptance_id":"JRF2"}'
    )


def moment(number: int) -> tuple[str, str]:
    """Second and 100 ns of an execution; now and then before that of a smaller id, and at times a whole second."""
    second, fraction = 10 + number // 100 % 50, (number * 7_919_000 + 692_063) % 10_000_000
    return f"2021-12-12T23:05:{second}", f"{fraction if number % 4 else 0:07}"


def trade(number: int, market: str = "BTC_JPY") -> Trade:
    """The trade of that id, as the parser reads it from the websocket: 6 or 7 digits and Z."""
    second, fraction = moment(number)
    row = execution(number, f"{second}.{fraction}Z")
    params = f'{{"channel":"lightning_executions_{market}","message":[{row}]}}'
    frame = f'{{"jsonrpc":"2.0","method":"channelMessage","params":{params}}}'
    (read,) = VENUE.parser().parse(frame.encode(), NOW).trades
    return read


def row(number: int) -> str:
    """The same as REST lists it: 0 to 3 digits and no Z."""
    second, fraction = moment(number)
    ms = fraction[:3].rstrip("0")
    return execution(number, f"{second}.{ms}" if ms else second)


class Rest:
    """getexecutions over those that have happened by now; more happen between requests."""

    def __init__(self, ids: Iterable[int], *, visible: int | None = None, arrivals: Iterable[int] = ()) -> None:
        self.ids = sorted(ids)
        self.visible = len(self.ids) if visible is None else visible
        self.arrivals = iter(arrivals)
        self.replaced: dict[int, str] = {}

    def __call__(self, request: Request) -> bytes:
        assert request.path == "/v1/getexecutions"
        assert request.parameters["product_code"] == "BTC_JPY"
        after, before = int(request.parameters.get("after", -1)), int(request.parameters.get("before", 2**62))
        seen = self.ids[: self.visible]
        self.visible = min(self.visible + next(self.arrivals, 1), len(self.ids))
        within = [number for number in seen if after < number < before]
        chosen = within[::-1][: int(request.parameters["count"])]
        return ("[" + ",".join(self.replaced.get(number, row(number)) for number in chosen) + "]").encode()


def repair(rest: Rest, since: Sequence[Trade], until: Trade | None) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitflyer_repair, "COUNT", COUNT)
        return run_plan(VENUE.repair("BTC_JPY", since, until), rest)


def numbers(trades: Iterable[Trade]) -> list[int]:
    return [each.sequence for each in trades]


@st.composite
def histories(draw: st.DrawFn) -> list[int]:
    """Ids in runs and jumps: dense, sparse as where products share a sequence, and thousands apart."""
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from([1, 1, 2, 7, 40, 5000]), st.integers(1, 12)),
            min_size=1,
            max_size=8,
        )
    )
    ids, last = [], 1000
    for step, times in steps:
        for _ in range(times):
            last += step
            ids.append(last)
    return ids


@given(
    ids=histories(),
    known=st.integers(1, 40),
    cut=st.integers(4, 40),
    swaps=st.sets(st.integers(0, 60)),
    live=st.one_of(st.none(), st.integers(0, 60)),
    lag=st.integers(0, 8),
    arrivals=st.lists(st.integers(0, 3), max_size=MAX_TRIES - 2),
)
def test_everything_is_repaired_whatever_was_missed_and_however_ids_jump_and_rest_lags(
    ids: list[int],
    known: int,
    cut: int,
    swaps: set[int],
    live: int | None,
    lag: int,
    arrivals: list[int],
) -> None:
    came = list(ids)  # in the order in which the websocket sent it: neighbours may be swapped
    for place in swaps:
        if 2 * place + 1 < len(came):
            came[2 * place], came[2 * place + 1] = came[2 * place + 1], came[2 * place]
    known = min(known, len(ids))
    published = came[:known]
    since = [trade(number) for number in published[-cut:]]
    missed = sorted({number for number in ids if number > min(published)} - set(published))
    until = trade(missed[live]) if live is not None and live < len(missed) else None
    rest = Rest(ids, visible=max(len(ids) - lag, known + 1), arrivals=arrivals)
    shown = set(rest.ids[: rest.visible]) & set(missed)
    outcome = repair(rest, since, until)
    assert outcome.reason is None
    recovered = new_ones(outcome.yielded, since)
    assert bare(recovered) == bare([trade(number) for number in missed[: len(recovered)]])
    assert len(recovered) >= (len(shown) if until is None else missed.index(until.sequence))


@given(histories())
def test_a_step_never_holds_more_than_one_answer_so_memory_is_bounded(ids: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitflyer_repair, "COUNT", COUNT)
        plan, rest = VENUE.repair("BTC_JPY", [trade(ids[0])], None), Rest(ids)
        to_send: Answer | None = None
        published: list[int] = []
        with suppress(StopIteration):
            while True:
                step = plan.send(to_send)
                to_send = Answer(rest(step), NOW) if isinstance(step, Request) else None
                if isinstance(step, list):
                    assert len(step) <= COUNT
                    published += numbers(step)
    assert published == ids[1:]


def test_a_short_interruption_costs_one_request() -> None:
    outcome = repair(Rest([1, 2, 3, 50]), [trade(1)], trade(50))
    assert numbers(outcome.yielded) == [2, 3, 50]
    assert len(outcome.requests) == 1


def test_an_empty_stretch_of_a_million_ids_takes_few_requests_and_no_loop() -> None:
    ids = [1, 2, 3, 4, 5, 1_000_000, *range(1_000_001, 1_000_010)]
    outcome = repair(Rest(ids), [trade(1)], trade(1_000_009))
    assert numbers(outcome.yielded) == ids[1:]
    assert len(outcome.requests) < 60


def test_dense_windows_after_a_sparse_stretch_are_read_in_full() -> None:
    ids = [*range(1, 2000, 50), *range(2000, 2100), *range(2100, 9000, 70)]
    outcome = repair(Rest(ids, arrivals=count(0, 0)), [trade(1)], None)
    assert numbers(outcome.yielded) == ids[1:]
    assert outcome.reason is None


def test_the_repair_begins_after_the_smallest_known_id_since_ids_come_out_of_order() -> None:
    since = [trade(number) for number in (5, 7, 9)]
    outcome = repair(Rest(range(5, 10)), since, None)
    assert numbers(new_ones(outcome.yielded, since)) == [6, 8]


def test_what_was_known_just_before_a_long_list_was_cut_is_not_fetched_again() -> None:
    since = [trade(number) for number in (10, 12, 13, 14, 15, 16, 17, 18)]  # 11 came before 10, and was cut off
    outcome = repair(Rest(range(1, 20)), since, None)
    assert numbers(new_ones(outcome.yielded, since)) == [19]


def test_a_rest_interface_that_never_catches_up_is_given_up_with_the_reason() -> None:
    outcome = repair(Rest([1, 2, 3]), [trade(1)], trade(7))
    assert numbers(outcome.yielded) == [2, 3]
    assert len(outcome.requests) == 1 + MAX_TRIES
    assert outcome.reason is not None
    assert "does not list trade 7, which came over the websocket; its newest of BTC_JPY is 3" in outcome.reason


@pytest.mark.parametrize("ids", [range(1, 5), range(1, 30)])
def test_a_bad_row_is_named_and_the_good_ones_are_published(ids: range) -> None:
    rest = Rest(ids, arrivals=count(0, 0))
    rest.replaced[3] = execution(3, "")  # some historic rows have no date
    outcome = repair(rest, [trade(1)], None)
    assert numbers(outcome.yielded) == [number for number in ids if number not in (1, 3)]
    assert outcome.reason is not None
    assert "exec_date is blank" in outcome.reason
    assert '{"id":3,' in outcome.reason


def test_answers_of_bad_rows_only_do_not_keep_the_plan_going_for_ever() -> None:
    for until in (None, trade(30)):
        rest = Rest(range(1, 31), arrivals=count(0, 0))
        rest.replaced = dict.fromkeys(range(31), "{}")
        outcome = repair(rest, [trade(1)], until)
        assert outcome.yielded == []
        assert outcome.reason is not None
        assert "missing required field" in outcome.reason


def test_an_answer_has_five_hundred_rows_at_most() -> None:
    request = next(VENUE.repair("BTC_JPY", [trade(7)], None))
    assert request == Request("/v1/getexecutions", {"product_code": "BTC_JPY", "count": "500", "after": "6"})


def test_each_channel_is_subscribed_by_a_message_of_its_own_with_an_id() -> None:
    subscriptions = VENUE.subscriptions(["BTC_JPY", "FX_BTC_JPY"], 7)
    assert [(each.request_id, each.markets) for each in subscriptions] == [(7, ("BTC_JPY",)), (8, ("FX_BTC_JPY",))]
    assert json.loads(subscriptions[1].message) == {
        "jsonrpc": "2.0",
        "method": "subscribe",
        "params": {"channel": "lightning_executions_FX_BTC_JPY"},
        "id": 8,
    }


@pytest.mark.parametrize(
    ("frame", "control"),
    [
        ('{"jsonrpc":"2.0","id":7,"result":true}', Acknowledged(7)),
        (
            '{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"Invalid params"}}',
            Refused(7, None, "bitFlyer answered error -32602: Invalid params", retryable=False),
        ),
        (
            '{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"Internal error"}}',
            Refused(7, None, "bitFlyer answered error -32603: Internal error", retryable=True),
        ),
        (
            '{"jsonrpc":"2.0","id":7,"error":{"code":-32000,"message":"Busy"}}',
            Refused(7, None, "bitFlyer answered error -32000: Busy", retryable=True),
        ),
        (
            '{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"Invalid params"}}',
            Refused(None, None, "bitFlyer answered error -32602: Invalid params", retryable=True),
        ),
        (
            '{"jsonrpc":"2.0","id":7,"result":false}',
            Refused(7, None, "bitFlyer answered false to a subscription, not true", retryable=True),
        ),
        ('{"jsonrpc":"2.0","method":"channelMessage","params":{"channel":"lightning_ticker_BTC_JPY"}}', None),
        ('{"id":7}', None),
        ('{"id":"7","result":true}', None),
        ("[]", None),
        ("nonsense", None),
        ("\x00", None),
    ],
)
def test_what_a_frame_without_trades_says(frame: str, control: object) -> None:
    assert VENUE.control(frame.encode()) == control


def test_only_fx_btc_jpy_has_contiguous_ids() -> None:
    assert VENUE.contiguous("FX_BTC_JPY")
    assert not any(VENUE.contiguous(market) for market in ("BTC_JPY", "ETH_JPY", "XRP_JPY", "ETH_BTC"))
    assert VENUE.ordered_ids


def test_all_products_are_listed_futures_by_their_own_codes() -> None:
    body = b"""[{"product_code":"BTC_JPY","market_type":"Spot"},{"product_code":"FX_BTC_JPY","market_type":"FX"},
        {"product_code":"BTCJPY17DEC2021","alias":"BTCJPY_MAT1WK","market_type":"Futures"}]"""
    assert VENUE.read_markets(body) == [
        ListedMarket("BTC_JPY", "BTC", "JPY", None, None, "trading"),
        ListedMarket("FX_BTC_JPY", "BTC", "JPY", None, None, "trading"),
        ListedMarket("BTCJPY17DEC2021", None, None, None, None, "trading"),
    ]
    assert VENUE.markets_request() == Request("/v1/getmarkets", {})
    with pytest.raises(ContractError, match="/v1/getmarkets"):
        VENUE.read_markets(b'{"status":-500}')


def test_the_limits_are_the_documented_ones() -> None:
    limits = VENUE.limits
    assert limits.websocket_url == "wss://ws.lightstream.bitflyer.com/json-rpc"
    assert limits.rest_url == "https://api.bitflyer.com"
    assert limits.request_interval_s > 5 * 60 / 500
    assert limits.acknowledges
