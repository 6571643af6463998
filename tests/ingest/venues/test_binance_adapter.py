from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repairs import NOW, Outcome, bare, new_ones, run_plan

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade
from ashi_ingest.venues.answers import MAX_TRIES
from ashi_ingest.venues.base import Acknowledged, Answer, Closing, ListedMarket, Refused, RepairEnd, Request, Venue
from ashi_ingest.venues.binance import repair as binance_repair
from ashi_ingest.venues.registry import VENUES

SPOT = VENUES["binance"].live(has_key=False)
USDM = VENUES["binance-usdm"].live(has_key=False)
USDM_KEY = VENUES["binance-usdm"].live(has_key=True)
LIMIT = 5
START_MS = 1_723_161_255_342


def trade(number: int, venue: str = "binance") -> Trade:
    """The trade of that id, as the parser reads it from the websocket."""
    data = {
        "e": "trade",
        "E": START_MS + number + 1,
        "s": "BTCUSDT",
        "t": number,
        "p": f"{61_000 + number}.10000000",
        "q": "0.02000000",
        "T": START_MS + number,
        "m": number % 2 == 0,
        "M": True,
    }
    frame = json.dumps({"stream": "btcusdt@trade", "data": data}).encode()
    (read,) = VENUES[venue].live(has_key=False).parser().parse(frame, NOW).trades
    return read


def row(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "price": f"{61_000 + number}.10000000",
        "qty": "0.02000000",
        "quoteQty": "1220.00",
        "time": START_MS + number,
        "isBuyerMaker": number % 2 == 0,
        "isBestMatch": True,
    }


class Rest:
    """Trades by id or the latest, of those that have happened by now; more happen between requests."""

    def __init__(self, ids: Iterable[int], *, visible: int, arrivals: Iterable[int] = ()) -> None:
        self.ids = sorted(ids)
        self.visible = visible
        self.arrivals = iter(arrivals)
        self.replaced: dict[int, Any] = {}

    def __call__(self, request: Request) -> bytes:
        seen = self.ids[: self.visible]
        self.visible = min(self.visible + next(self.arrivals, 1), len(self.ids))
        limit = int(request.parameters["limit"])
        assert request.parameters["symbol"] == "BTCUSDT"
        if request.path.endswith("/trades"):
            assert "fromId" not in request.parameters
            chosen = seen[-limit:]
        else:
            assert request.path.endswith("/historicalTrades")
            chosen = [number for number in seen if number >= int(request.parameters["fromId"])][:limit]
        return json.dumps([self.replaced.get(number, row(number)) for number in chosen]).encode()


def repair(venue: Venue, rest: Rest, since: list[Trade], until: Trade | None) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SPOT_TRADES", "USDM_TRADES", "USDM_LATEST"):
            patch.setattr(binance_repair, name, getattr(binance_repair, name)._replace(limit=LIMIT))
        return run_plan(venue.repair("BTCUSDT", since, until), rest)


def numbers(trades: Iterable[Trade]) -> list[int]:
    return [each.sequence for each in trades]


@given(
    first=st.integers(0, 3),
    known=st.integers(1, 10),
    total=st.integers(0, 40),
    live=st.one_of(st.none(), st.integers(0, 39)),
    lag=st.integers(0, 20),
    arrivals=st.lists(st.integers(0, 3), max_size=MAX_TRIES - 2),
)
def test_spot_is_repaired_whatever_was_missed_and_however_rest_lags(
    first: int, known: int, total: int, live: int | None, lag: int, arrivals: list[int]
) -> None:
    ids = list(range(first, first + known + total))
    since = [trade(number) for number in ids[:known]]
    until = trade(ids[known + live]) if live is not None and live < total else None
    rest = Rest(ids, visible=max(len(ids) - lag, known), arrivals=arrivals)
    shown = rest.visible
    outcome = repair(SPOT, rest, since, until)
    assert outcome.reason is None
    recovered = new_ones(outcome.yielded, since)
    assert bare(recovered) == bare([trade(number) for number in ids[known : known + len(recovered)]])
    assert len(recovered) >= (shown - known if until is None else until.sequence - ids[known])


