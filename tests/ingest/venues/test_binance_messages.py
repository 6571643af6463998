from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import EARLIEST_US, LATEST_US, Trade, encode_trade
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.venues.binance.messages import BinanceParser, parse_time
from ashi_ingest.venues.parsing import Parsed, Rejected
from ashi_ingest.venues.registry import VENUES

RECEIVED = 1_723_161_254_340_863
REAL_FRAMES = [
    line.split(b" ", 1)[1] for line in gzip.decompress(BUNDLED["binance"][0].read_bytes()).splitlines()[:200]
]
DATA = Path(__file__).parents[1] / "data"

EVENT: dict[str, Any] = {
    "e": "trade",
    "E": 1723161255343,
    "s": "BTCUSDT",
    "t": 3735683259,
    "p": "61837.63000000",
    "q": "0.02000000",
    "T": 1723161255342,
    "m": True,
    "M": True,
}


def event(**fields: Any) -> str:
    return json.dumps(EVENT | fields)


def wrapped(data: str, stream: str = "btcusdt@trade") -> str:
    return f'{{"stream":"{stream}","data":{data}}}'


def parse(frame: str | bytes, venue: str = "binance") -> Parsed:
    return VENUES[venue].parser().parse(frame.encode() if isinstance(frame, str) else frame, RECEIVED)


def only_trade(frame: str | bytes, venue: str = "binance") -> Trade:
    parsed = parse(frame, venue)
    assert parsed.rejected == []
    (trade,) = parsed.trades
    return trade


def only_rejection(frame: str | bytes) -> Rejected:
    parsed = parse(frame)
    assert parsed.trades == []
    (rejected,) = parsed.rejected
    return rejected


@pytest.mark.parametrize("venue", ["binance", "binance-usdm"])
@pytest.mark.parametrize("frame", [event(), wrapped(event())], ids=["raw", "combined"])
def test_a_trade_in_every_field(venue: str, frame: str) -> None:
    assert only_trade(frame, venue) == Trade(
        symbol=f"{venue}:BTCUSDT",
        trade_id="3735683259",
        price=Decimal("61837.63"),
        size=Decimal("0.02"),
        side="sell",
        traded_at=1_723_161_255_342_000,
        received_at=RECEIVED,
        sequence=3735683259,
    )


def test_where_the_seller_is_the_maker_the_taker_bought() -> None:
    assert only_trade(event(m=False)).side == "buy"


def test_the_time_is_the_trades_even_when_the_event_lies_in_the_next_minute() -> None:
    trade = only_trade(event(T=1723161239999, E=1723161240003))
    assert trade.traded_at == 1_723_161_239_999_000
    assert trade.traded_at // 60_000_000 != 1723161240003 // 60_000


def test_a_trade_exactly_on_a_minute_belongs_to_that_minute() -> None:
    assert only_trade(event(T=1723161240000)).traded_at == 1_723_161_240_000_000


def test_microseconds_are_told_from_milliseconds() -> None:
    assert only_trade(event(T=1723161255342123, E=1723161255343000)).traded_at == 1_723_161_255_342_123


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (1723161255, "looks like seconds"),
        (1723161255342123456, "looks like nanoseconds"),
        (0, "not a time"),
        (-1723161255342, "not a time"),
        (10**40, "not a time"),
        ("1723161255342", "`$.T`"),
        (1723161255342.5, "`$.T`"),
    ],
)
def test_a_time_in_no_documented_unit_is_rejected_and_the_unit_named(time: Any, said: str) -> None:
    rejected = only_rejection(wrapped(event(T=time)))
    assert "T" in rejected.reason
    assert said in rejected.reason
    assert rejected.symbol == "binance:BTCUSDT"


