from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.trade import Trade, decode_trade, encode_trade
from ashi_ingest.venues.gmo.messages import KEPT, GmoParser
from ashi_ingest.venues.parsing import Parsed, Rejected
from ashi_ingest.venues.registry import VENUES

AT = 1_746_018_583_601_000
RECEIVED = AT + 15_000
REAL = (
    '{"channel":"trades","price":"13492957","side":"SELL","size":"0.004","symbol":"BTC_JPY",'
    '"timestamp":"2025-04-30T13:09:43.601Z"}'
)


def frame(**fields: object) -> bytes:
    return json.dumps(json.loads(REAL) | fields).encode()


def at(ms: int) -> str:
    """A timestamp so many ms after 13:09."""
    return f"2025-04-30T13:{9 + ms // 60_000:02}:{ms // 1000 % 60:02}.{ms % 1000:03}Z"


def parse(text: str | bytes) -> Parsed:
    return VENUES["gmo"].parser().parse(text.encode() if isinstance(text, str) else text, RECEIVED)


def only_rejection(text: str | bytes) -> Rejected:
    parsed = parse(text)
    assert parsed.trades == []
    (rejected,) = parsed.rejected
    return rejected


def feed(*frames: bytes) -> list[Trade]:
    """The trades of one connection."""
    parser = VENUES["gmo"].parser()
    return [trade for each in frames for trade in parser.parse(each, RECEIVED + 60_000_000).trades]


def test_a_real_frame_becomes_a_trade_in_every_field() -> None:
    parsed = parse(REAL)
    assert parsed.rejected == []
    assert parsed.trades == [
        Trade(
            symbol="gmo:BTC_JPY",
            trade_id="1746018583601-13492957-0.004-SELL-0",
            price=Decimal(13492957),
            size=Decimal("0.004"),
            side="sell",
            traded_at=AT,
            received_at=RECEIVED,
            sequence=0,
        )
    ]
    assert decode_trade(encode_trade(parsed.trades[0])) == parsed.trades[0]


def test_the_taker_buys() -> None:
    assert parse(frame(side="BUY")).trades[0].side == "buy"


def test_spot_and_leverage_are_different_markets_by_the_venues_own_names() -> None:
    assert [trade.symbol for trade in feed(frame(symbol="BTC"), frame(symbol="BTC_JPY"))] == ["gmo:BTC", "gmo:BTC_JPY"]


def test_trades_that_agree_in_every_field_are_different_trades() -> None:
    trades = feed(frame(), frame(), frame())
    assert [trade.trade_id.rpartition("-")[2] for trade in trades] == ["0", "1", "2"]
    assert [trade.sequence for trade in trades] == [0, 1, 2]


def test_the_sequence_counts_all_trades_of_a_millisecond_and_the_id_only_the_equal_ones() -> None:
    trades = feed(frame(), frame(price="13492958"), frame(), frame(side="BUY"), frame(size="0.005"))
    assert [trade.sequence for trade in trades] == [0, 1, 2, 3, 4]
    assert [trade.trade_id.rpartition("-")[2] for trade in trades] == ["0", "0", "1", "0", "0"]
    assert len({trade.trade_id for trade in trades}) == 5


def test_each_millisecond_and_each_symbol_counts_by_itself() -> None:
    trades = feed(frame(), frame(timestamp=at(43_602)), frame(symbol="BTC"), frame(timestamp=at(43_602)))
    assert [trade.sequence for trade in trades] == [0, 0, 0, 1]


def test_a_trade_that_comes_late_is_counted_with_its_own_millisecond() -> None:
    trades = feed(frame(timestamp=at(1)), frame(timestamp=at(5)), frame(timestamp=at(1)))
    assert [trade.sequence for trade in trades] == [0, 0, 1]
    assert trades[2].trade_id.endswith("-1")


def test_each_connection_counts_from_the_beginning() -> None:
    assert feed(frame()) == feed(frame())


def test_another_notation_of_the_same_number_gives_the_same_id() -> None:
    trades = feed(frame(size="0.004"), frame(size="0.00400"))
    assert [trade.trade_id.rpartition("-")[2] for trade in trades] == ["0", "1"]