def usdm_interrupted(
    ids: set[int], known: int, live: int | None, lag: int, arrivals: list[int]
) -> tuple[list[Trade], list[int], Trade | None, Rest]:
    """Of the ids that there are, the trades known and the ids missed, the trade that is live again, and REST.

    `known`: so many at most. `live`: of those missed, by its place. `lag`: so many REST does not show at first.
    """
    listed = sorted(ids)
    known = min(known, len(listed))
    since = [trade(number, "binance-usdm") for number in listed[:known]]
    missed = listed[known:]
    until = trade(missed[live], "binance-usdm") if live is not None and live < len(missed) else None
    return since, missed, until, Rest(listed, visible=max(len(listed) - lag, known), arrivals=arrivals)


@given(
    ids=st.sets(st.integers(0, 150), min_size=1, max_size=60),
    known=st.integers(1, 60),
    live=st.one_of(st.none(), st.integers(0, 59)),
    lag=st.integers(0, 20),
    arrivals=st.lists(st.integers(0, 3), max_size=MAX_TRIES - 2),
)
def test_usdm_is_repaired_and_its_real_holes_are_no_loss(
    ids: set[int], known: int, live: int | None, lag: int, arrivals: list[int]
) -> None:
    since, missed, until, rest = usdm_interrupted(ids, known, live, lag, arrivals)
    shown = rest.visible
    outcome = repair(USDM_KEY, rest, since, until)
    assert outcome.reason is None
    recovered = new_ones(outcome.yielded, since)
    assert bare(recovered) == bare([trade(number, "binance-usdm") for number in missed[: len(recovered)]])
    assert len(recovered) >= (shown - len(since) if until is None else missed.index(until.sequence))


@given(
    ids=st.sets(st.integers(0, 60), min_size=1, max_size=40),
    known=st.integers(1, 40),
    live=st.one_of(st.none(), st.integers(0, 39)),
    lag=st.integers(0, 4),
    arrivals=st.lists(st.integers(0, 3), max_size=MAX_TRIES - 2),
)
def test_usdm_without_a_key_publishes_what_there_is_and_is_repaired_only_if_the_latest_reach_back(
    ids: set[int], known: int, live: int | None, lag: int, arrivals: list[int]
) -> None:
    since, missed, until, rest = usdm_interrupted(ids, known, live, lag, arrivals)
    shown = rest.visible
    outcome = repair(USDM, rest, since, until)
    recovered = numbers(new_ones(outcome.yielded, since))
    assert recovered == sorted(recovered)
    assert set(recovered) <= set(missed)
    if outcome.reason is None:
        assert recovered == missed[: len(recovered)]
        assert len(recovered) >= (shown - len(since) if until is None else missed.index(until.sequence))
    else:
        assert "ASHI_BINANCE_API_KEY" in outcome.reason


def test_usdm_without_a_key_says_how_far_back_it_got_and_publishes_that() -> None:
    rest = Rest(range(1, 101), visible=100, arrivals=count(0, 0))
    outcome = repair(USDM, rest, [trade(90, "binance-usdm")], trade(101, "binance-usdm"))
    assert numbers(outcome.yielded) == [96, 97, 98, 99, 100]
    assert outcome.reason is not None
    assert "reach back to id 96 and not to 91: set ASHI_BINANCE_API_KEY" in outcome.reason
    assert outcome.end.beyond_reach
    assert not outcome.end.final


def test_only_the_old_trades_of_usdm_need_the_key_and_are_asked_for_only_where_the_latest_do_not_reach_back() -> None:
    since, rest = [trade(1, "binance-usdm")], Rest(range(1, 4), visible=3)
    for venue in (USDM, USDM_KEY):
        assert [(each.path, each.api_key) for each in repair(venue, rest, since, None).requests] == [
            ("/fapi/v1/trades", None)
        ]
    many = Rest(range(1, 100), visible=99)
    outcome = repair(USDM_KEY, many, [trade(91, "binance-usdm")], trade(99, "binance-usdm"))
    assert [(each.path, each.api_key) for each in outcome.requests] == [
        ("/fapi/v1/trades", None),
        ("/fapi/v1/historicalTrades", binance_repair.API_KEY),
        ("/fapi/v1/historicalTrades", binance_repair.API_KEY),
    ]
    assert numbers(outcome.yielded) == [92, 93, 94, 95, 96, 97, 98, 99]
    assert [(each.path, each.api_key) for each in repair(SPOT, rest, [trade(1)], None).requests] == [
        ("/api/v3/historicalTrades", None)
    ]


