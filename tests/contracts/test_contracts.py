"""The public contract: exact numbers, clear refusals, and messages that read back as they were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, localcontext

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import (
    Candle,
    ContractError,
    Timeframe,
    Trade,
    decode_candle,
    decode_trade,
    encode_candle,
    encode_trade,
    make_symbol,
    make_version,
    parse_timeframes,
    split_symbol,
)
from ashi.contracts.candle import DECIMAL_FIELDS, candle_fields
from ashi.contracts.decimals import EXACT, check_amount, format_decimal, parse_decimal
from ashi.contracts.feed import decode_feed_gap, decode_feed_status
from ashi.contracts.instrument import Instrument, decode_instrument, encode_instrument
from ashi.contracts.topics import topic_specs
from ashi.contracts.trade import all_sound, check_trade, decode_trades
from samples.hypothesis_strategies import START, trades

TRADE = Trade("bitflyer:BTC_JPY", "7", Decimal("61837.63"), Decimal("0.00000001"), "buy", START, START + 5, 7)
CANDLE = Candle(
    symbol="bitflyer:BTC_JPY",
    timeframe="1m",
    open_time=START,
    close_time=START + 60_000_000,
    open=Decimal("61837.63"),
    high=Decimal(61838),
    low=Decimal("61837.1"),
    close=Decimal("61837.5"),
    volume=Decimal("0.00000001"),
    quote_volume=Decimal("0.0006183763"),
    trade_count=1,
    taker_buy_volume=Decimal(0),
    taker_buy_quote_volume=Decimal(0),
    first_trade_id="7",
    last_trade_id="7",
    version=12,
)
amounts = st.one_of(
    st.decimals(allow_nan=True, allow_infinity=True),
    st.integers(-5, 10**40).map(Decimal),
    st.integers(0, 10**39).map(lambda number: Decimal(number).scaleb(-20, EXACT)),
)


def test_the_messages_are_exactly_these():
    assert json.loads(encode_trade(TRADE)) == {
        "symbol": "bitflyer:BTC_JPY",
        "trade_id": "7",
        "price": "61837.63",
        "size": "0.00000001",
        "side": "buy",
        "traded_at": START,
        "received_at": START + 5,
        "sequence": 7,
    }
    assert list(json.loads(encode_candle(CANDLE)).items()) == [
        ("symbol", "bitflyer:BTC_JPY"),
        ("timeframe", "1m"),
        ("open_time", START),
        ("close_time", START + 60_000_000),
        ("open", "61837.63"),
        ("high", "61838"),
        ("low", "61837.1"),
        ("close", "61837.5"),
        ("volume", "0.00000001"),
        ("quote_volume", "0.0006183763"),
        ("trade_count", 1),
        ("taker_buy_volume", "0"),
        ("taker_buy_quote_volume", "0"),
        ("first_trade_id", "7"),
        ("last_trade_id", "7"),
        ("version", 12),
    ]


@given(log=trades())
def test_a_trade_reads_back_as_it_was_written(log):
    for trade in log:
        assert decode_trade(encode_trade(trade)) == trade


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**53), 2**53)
sums = st.one_of(
    amounts.filter(lambda value: value.is_finite() and abs(value.adjusted()) <= EXACT.prec),
    st.decimals(allow_nan=False, allow_infinity=False, places=2),
    st.sampled_from([Decimal(text) for text in ("0", "-0", "0E+5", "0.00", "1E-9", "1E+3", "100", "10.00", "1.10")]),
)


@given(trades(), sums.filter(lambda value: value >= 0), sums.filter(lambda value: value >= 0))
def test_a_trade_is_written_as_the_dict_of_its_fields_would_be(log, price, size):
    """Nearly all need no change of their decimals, and are written as they are."""
    for trade in (msgspec.structs.replace(each, price=price, size=size) for each in log):
        fields = {field: getattr(trade, field) for field in trade.__struct_fields__}
        fields |= {"price": format_decimal(price), "size": format_decimal(size)}
        assert encode_trade(trade) == msgspec.json.encode(fields)


@given(st.data())
def test_a_candle_is_written_as_the_dict_of_its_fields_would_be(data):
    """It is put into a struct of texts instead, which takes half of the time."""
    shared = data.draw(st.lists(sums, min_size=1, max_size=3))
    values = [data.draw(st.one_of(st.sampled_from(shared), sums)) for _ in DECIMAL_FIELDS]
    of_type = {"str": texts, "int": numbers, "Decimal": st.nothing(), "str | None": st.one_of(st.none(), texts)}
    others = {
        name: data.draw(of_type[kind]) for name, kind in Candle.__annotations__.items() if name not in DECIMAL_FIELDS
    }
    candle = Candle(**others, **dict(zip(DECIMAL_FIELDS, values, strict=True)))
    assert encode_candle(candle) == msgspec.json.encode(candle_fields(candle))


def test_a_candle_reads_back_as_it_was_written():
    assert decode_candle(encode_candle(CANDLE)) == CANDLE


@given(value=st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_are_written_plainly_and_read_back_exactly(value):
    text = format_decimal(value)
    assert "E" not in text.upper()
    assert not ("." in text and text.endswith(("0", ".")))
    assert text != "-0"
    assert parse_decimal("price", text) == value


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e5", "1_0", " 1", "", "+1", ".5", "5.", "\uff11", "0x1", "--1"])
def test_anything_but_plain_notation_is_refused_naming_the_field(text):
    with pytest.raises(ContractError, match="size"):
        parse_decimal("size", text)


ODD = ["1_000", "_1", "1_", "\uff11\uff12", "\u0661", " 1", "1 ", "1\u00a0"]
"""Decimals as Python's `Decimal` reads them, and nobody else."""


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("field", ["price", "size"])
def test_a_trade_whose_amount_only_python_reads_is_refused_naming_the_field(odd, escaped, field):
    message = json.dumps(json.loads(encode_trade(TRADE)) | {field: odd}, ensure_ascii=escaped).encode()
    with pytest.raises(ContractError, match=f"{field} .*not a number in plain notation"):
        decode_trade(message)
    assert decode_trades(b"[" + encode_trade(TRADE) + b"," + message + b"]") is None


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["volume", "quote_volume"])
def test_a_candle_and_an_instrument_with_such_a_decimal_are_refused_too(odd, field):
    message = json.dumps(json.loads(encode_candle(CANDLE)) | {field: odd}).encode()
    with pytest.raises(ContractError, match=f"{field} .*not a number in plain notation"):
        decode_candle(message)
    listed = Instrument("gmo:BTC", "BTC", "JPY", Decimal(1), None, "trading", 1_700_000_000_000_000)
    assert decode_instrument(encode_instrument(listed)) == listed
    message = json.dumps(json.loads(encode_instrument(listed)) | {"lot_size": odd}).encode()
    with pytest.raises(ContractError, match=r"lot_size .*not a number in plain notation"):
        decode_instrument(message)


