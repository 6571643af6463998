from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.venues.bitflyer.messages import BitFlyerParser, parse_exec_date
from ashi_ingest.venues.parsing import Parsed, Rejected
from ashi_ingest.venues.registry import VENUES

SINCE, UNTIL = datetime.fromisoformat("2001-09-10"), datetime.fromisoformat("2200-01-01")
RECEIVED = 1_639_350_330_082_294
REAL_FRAMES = [line.split(b" ", 1)[1] for line in gzip.decompress(BUNDLED["bitflyer"][0].read_bytes()).splitlines()]
NO_TRADES = Path(__file__).parents[1] / "data" / "bitflyer-no-trades.txt"

EXECUTION = (
    '{"id":2284079807,"side":"BUY","price":5860832.0,"size":0.01,"exec_date":"2021-12-12T23:05:29.9692063Z",'
    '"buy_child_order_acceptance_id":"JRF20211212-230529-223057",'
    '"sell_child_order_acceptance_id":"JRF20211212-230529-081757"}'
)


def parse(frame: str | bytes) -> Parsed:
    return VENUES["bitflyer"].parser().parse(frame.encode() if isinstance(frame, str) else frame, RECEIVED)


def executions(*messages: str, product: str = "FX_BTC_JPY") -> str:
    channel = f"lightning_executions_{product}"
    params = f'{{"channel":"{channel}","message":[{",".join(messages)}]}}'
    return f'{{"jsonrpc":"2.0","method":"channelMessage","params":{params}}}'


def execution(**fields: str) -> str:
    """The execution above with some fields written otherwise, as JSON text."""
    given = {name: json.dumps(value) for name, value in json.loads(EXECUTION).items()} | {"price": "5860832.0"} | fields
    return "{" + ",".join(f'"{name}":{text}' for name, text in given.items()) + "}"


def only_trade(frame: str | bytes) -> Trade:
    parsed = parse(frame)
    assert parsed.rejected == []
    (trade,) = parsed.trades
    return trade


def only_rejection(frame: str | bytes) -> Rejected:
    parsed = parse(frame)
    assert parsed.trades == []
    (rejected,) = parsed.rejected
    return rejected


def test_a_real_execution_becomes_a_trade_in_every_field() -> None:
    assert only_trade(executions(EXECUTION)) == Trade(
        symbol="bitflyer:FX_BTC_JPY",
        trade_id="2284079807",
        price=Decimal(5860832),
        size=Decimal("0.01"),
        side="buy",
        traded_at=1_639_350_329_969_000,
        received_at=RECEIVED,
        sequence=2284079807,
    )


def test_the_taker_sells() -> None:
    assert only_trade(executions(execution(side='"SELL"'))).side == "sell"


def test_an_empty_side_is_an_auction() -> None:
    assert only_trade(executions(execution(side='""'))).side is None


@pytest.mark.parametrize("side", ['" "', '"buy"', '"BOTH"', '"BUY "', "null", "1"])
def test_any_other_side_is_rejected_and_named(side: str) -> None:
    rejected = only_rejection(executions(execution(side=side)))
    assert "side" in rejected.reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5860832.0", "5860832.0"),
        ("1e-08", "0.00000001"),
        ("1E-8", "0.00000001"),
        ("5.860832e6", "5860832"),
        ("0.00000001", "0.00000001"),
        ("5860832", "5860832"),
        ("12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
    ],
)
def test_numbers_are_exact_in_every_notation_of_json(text: str, value: str) -> None:
    trade = only_trade(executions(execution(price=text, size=text)))
    assert trade.price == Decimal(value)
    assert trade.size == Decimal(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"NaN"', "is not a JSON number"),
        ('"5860832.0"', "is not a JSON number"),
        ("null", "is not a JSON number"),
        ("true", "is not a JSON number"),
        ("[1]", "is not a JSON number"),
        ("-0.01", "is negative"),
        ("1e39", "40 digits"),
        ("1e999999999", "digits"),
        ("1e99999999999999999999", "is not a JSON number"),
        ("1" * 1000, "1000 digits"),
    ],
)
@pytest.mark.parametrize("field", ["price", "size"])
def test_what_is_no_amount_is_rejected_and_its_field_named(field: str, text: str, said: str) -> None:
    rejected = only_rejection(executions(execution(**{field: text})))
    assert rejected.reason.startswith(field)
    assert said in rejected.reason
    assert len(rejected.reason) <= 400


def test_of_a_frame_with_several_executions_the_good_ones_pass() -> None:
    bad = execution(id="2", size="-1")
    parsed = parse(executions(execution(id="1"), bad, execution(id="3")))
    assert [trade.trade_id for trade in parsed.trades] == ["1", "3"]
    assert parsed.rejected == [Rejected(bad.encode(), "size -1 is negative", "bitflyer:FX_BTC_JPY")]


@pytest.mark.parametrize("field", ["id", "side", "price", "size", "exec_date"])
def test_a_missing_field_is_named(field: str) -> None:
    fields = {name: value for name, value in json.loads(EXECUTION).items() if name != field}
    rejected = only_rejection(executions(json.dumps(fields)))
    assert f"`{field}`" in rejected.reason
    assert rejected.symbol == "bitflyer:FX_BTC_JPY"