@pytest.mark.parametrize(
    ("venue", "asked"),
    [
        (SPOT, [("/api/v3/historicalTrades", "1000", 25)]),
        (USDM, [("/fapi/v1/trades", "1000", 5)]),
        (USDM_KEY, [("/fapi/v1/trades", "1000", 5), ("/fapi/v1/historicalTrades", "500", 20)]),
    ],
)
def test_requests_have_the_documented_size_and_weight(venue: Venue, asked: list[tuple[str, str, int]]) -> None:
    plan = venue.repair("BTCUSDT", [trade(7)], None)
    answer, seen = None, []
    for _ in asked:
        request = plan.send(answer)
        assert isinstance(request, Request)
        seen.append((request.path, request.parameters["limit"], request.weight))
        answer = Answer(json.dumps([row(number) for number in range(50_000, 51_000)]).encode(), NOW)
    assert seen == asked


def test_spot_pages_forwards_from_the_id_after_the_last_known() -> None:
    outcome = repair(SPOT, Rest(range(20), visible=20), [trade(3), trade(4)], None)
    assert [each.parameters["fromId"] for each in outcome.requests] == ["4", "8", "12", "16"]


def test_nothing_is_asked_when_nothing_is_missing() -> None:
    assert repair(SPOT, Rest([], visible=0), [trade(4)], trade(5)) == Outcome([], RepairEnd(), [])


def test_ids_that_spot_does_not_list_are_named() -> None:
    ids = [1, 2, 3, 5, 6, 9, 10, 11, 13, 15, 17]
    outcome = repair(SPOT, Rest(ids, visible=len(ids)), [trade(1)], trade(18))
    assert numbers(outcome.yielded) == ids[1:]
    assert outcome.reason is not None
    assert "id 4, 7 to 8, 12, and of 2 more stretches" in outcome.reason
    assert outcome.end.final, "it lists those before and after: that is its word"


def test_ids_that_spot_does_not_list_are_not_final_while_something_else_is_wrong() -> None:
    rest = Rest([1, 2, 4, 5], visible=4)
    assert not repair(SPOT, rest, [trade(1)], trade(9)).end.final, "it lags"
    rest.replaced[5] = row(5) | {"price": "NaN"}
    assert not repair(SPOT, rest, [trade(1)], trade(5)).end.final, "a row could not be read"


def test_what_is_missing_beyond_the_first_live_trade_is_no_loss_the_websocket_delivers_it() -> None:
    outcome = repair(SPOT, Rest([1, 2, 3, 4, 9], visible=5), [trade(1)], trade(4))
    assert numbers(outcome.yielded) == [2, 3, 4, 9]
    assert outcome.reason is None


def test_a_rest_interface_that_never_catches_up_is_given_up_with_the_reason() -> None:
    for venue, name in ((SPOT, "binance"), (USDM_KEY, "binance-usdm"), (USDM, "binance-usdm")):
        outcome = repair(venue, Rest([1, 2, 3], visible=3), [trade(1, name)], trade(7, name))
        assert numbers(outcome.yielded) == [2, 3]
        assert len(outcome.requests) == 1 + MAX_TRIES
        assert outcome.reason is not None
        assert "from id 4 on, but 7 came over the websocket" in outcome.reason


def test_a_bad_row_is_named_and_the_good_ones_are_published() -> None:
    rest = Rest(range(1, 5), visible=4)
    rest.replaced[3] = row(3) | {"price": "NaN"}
    outcome = repair(SPOT, rest, [trade(1)], None)
    assert numbers(outcome.yielded) == [2, 4]
    assert outcome.reason is not None
    assert "price 'NaN'" in outcome.reason
    assert '"id": 3' in outcome.reason
    assert "does not list the trades of BTCUSDT with id 3" in outcome.reason


def test_streams_are_in_lower_case_and_two_hundred_share_a_message() -> None:
    markets = [f"COIN{number}USDT" for number in range(450)]
    subscriptions = SPOT.subscriptions(markets, 7)
    assert [each.request_id for each in subscriptions] == [7, 8, 9]
    assert [len(each.markets) for each in subscriptions] == [200, 200, 50]
    assert [market for each in subscriptions for market in each.markets] == markets
    assert json.loads(subscriptions[2].message) == {
        "method": "SUBSCRIBE",
        "params": [f"coin{number}usdt@trade" for number in range(400, 450)],
        "id": 9,
    }