@pytest.mark.parametrize(
    ("plain", "number"),
    [
        *((plain, number) for plain in ("1000", "0.5", "5E-1", "1e2", "1E+2") for number in (False, True)),
        *((plain, False) for plain in ("+1", ".5", "1.", "01")),  # of these JSON has no numbers
    ],
)
def test_numbers_of_json_and_exponents_are_read_exactly_however_a_message_is_written(plain, number):
    """With spaces, fields that nobody knows, underscores in them, names beyond ASCII: the slower way too."""
    for symbol, more in (
        ("binance:BTCUSDT", {}),
        ("bitflyer:FX_BTC_JPY", {}),
        ("binance:\u5e01\u5b89USDT", {}),
        ("binance:BTCUSDT", {"note_of_mine": "1_000", "\u540d": "\uff11"}),
    ):
        fields = json.loads(encode_trade(TRADE)) | {"symbol": symbol, "trade_id": "a_1", "price": "PRICE"} | more
        for separators in ((",", ":"), (", ", ": ")):
            text = json.dumps(fields, ensure_ascii=False, separators=separators)
            message = text.replace('"PRICE"', plain if number else f'"{plain}"').encode()
            trade = decode_trade(message)
            assert (trade.symbol, trade.price) == (symbol, Decimal(plain))
            assert decode_trades(b"[" + message + b"," + message + b"]") == [trade, trade]


@given(value=amounts)
def test_amounts_are_finite_not_negative_and_have_at_most_38_digits(value):
    try:
        check_amount("price", value)
    except ContractError:
        accepted = False
    else:
        accepted = True
    sound = value.is_finite() and value >= 0
    if sound:
        integer, _, fraction = format(value, "f").partition(".")
        sound = len(integer.lstrip("0") or "0") + len(fraction) <= 38
    assert accepted == sound