@pytest.mark.parametrize("text", ["-1", "1.0", '"1"', "9223372036854775808", "true", "1" * 5000])
def test_an_id_that_is_none_is_rejected(text: str) -> None:
    assert "`$.id`" in only_rejection(executions(execution(id=text))).reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "exec_date is blank"),
        ("  ", "exec_date is blank"),
        ("2021-12-12", "exec_date '2021-12-12'"),
        ("2021-12-12 23:05:29", "exec_date"),
        ("2021-12-12T23:05:29.", "exec_date"),
        ("2021-12-12T23:05:29.12345678Z", "exec_date"),
        ("2021-12-12T23:05:29+09:00", "exec_date"),
        ("2021-02-29T00:00:00Z", "not a date of the calendar"),
        ("2021-12-12T24:00:00Z", "not a date of the calendar"),
        ("1999-12-12T23:05:29Z", "traded_at"),
        ("1639350329", "exec_date"),
    ],
)
def test_a_bad_exec_date_is_rejected(text: str, said: str) -> None:
    assert said in only_rejection(executions(execution(exec_date=json.dumps(text)))).reason


@given(
    time=st.datetimes(SINCE, UNTIL),
    hundred_ns=st.integers(0, 9),
    digits=st.integers(0, 7),
    z=st.sampled_from(["Z", ""]),
)
def test_exec_date_agrees_with_datetime_floored_to_the_millisecond(
    time: datetime, hundred_ns: int, digits: int, z: str
) -> None:
    fraction = f"{time.microsecond:06d}{hundred_ns}"[:digits]
    text = time.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}" if fraction else "") + z
    kept_ms = int(fraction[:3].ljust(3, "0"))
    whole = time.replace(microsecond=0, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_exec_date(text) == (whole // timedelta(milliseconds=1) + kept_ms) * 1000


@given(st.text(alphabet="0123456789-T:.Z") | st.text())
def test_an_exec_date_of_another_form_is_never_taken_for_a_time(text: str) -> None:
    with pytest.raises(ContractError, match="exec_date"):
        parse_exec_date(text + "?")


def test_websocket_and_rest_give_one_time_for_one_execution() -> None:
    assert parse_exec_date("2021-12-12T23:05:29.9692063Z") == parse_exec_date("2021-12-12T23:05:29.969")
    assert parse_exec_date("2021-12-12T23:05:29.97Z") == parse_exec_date("2021-12-12T23:05:29.970")


def test_a_trade_exactly_on_a_minute_belongs_to_that_minute() -> None:
    trade = only_trade(executions(execution(exec_date='"2021-12-12T23:06:00Z"')))
    assert trade.traded_at % 60_000_000 == 0
    assert trade.traded_at == 1_639_350_360_000_000


@pytest.mark.parametrize(
    "frame",
    [
        '{"jsonrpc":"2.0","id":1,"result":true}',
        '{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"Invalid params"}}',
        '{"method":"subscribe","params":{"channel":"lightning_ticker_BTC_JPY"}}',
        executions(),
    ],
)
def test_acknowledgments_are_skipped(frame: str) -> None:
    assert parse(frame).skipped


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"", "not valid JSON"),
        (b"garbage", "not valid JSON"),
        (b"\xff\xfe", "not valid UTF-8"),
        (executions(EXECUTION).encode().replace(b"JRF", b"J\xe3F"), "not valid UTF-8"),
        (executions(EXECUTION).encode()[:-20], "not valid JSON"),
        (executions(execution(price="NaN")).encode(), "near"),
        (b"[]", "Expected `object`, got `array`"),
        (b"5", "Expected `object`, got `int`"),
        (b'{"foo":1}', "its keys are foo"),
        (b"{}", "its keys are none"),
        (b'{"params":[]}', "`$.params`"),
        (b'{"params":{"channel":5}}', "`$.params.channel`"),
        (b'{"params":{"channel":"lightning_executions_BTC_JPY"}}', "Expected `array`, got `null`"),
        (b'{"params":{"channel":"lightning_executions_BTC_JPY","message":{}}}', "Expected `array`, got `object`"),
        (b'{"params":{"channel":"lightning_executions_","message":[]}}', "market ''"),
        (b'{"x":' * 100_000, "nested too deeply"),
    ],
)
def test_a_frame_that_cannot_be_read_is_rejected_whole(frame: bytes, said: str) -> None:
    rejected = only_rejection(frame)
    assert rejected.value == frame
    assert said in rejected.reason


def test_a_frame_of_executions_that_is_bad_as_a_whole_still_has_its_symbol() -> None:
    frame = '{"params":{"channel":"lightning_executions_BTC_JPY","message":5}}'
    assert only_rejection(frame).symbol == "bitflyer:BTC_JPY"


CELLS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["1", "-1", "9223372036854775807", "9223372036854775808", "1.0", '"1"']),
        "side": st.sampled_from(['"SELL"', '""', '"buy"', "null"]),
        "price": st.sampled_from(
            ["5860832.0", "1e-08", "1E+99999999999999999999", "0.0", "-0.0", "01", '"1"', "9" * 39]
        ),
        "size": st.sampled_from(["0.01", "0.010", "1e-08", "100", "-1", "null"]),
        "exec_date": st.sampled_from(
            ['"2021-12-12T23:05:29"', '"2021-02-30T23:05:29.9Z"', '""', '"2099-12-12T23:05:29Z"']
        ),
        "more": st.sampled_from(['"ä"', '"\\ud800"', "[[1]]"]),
    },
)


@given(st.lists(CELLS, max_size=3), st.sampled_from(["FX_BTC_JPY", "", "B T", "Ä"]))
def test_what_is_read_at_once_is_what_is_read_in_steps(cells: list[dict[str, str]], product: str) -> None:
    frame = executions(*(execution(**each) for each in cells), product=product).encode()
    parser = BitFlyerParser()
    at_once = parser.parse(frame, RECEIVED)
    parser._read_at_once = lambda *_: None  # type: ignore[method-assign]
    assert parser.parse(frame, RECEIVED) == at_once