@given(st.integers(EARLIEST_US // 1000, LATEST_US // 1000), st.integers(0, 999))
def test_every_time_of_the_contract_is_read_alike_in_both_units(time_ms: int, rest: int) -> None:
    if EARLIEST_US <= time_ms * 1000 <= LATEST_US - 999:
        assert parse_time("T", time_ms) == time_ms * 1000
        assert parse_time("T", time_ms * 1000 + rest) == time_ms * 1000 + rest


@given(st.integers())
def test_a_time_is_within_the_contract_or_refused(time: int) -> None:
    try:
        read = parse_time("T", time)
    except ContractError:
        milliseconds = EARLIEST_US <= time * 1000 <= LATEST_US
        assert not milliseconds
        assert not EARLIEST_US <= time <= LATEST_US
    else:
        assert EARLIEST_US <= read <= LATEST_US


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "is not a number in plain notation"),
        ("Infinity", "is not a number in plain notation"),
        ("1e5", "is not a number in plain notation"),
        ("1_0", "is not a number in plain notation"),
        (" 1", "is not a number in plain notation"),
        ("", "is not a number in plain notation"),
        ("-0.00000001", "is negative"),
        ("1" * 39, "39 digits"),
        ("1" * 10_000, "10000 digits"),
        (61837.63, "Expected `str`, got `float`"),
        (None, "Expected `str`, got `null`"),
    ],
)
@pytest.mark.parametrize(("key", "name"), [("p", "price"), ("q", "size")])
def test_what_is_no_amount_is_rejected_and_its_field_named(key: str, name: str, text: Any, said: str) -> None:
    rejected = only_rejection(wrapped(event(**{key: text})))
    assert said in rejected.reason
    assert rejected.reason.startswith(name) or f"`$.{key}`" in rejected.reason
    assert len(rejected.reason) <= 400
    assert rejected.symbol == "binance:BTCUSDT"


def test_a_price_has_all_its_digits() -> None:
    text = "12345678901234567890.123456789012345678"
    assert only_trade(event(p=text)).price == Decimal(text)


@pytest.mark.parametrize("kind", ["INSURANCE_FUND", "NA", "ADL", ""])
def test_usdm_trades_outside_the_market_are_skipped(kind: str) -> None:
    assert parse(wrapped(event(X=kind, p="0", q="0")), "binance-usdm").skipped


def test_usdm_market_trades_pass() -> None:
    assert only_trade(wrapped(event(X="MARKET")), "binance-usdm").symbol == "binance-usdm:BTCUSDT"


@pytest.mark.parametrize("venue", ["binance", "binance-usdm"])
def test_real_frames_of_other_streams_are_skipped(venue: str) -> None:
    lines = (DATA / f"{venue}-no-trades.txt").read_bytes().splitlines()
    kinds = {line.split(b'"stream":"')[1].split(b'"')[0].partition(b"@")[2] for line in lines}
    assert kinds == {b"aggTrade", b"bookTicker", b"depth@100ms", b"kline_1m"}
    for line in lines:
        frame = line.split(b" ", 1)[1]
        assert parse(frame, venue).skipped
        if b'"data":{"e"' in frame:
            assert parse(frame.split(b'"data":')[1][:-1], venue).skipped, "the same without the wrapper"


@pytest.mark.parametrize(
    "frame",
    [
        '{"result":null,"id":1}',
        '{"error":{"code":2,"msg":"Invalid request"},"id":null}',
        '{"code":0,"msg":"Unknown property"}',
        '{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}',
        '{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}',
        '{"stream":"btcusdt@depth5","data":{"lastUpdateId":160,"bids":[],"asks":[]}}',
        '{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]}',
        '{"e":"serverShutdown","E":1770123456789}',
    ],
)
def test_acknowledgments_and_other_events_are_skipped(frame: str) -> None:
    assert parse(frame).skipped


@pytest.mark.parametrize("field", ["s", "t", "p", "q", "T", "m"])
def test_a_missing_field_is_named(field: str) -> None:
    frame = json.dumps({name: value for name, value in EVENT.items() if name != field})
    rejected = only_rejection(frame)
    assert f"`{field}`" in rejected.reason
    assert rejected.value == frame.encode()
    assert rejected.symbol == (None if field == "s" else "binance:BTCUSDT")


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"", "not valid JSON"),
        (b"garbage", "not valid JSON"),
        (b"\xff\xfe", "not valid UTF-8"),
        (wrapped(event()).encode()[:-9], "not valid JSON"),
        (wrapped(event()).replace('"61837.63000000"', "NaN").encode(), "near"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"foo":1}', "its keys are foo"),
        (b'{"e":5}', "`$.e`"),
        (b'{"stream":null,"data":{}}', "`$.stream`"),
        (b'{"stream":"btcusdt@trade"}', "`e`"),
        (wrapped("{}").encode(), "`e`"),
        (wrapped("[]").encode(), "Expected `object`, got `array`"),
        (wrapped(event(e="aggTrade")).encode(), "its event e is 'aggTrade'"),
        (event(t=-1).encode(), "`$.t`"),
        (event(t=2**63).encode(), "`$.t`"),
        (event(m=1).encode(), "`$.m`"),
        (event(s="").encode(), "market ''"),
        (event(s="BTC USDT").encode(), "market 'BTC USDT'"),
        (event(X=5).encode(), "`$.X`"),
        (b'{"x":' * 100_000, "nested too deeply"),
    ],
)
def test_a_frame_that_cannot_be_read_is_rejected_whole(frame: bytes, said: str) -> None:
    rejected = only_rejection(frame)
    assert rejected.value == frame
    assert said in rejected.reason