@given(
    values=st.lists(st.tuples(amounts, amounts), min_size=1, max_size=5),
    times=st.lists(st.one_of(st.just(START), st.integers(0, 2**54)), min_size=5, max_size=5),
)
def test_a_chunk_is_sound_only_if_each_trade_is(values, times):
    log = [
        msgspec.structs.replace(TRADE, price=price, size=size, traded_at=time)
        for (price, size), time in zip(values, times, strict=False)
    ]
    if all_sound(log):
        for trade in log:
            check_trade(trade)


@given(
    amounts=st.lists(
        st.tuples(st.decimals("0.01", "99999", places=2), st.decimals("0.00000001", "1000", places=8)), min_size=1
    )
)
def test_usual_trades_are_found_sound_together(amounts):
    assert all_sound([msgspec.structs.replace(TRADE, price=price, size=size) for price, size in amounts])


@given(data=st.lists(st.tuples(st.integers(0, 10**38 - 1), st.integers(0, 38)), min_size=1, max_size=20))
def test_no_sum_of_products_is_ever_rounded(data):
    numbers = [Decimal(digits).scaleb(-min(places, 38), EXACT) for digits, places in data]
    with localcontext(EXACT):
        total = sum((a * b for a in numbers for b in numbers), Decimal(0))
    assert total >= 0  # Inexact is trapped: rounding would have raised


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": "NaN"}, "price NaN is not a finite number"),
        ({"price": "-1"}, "price -1 is negative"),
        ({"size": "1" + "0" * 38}, "39 digits"),
        ({"side": "BUY"}, r"side"),
        ({"traded_at": START // 1000}, "traded_at .* milliseconds"),
        ({"traded_at": START // 10**6}, "traded_at .* seconds"),
        ({"received_at": START * 1000}, "received_at .* nanoseconds"),
        ({"traded_at": 5}, "traded_at 5 is not a time"),
        ({"traded_at": START + 60_000_006}, "60 s after received_at"),
        ({"traded_at": "now"}, "traded_at"),
        ({"sequence": -1}, "sequence"),
        ({"trade_id": ""}, "trade_id has 0 characters"),
        ({"trade_id": 7}, "trade_id"),
        ({"symbol": "BTC_JPY"}, "no venue"),
        ({"symbol": "BitFlyer:BTC"}, "venue"),
        ({"symbol": "bitflyer:"}, "market"),
        ({"symbol": "bitflyer:BTC JPY"}, "market"),
    ],
)
def test_a_trade_that_breaks_the_contract_is_refused_naming_the_field(change, reason):
    message = json.dumps(json.loads(encode_trade(TRADE)) | change).encode()
    with pytest.raises(ContractError, match=reason):
        decode_trade(message)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"timeframe": "7m"}, "does not divide a day"),
        ({"open_time": START + 1}, "open_time"),
        ({"close_time": START + 61_000_000}, "close_time"),
        ({"close": "Infinity"}, "close"),
        ({"high": "1"}, "between low and high"),
        ({"version": -1}, "version"),
        ({"version": 2**53}, "version"),
        ({"trade_count": -1}, "trade_count"),
    ],
)
def test_a_candle_that_breaks_the_contract_is_refused_naming_the_field(change, reason):
    message = json.dumps(json.loads(encode_candle(CANDLE)) | change).encode()
    with pytest.raises(ContractError, match=reason):
        decode_candle(message)


@given(message=st.binary())
def test_any_bytes_are_a_trade_or_a_contract_error(message):
    with pytest.raises(ContractError):
        decode_trade(message)


@given(
    message=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(Trade.__struct_fields__)), inner),
    )
)
def test_any_json_is_a_trade_or_a_contract_error(message):
    with pytest.raises(ContractError):
        decode_trade(json.dumps(message).encode())


@pytest.mark.parametrize(
    ("text", "length_s"), [("1s", 1), ("60s", 60), ("1m", 60), ("15m", 900), ("6h", 21600), ("1d", 86400)]
)
def test_timeframes_read_and_write(text, length_s):
    timeframe = Timeframe.parse(text)
    assert timeframe.length_us == length_s * 10**6
    assert Timeframe.parse(str(timeframe)) == timeframe
    assert timeframe.open_time(START + 1) % timeframe.length_us == 0


@pytest.mark.parametrize("text", ["", "m", "0m", "1", "1w", "2d", "25h", "7m", "-1m", "1.5m", "\uff11m", "1M", "01m"])
def test_what_is_no_timeframe_is_refused(text):
    with pytest.raises(ContractError, match="timeframe"):
        Timeframe.parse(text)