@pytest.mark.parametrize(
    ("frame", "control"),
    [
        ('{"result":null,"id":7}', Acknowledged(7)),
        (
            '{"error":{"code":2,"msg":"Invalid request: missing field `params`"},"id":7}',
            Refused(7, None, "Binance answered error 2: Invalid request: missing field `params`", retryable=True),
        ),
        (
            '{"code":3,"msg":"Invalid JSON: expected value"}',
            Refused(None, None, "Binance answered error 3: Invalid JSON: expected value", retryable=True),
        ),
        ('{"e":"serverShutdown","E":1770123456789}', Closing("Binance announces that this server is going down")),
        (
            '{"stream":"x","data":{"e":"serverShutdown","E":1770123456789}}',
            Closing("Binance announces that this server is going down"),
        ),
        ('{"stream":"btcusdt@depth","data":{"lastUpdateId":1,"bids":[],"asks":[]}}', None),
        ('{"e":"aggTrade"}', None),
        ('{"id":7}', None),
        ("[]", None),
        ("nonsense", None),
        ("\x00", None),
    ],
)
def test_what_a_frame_without_trades_says(frame: str, control: object) -> None:
    assert SPOT.control(frame.encode()) == control


def test_only_ascii_is_lower_case_in_the_name_of_a_stream() -> None:
    (subscription,) = SPOT.subscriptions(["币安人生USDT", "ÀİẞUSDT"], 1)
    assert json.loads(subscription.message)["params"] == ["币安人生usdt@trade", "Àİẞusdt@trade"]


def test_markets_are_listed_with_their_currencies_steps_and_states() -> None:
    body = json.dumps(
        {
            "timezone": "UTC",
            "symbols": [
                {
                    "symbol": "BTCUSDT",
                    "status": "TRADING",
                    "baseAsset": "BTC",
                    "quoteAsset": "USDT",
                    "filters": [
                        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "tickSize": "0.01000000"},
                        {"filterType": "LOT_SIZE", "minQty": "0.00001", "stepSize": "0.00001000"},
                        {"filterType": "ICEBERG_PARTS", "limit": 10},
                        {"filterType": "MARKET_LOT_SIZE", "stepSize": "0.00000000"},
                    ],
                },
                {"symbol": "LUNAUSDT", "status": "BREAK", "filters": [{"filterType": "LOT_SIZE", "stepSize": "1e-5"}]},
                {
                    "symbol": "币安人生USDT",
                    "status": "TRADING",
                    "filters": [],
                },
                {"symbol": "BTCUSDT_210326", "status": "DELIVERED"},
            ],
        }
    ).encode()
    nothing = (None, None, None, None)
    assert SPOT.read_markets(body) == [
        ListedMarket("BTCUSDT", "BTC", "USDT", Decimal("0.01"), Decimal("0.00001"), "trading"),
        ListedMarket("LUNAUSDT", *nothing, "halted"),
        ListedMarket("币安人生USDT", *nothing, "trading"),
        ListedMarket("BTCUSDT_210326", *nothing, "delisted"),
    ]
    assert SPOT.markets_request().path == "/api/v3/exchangeInfo"
    assert USDM.markets_request().path == "/fapi/v1/exchangeInfo"
    with pytest.raises(ContractError, match="/fapi/v1/exchangeInfo"):
        USDM.read_markets(b'{"symbols":[{}]}')


def test_the_limits_are_the_documented_ones() -> None:
    for venue in (SPOT, USDM):
        assert venue.limits.message_interval_s > 1 / 5, "pings and pongs count, too"
        assert venue.contiguous("BTCUSDT")
        assert venue.ordered_ids
    assert SPOT.limits.websocket_url.startswith("wss://stream.binance.com:9443/")
    assert USDM.limits.websocket_url.startswith("wss://fstream.binance.com/")


def test_the_last_ids_of_all_markets_are_stated_in_one_answer() -> None:
    """As documented, a market without trades in 24 hours has none."""
    body = b'[{"symbol":"BTCUSDT","firstId":100,"lastId":200,"count":101},{"symbol":"QUIET","firstId":-1,"lastId":-1}]'
    for name, path, weight in (("binance", "/api/v3/ticker/24hr", 80), ("binance-usdm", "/fapi/v1/ticker/24hr", 40)):
        statement = VENUES[name].live(has_key=False).statement
        assert statement is not None
        assert (statement.request.path, statement.request.weight) == (path, weight)
        assert statement.read(body) == {"BTCUSDT": 200, "QUIET": -1}
        with pytest.raises(ContractError, match=path):
            statement.read(b'{"code":-1003}')