def test_a_received_at_in_the_wrong_unit_is_no_trade() -> None:
    parsed = VENUES["binance"].parser().parse(event().encode(), 1_723_161_254)
    assert parsed.trades == []
    assert parsed.rejected[0].reason.startswith("received_at 1723161254 looks like seconds")


FIELDS = st.fixed_dictionaries(
    {
        "e": st.sampled_from(["trade", "aggTrade", "tr\u00e4de", 1]),
        "s": st.sampled_from(["BTCUSDT", "\u5e01USDT", "", "a b", None]),
        "t": st.one_of(st.integers(-1, 2**63), st.just("1")),
        "p": st.sampled_from(
            ["61837.63000000", "0", "100", "10.", ".5", "-1", "-0", "00", "1e5", "NaN", "9" * 39, 1.5]
        ),
        "q": st.sampled_from(["0.02000000", "0.00000001", "0.000", "007", "1_0", " 1", "9" * 20]),
        "T": st.sampled_from([1723161254340, 1723161254340863, 1723161254, 1723161320000, 1723161254340863000, "1"]),
        "m": st.sampled_from([True, False, None, 1]),
    },
    optional={"X": st.sampled_from(["MARKET", "INSURANCE_FUND", None]), "E": st.integers(), "M": st.booleans()},
)


STREAMS = st.sampled_from(["btcusdt@trade", "btcusdt@trade", "BTCUSDT@TRADE", "btcusdt@aggTrade", ""])


@given(FIELDS, STREAMS, st.booleans())
def test_what_is_read_at_once_is_what_is_read_in_steps(fields: dict[str, Any], stream: str, ascii_only: bool) -> None:
    frame = json.dumps({"stream": stream, "data": EVENT | fields}, ensure_ascii=ascii_only, separators=(",", ":"))
    parser = BinanceParser("binance")
    at_once = parser.parse(frame.encode(), RECEIVED)
    parser._read_at_once = lambda *_: None  # type: ignore[method-assign]
    assert parser.parse(frame.encode(), RECEIVED) == at_once


SOUND = st.fixed_dictionaries(
    {
        "s": st.sampled_from(["BTCUSDT", "ETHUSDT"]),
        "t": st.integers(0, 2**63 - 1),
        "p": st.sampled_from(["61837.63000000", "0", "100", "1.10", "0.00000001"]),
        "q": st.sampled_from(["0.02000000", "10.000", "7"]),
        "T": st.sampled_from([1723161254340, 1723161254341, 1723161314340, 1723161314341]),
        "m": st.booleans(),
    }
)


@given(st.lists(st.one_of(SOUND, SOUND, SOUND, FIELDS), min_size=1, max_size=4), STREAMS, st.booleans())
def test_columns_are_what_each_frame_would_have_given(
    many: list[dict[str, Any]], stream: str, ascii_only: bool
) -> None:
    frames = [
        json.dumps({"stream": stream, "data": EVENT | fields}, ensure_ascii=ascii_only).encode() for fields in many
    ]
    received = [RECEIVED + number for number in range(len(frames))]
    parser = BinanceParser("binance")
    columns = parser.parse_columns(frames, [b"%d" % each for each in received])
    parsed = [parser.parse(frame, each) for frame, each in zip(frames, received, strict=True)]
    if columns is not None:
        assert columns.messages() == [encode_trade(trade) for each in parsed for trade in each.trades]
        assert [*columns.symbols] == [trade.symbol for each in parsed for trade in each.trades]
        assert len(columns.symbols) == len(frames)
        assert not any(each.rejected for each in parsed)


def test_frames_in_which_all_is_in_order_are_read_in_columns() -> None:
    frames = [wrapped(event(t=number)).encode() for number in range(100)]
    assert BinanceParser("binance").parse_columns(frames, [b"%d" % RECEIVED] * 100) is not None