def test_timeframes_must_be_multiples_of_the_finest():
    assert [str(each) for each in parse_timeframes("1h, 1m,5m")] == ["1m", "5m", "1h"]
    with pytest.raises(ContractError, match="5m is not a multiple of the finest, 2m"):
        parse_timeframes("2m,5m")
    with pytest.raises(ContractError, match="given twice"):
        parse_timeframes("1m,60s")
    with pytest.raises(ContractError, match="no timeframes"):
        parse_timeframes(" , ")


@pytest.mark.parametrize(
    "market",
    [
        "BTCUSDT",
        "a.b_c@d:e/f+g-h",
        "9",
        "x" * 64,
        "币安人生USDT",
        "USDT币安人生",
        "币" * 21 + "X",
        "CAF\u00c9",
        "CAFE\u0301",
        "İẞ",
        "🚀🌕",
        "ΩΩ",
        "한국",
    ],
)
def test_a_market_may_be_named_in_any_script_and_keeps_its_very_bytes(market):
    symbol = make_symbol("binance", market)
    assert symbol.encode() == b"binance:" + market.encode()
    assert split_symbol(symbol) == ("binance", market)


@pytest.mark.parametrize(
    ("market", "what"),
    [
        ("", "letters"),
        (".BTC", "letters"),
        ("BTC USDT", "letters"),
        ("BTC%20", "letters"),
        ("BTC\n", "letters"),
        ("x" * 65, "64 bytes"),
        ("币" * 22, "64 bytes"),
        ("币\u3000安", "cannot be seen"),
        ("\u00a0BTC", "cannot be seen"),
        ("BTC\u200b", "cannot be seen"),
        ("BTC\u202e", "cannot be seen"),
        ("\ufeffBTC", "cannot be seen"),
        ("BTC\u2028", "cannot be seen"),
        ("BTC\u0085", "cannot be seen"),
        ("BTC\ud800", "cannot be seen"),
    ],
)
def test_a_name_that_cannot_be_told_from_another_is_refused_with_what_is_wrong(market, what):
    with pytest.raises(ContractError, match=what):
        make_symbol("binance", market)


def test_names_that_look_the_same_are_two_markets():
    assert make_symbol("binance", "CAF\u00c9") != make_symbol("binance", "CAFE\u0301")


def test_symbols_join_and_split_without_renaming():
    assert make_symbol("gmo", "BTC_JPY") == "gmo:BTC_JPY"
    assert split_symbol("x:A:B") == ("x", "A:B")
    with pytest.raises(ContractError, match="venue"):
        make_symbol("GMO", "BTC")


def test_a_version_orders_by_epoch_and_then_by_offset():
    assert make_version(0, 5) == 5
    assert make_version(1, 0) > make_version(0, 2**40 - 1)
    assert make_version(8191, 2**40 - 1) == 2**53 - 1


def test_topics_that_are_joined_by_key_have_the_same_partitions():
    specs = {spec.name: spec for spec in topic_specs(6, parse_timeframes("1m,5m"))}
    assert specs["ashi.meta"].partitions == 1
    assert {spec.partitions for name, spec in specs.items() if name != "ashi.meta"} == {6}
    assert {spec.config["message.timestamp.type"] for spec in specs.values()} == {"LogAppendTime"}
    assert "ashi-aggregate-ohlcv-5m-changelog" in specs


@pytest.mark.parametrize(
    "decode", [decode_trade, decode_candle, decode_feed_gap, decode_feed_status], ids=lambda each: each.__name__
)
def test_an_error_does_not_repeat_a_message_at_length(decode: Callable[[bytes], object]) -> None:
    word = "x" * 100_000
    fields = dict.fromkeys(("symbol", "trade_id", "price", "size", "side", "timeframe", "state"), word)
    with pytest.raises(ContractError) as raised:
        decode(json.dumps(fields).encode())
    assert len(str(raised.value)) < 500


def test_an_error_that_is_cut_keeps_its_beginning_and_its_end() -> None:
    short = "a" * 450
    assert str(ContractError(short)) == short
    told = str(ContractError(f"not a trade: {'x' * 1_000} - at `$.side`"))
    assert len(told) <= 450
    assert told.startswith("not a trade: xxx")
    assert told.endswith("xxx - at `$.side`")
    assert "characters" in told