def test_what_is_counted_is_bounded_and_the_latest_milliseconds_are_kept() -> None:
    parser = VENUES["gmo"].parser()
    for ms in range(5 * KEPT):
        parser.parse(frame(timestamp=at(ms)), RECEIVED + 60_000_000)
    (ordinals,) = parser._ordinals.values()  # type: ignore[attr-defined]
    assert len(ordinals._by_time) < 2 * KEPT
    for ms in (5 * KEPT - 1, 4 * KEPT):
        (trade,) = parser.parse(frame(timestamp=at(ms)), RECEIVED + 60_000_000).trades
        assert trade.sequence == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["BTC", "BTC_JPY"]),
            st.integers(0, 3),
            st.sampled_from(["1", "2"]),
            st.sampled_from(["BUY", "SELL"]),
        ),
        max_size=40,
    )
)
def test_ordinals_are_those_of_a_plain_count(executions: list[tuple[str, int, str, str]]) -> None:
    trades = feed(
        *(
            frame(symbol=symbol, timestamp=at(ms), price=price, size="0.5", side=side)
            for symbol, ms, price, side in executions
        )
    )
    seen: Counter[object] = Counter()
    for (symbol, ms, price, side), trade in zip(executions, trades, strict=True):
        moment = trade.traded_at // 1000
        assert trade.trade_id == f"{moment}-{price}-0.5-{side}-{seen[symbol, ms, price, side]}"
        assert trade.sequence == seen[symbol, ms]
        seen[symbol, ms, price, side] += 1
        seen[symbol, ms] += 1


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2025-04-30T13:09:43.601Z", AT),
        ("2025-04-30T13:09:43Z", AT - 601_000),
        ("2025-04-30T13:09:43.6Z", AT - 1_000),
        ("2025-04-30T13:09:43.601999Z", AT),
    ],
)
def test_times_are_floored_to_the_millisecond(text: str, us: int) -> None:
    assert parse(frame(timestamp=text)).trades[0].traded_at == us


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"price": "NaN"}, "price"),
        ({"price": "-1"}, "negative"),
        ({"price": 13492957}, "price"),
        ({"size": "1e-8"}, "size"),
        ({"size": "9" * 50}, "50 digits"),
        ({"side": "BOTH"}, "side 'BOTH'"),
        ({"side": ""}, "side ''"),
        ({"timestamp": ""}, "timestamp ''"),
        ({"timestamp": "2025-04-30T13:09:43.601"}, "timestamp"),
        ({"timestamp": "2025-02-30T13:09:43.601Z"}, "not a date of the calendar"),
        ({"timestamp": "2025-04-30T13:11:43.601Z"}, "one of the two clocks is wrong"),
        ({"timestamp": None}, "timestamp"),
    ],
)
def test_what_claims_to_be_a_trade_and_is_none_is_rejected_whole_with_its_symbol(
    fields: dict[str, object], said: str
) -> None:
    bad = frame(**fields)
    rejected = only_rejection(bad)
    assert said in rejected.reason
    assert rejected.value == bad
    assert rejected.symbol == "gmo:BTC_JPY"


def test_a_frame_without_a_market_is_rejected_without_a_symbol() -> None:
    assert only_rejection(frame(symbol="")).symbol is None


def test_a_rejected_frame_is_not_counted() -> None:
    assert [
        trade.sequence for trade in feed(frame(), frame(size="-1"), frame(timestamp=at(43_601 + 900_000)), frame())
    ] == [
        0,
        1,
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"error":"ERR-5003 Request too many."}',
        '{"error":"ERR-5106 Invalid request parameter. symbol"}',
        '{"channel":"ticker","ask":"750760","bid":"750600","symbol":"BTC","timestamp":"2018-03-30T12:34:56.789Z"}',
        '{"channel":"orderbooks","asks":[],"bids":[],"symbol":"BTC","timestamp":"2018-03-30T12:34:56.789Z"}',
    ],
)
def test_errors_and_other_channels_are_skipped(text: str) -> None:
    assert parse(text).skipped


@pytest.mark.parametrize("text", [b"\xff", b"", b"nonsense", b"[1]", b"{", b'{"stream":"x"}', b"{}", b"[" * 100_000])
def test_what_is_no_frame_of_the_venue_is_rejected_whole(text: bytes) -> None:
    assert only_rejection(text).value == text


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.sampled_from(["ticker", None, 1]),
        "price": st.sampled_from(["13492957.000", "0", "-0", "007", "1e5", "1.", "9" * 39, 1]),
        "size": st.sampled_from(["0.0040", "0.00000001", "-1", "", "100"]),
        "side": st.sampled_from(["BUY", "buy", "", None]),
        "symbol": st.sampled_from(["BTC", "", "B C", "\u00c4"]),
        "timestamp": st.sampled_from(["2025-04-30T13:09:43Z", "2025-02-30T13:09:43Z", "2099-04-30T13:09:43Z", "now"]),
        "more": st.sampled_from(["\u00e4", [[1]]]),
    },
)


@given(st.lists(CHANGES, max_size=4), st.booleans())
def test_what_is_read_at_once_is_what_is_read_in_steps(changes: list[dict[str, object]], ascii_only: bool) -> None:
    frames = [json.dumps(json.loads(REAL) | each, ensure_ascii=ascii_only).encode() for each in changes]
    at_once, in_steps = GmoParser(), GmoParser()
    in_steps._read_at_once = lambda *_: None  # type: ignore[method-assign]
    assert [at_once.parse(each, RECEIVED) for each in frames] == [in_steps.parse(each, RECEIVED) for each in frames]
