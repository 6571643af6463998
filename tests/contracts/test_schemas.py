"""The contract for machines says what is written, and nothing else: JSON Schemas and the AsyncAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from ashi.contracts import Candle, ContractError, Trade, decode_candle, decode_trade, encode_candle
from ashi.contracts.decimals import EXACT
from ashi.contracts.feed import FeedGap, FeedStatus, FeedWorker, decode_feed_gap, decode_feed_status
from ashi.contracts.instrument import Instrument, decode_instrument
from ashi.contracts.records import live_key
from ashi.contracts.schemas import MESSAGES, MessageSpec, asyncapi_document, documents, json_schema
from ashi.contracts.schemas.channels import CHANNELS, ChannelSpec, WhichCounts
from ashi.contracts.schemas.fields import SYMBOL
from ashi.contracts.schemas.messages import CANDLE, FEED_GAP, FEED_STATUS, INSTRUMENT, PARTS, SIGNAL, TRADE
from ashi.contracts.signal import Signal, decode_signal, signal_rank, signal_slot
from ashi.contracts.topics import META, topic_specs
from ashi.runtime.kafka.producing.dead_letters import dead_letter, message_headers
from ashi.runtime.settings import Settings
from oracle import candles_of
from samples.hypothesis_strategies import START, trades

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "contracts"
PAGE = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
DOCUMENT = asyncapi_document()
DECODE = {
    TRADE.schema: decode_trade,
    CANDLE.schema: decode_candle,
    FEED_GAP.schema: decode_feed_gap,
    FEED_STATUS.schema: decode_feed_status,
    INSTRUMENT.schema: decode_instrument,
    SIGNAL.schema: decode_signal,
}
each_message = pytest.mark.parametrize("message", MESSAGES, ids=[message.schema for message in MESSAGES])
each_channel = pytest.mark.parametrize("channel", CHANNELS, ids=[channel.topic for channel in CHANNELS])


def closed(schema: Any) -> Any:
    """The same schema, but for fields that it does not name: those are refused, and all that it names must be there."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(part) for name, part in schema.items()}
    if schema.get("additionalProperties") is True:
        inner |= {"additionalProperties": False, "required": list(schema["properties"])}
    return inner


@cache
def writes(schema: str) -> Draft7Validator:
    """Of what Ashi writes: every field that the schema names, and no other."""
    return Draft7Validator(closed(json_schema(next(each for each in MESSAGES if each.schema == schema))))


def test_the_files_are_what_the_contract_says() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert found == documents(), "run: python -m ashi.contracts.schemas docs/contracts"


@each_message
def test_a_schema_is_one_and_names_every_field_of_the_message_in_its_order(message: MessageSpec) -> None:
    schema = json_schema(message)
    Draft7Validator.check_schema(schema)
    assert list(schema["properties"]) == list(message.struct.__struct_fields__)
    for struct, fields in [(message.struct, message.fields), *PARTS.items()]:
        assert list(fields) == list(struct.__struct_fields__)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def _meanings(title: str, head: str) -> dict[str, str]:
    """The third column of a table of the page, by the first; links are read as their text."""
    section = re.search(rf"^## {title} \(topic .*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    table = re.search(rf"^\| {head} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section[0], re.MULTILINE)
    assert table is not None
    rows = [_cells(re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", line)) for line in table[1].splitlines()]
    return {name.strip("`"): meaning for name, _, meaning in rows}


@each_message
def test_fields_mean_what_the_page_of_messages_says(message: MessageSpec) -> None:
    assert {name: field.meaning for name, field in message.fields.items()} == _meanings(message.title, "field")


def test_fields_of_workers_mean_what_the_page_says() -> None:
    meanings = _meanings(FEED_STATUS.title, "field of a worker")
    assert {name: field.meaning for name, field in PARTS[FeedWorker].items()} == meanings


def test_the_examples_are_those_of_the_page() -> None:
    on_page = [json.loads(text) for text in re.findall(r"```json\n(\{.*?\})\n```", PAGE, re.DOTALL)]
    ours = [json.loads(message.encode(example)) for message in MESSAGES for example in message.examples.values()]
    assert ours == on_page


@each_message
def test_every_example_reads_back_and_is_as_the_schema_says(message: MessageSpec) -> None:
    for example in message.examples.values():
        value = message.encode(example)
        assert DECODE[message.schema](value) == example
        writes(message.schema).validate(json.loads(value))


@settings(max_examples=25)
@given(log=trades(count=12))
def test_trades_and_candles_as_they_are_written_are_as_the_schemas_say(log: list[Trade]) -> None:
    for trade in log:
        writes(TRADE.schema).validate(json.loads(TRADE.encode(trade)))
    for (symbol, timeframe, open_time), fields in candles_of(log, ["1s", "90s", "1d"]).items():
        candle = Candle(symbol, timeframe, open_time, **fields, version=START)
        assert decode_candle(encode_candle(candle)) == candle
        writes(CANDLE.schema).validate(json.loads(encode_candle(candle)))


_AMOUNTS = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places, EXACT), st.integers(0, 10**37 - 1), st.integers(0, 36)
)
_STEPS = _AMOUNTS.filter(bool)
_TIMES = st.integers(10**15, 2**53 - 1)
_SYMBOLS = st.sampled_from(["bitflyer:BTC_JPY", "binance:币安人生USDT", "x-1:a.b_c@d:e/f+g-h", "binance:🚀"])
_TEXTS = st.text(max_size=5)
_NAMES = st.text(min_size=1, max_size=5)


def _or_none(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


_STATES = st.sampled_from(["connected", "silent", "repairing", "down"])
_WORKERS = st.builds(FeedWorker, _NAMES, _STATES, _TIMES, st.booleans(), _or_none(_TIMES))
_OTHERS: list[tuple[MessageSpec, st.SearchStrategy[Any]]] = [
    (
        TRADE,
        st.builds(
            Trade, _SYMBOLS, st.text(min_size=1, max_size=128), _AMOUNTS, _AMOUNTS,
            st.sampled_from(["buy", "sell", None]), _TIMES, st.just(2**53 - 1), st.integers(0, 2**63 - 1),
        ),
    ),
    (
        FEED_GAP,
        st.builds(
            FeedGap, _SYMBOLS, st.just(10**15), _or_none(_TIMES), st.just("lost"), st.integers(0, 2**53 - 1), _TEXTS,
            _TIMES, st.booleans(),
        ),
    ),
    (
        FEED_STATUS,
        st.builds(
            FeedStatus, _SYMBOLS, _STATES, _TIMES, _or_none(_TEXTS), _or_none(_NAMES), _or_none(_TIMES), _TIMES,
            _or_none(_TIMES), st.lists(_WORKERS, max_size=3).map(tuple),
        ),
    ),
    (
        INSTRUMENT,
        st.builds(
            Instrument, _SYMBOLS, _or_none(_NAMES), _or_none(_NAMES), _or_none(_STEPS), _or_none(_STEPS),
            st.sampled_from(["trading", "halted", "delisted"]), _TIMES,
        ),
    ),
    (
        SIGNAL,
        st.builds(
            Signal, _NAMES, _SYMBOLS, st.just("1m"), st.just(START), st.just(START + 60_000_000),
            st.integers(0, 2**53 - 1), st.integers(0, 2**31 - 1), st.sampled_from(["long", "short", "flat"]),
            st.sampled_from([None, Decimal(0), Decimal("0.5"), Decimal("1.000"), Decimal("1E-30")]), _AMOUNTS,
            _or_none(_NAMES), st.dictionaries(_NAMES, _TEXTS, max_size=3), st.booleans(), _or_none(st.booleans()),
            st.sampled_from(["active", "superseded"]), _TIMES,
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "drawn"), _OTHERS, ids=[message.schema for message, _ in _OTHERS])
def test_whatever_the_contract_allows_is_written_as_the_schema_says(
    message: MessageSpec, drawn: st.SearchStrategy[Any]
) -> None:
    @settings(max_examples=25)
    @given(drawn)
    def holds(one: Any) -> None:
        value = message.encode(one)
        assert DECODE[message.schema](value) == one
        writes(message.schema).validate(json.loads(value))

    holds()


WRONG: list[tuple[MessageSpec, dict[str, Any]]] = [
    (TRADE, {"price": "-1"}),
    (TRADE, {"price": "NaN"}),
    (TRADE, {"price": "1" * 40}),
    (TRADE, {"size": "1_000"}),
    (TRADE, {"side": "BUY"}),
    (TRADE, {"traded_at": START // 1_000}),
    (TRADE, {"received_at": START * 1_000}),
    (TRADE, {"sequence": -1}),
    (TRADE, {"trade_id": ""}),
    (TRADE, {"trade_id": None}),
    (TRADE, {"symbol": "BTC_JPY"}),
    (TRADE, {"symbol": "bitFlyer:BTC_JPY"}),
    (TRADE, {"symbol": "bitflyer:BTC JPY"}),
    (CANDLE, {"timeframe": "1M"}),
    (CANDLE, {"timeframe": "2d"}),
    (CANDLE, {"volume": None}),
    (CANDLE, {"version": 2**53}),
    (CANDLE, {"trade_count": -1}),
    (FEED_GAP, {"state": "closed"}),
    (FEED_GAP, {"final": True}),  # of one that is repaired
    (FEED_STATUS, {"workers": None}),
    (FEED_STATUS, {"updated_at": None}),
    (INSTRUMENT, {"base": ""}),
    (INSTRUMENT, {"tick_size": "0"}),
    (SIGNAL, {"strength": "1.5"}),
    (SIGNAL, {"reason": ""}),
    (SIGNAL, {"revision": 2**31}),
    (SIGNAL, {"labels": {"": "x"}}),
    (SIGNAL, {"labels": {"x": "y" * 201}}),
    (SIGNAL, {"labels": {str(number): "" for number in range(17)}}),
]


@pytest.mark.parametrize(("message", "change"), WRONG, ids=[f"{one.title} {change}"[:60] for one, change in WRONG])
def test_what_ashi_refuses_the_schema_refuses_too(message: MessageSpec, change: dict[str, Any]) -> None:
    value = json.loads(message.encode(next(iter(message.examples.values())))) | change
    with pytest.raises(ContractError):
        DECODE[message.schema](json.dumps(value).encode())
    assert not Draft7Validator(json_schema(message)).is_valid(value)


@each_message
def test_a_message_that_lacks_a_field_is_refused_but_for_one_with_a_default(message: MessageSpec) -> None:
    value = json.loads(message.encode(next(iter(message.examples.values()))))
    schema = json_schema(message)
    for field in msgspec.structs.fields(message.struct):
        shorter = {name: part for name, part in value.items() if name != field.name}
        assert Draft7Validator(schema).is_valid(shorter) == (not field.required)
        if not field.required:
            default = schema["properties"][field.name]["default"]
            assert json.loads(msgspec.json.encode(field.default)) == default
            read = DECODE[message.schema](json.dumps(shorter).encode())
            assert getattr(read, field.name) == field.default


@each_message
def test_a_field_that_a_later_version_adds_is_left_alone(message: MessageSpec) -> None:
    example = next(iter(message.examples.values()))
    value = json.loads(message.encode(example)) | {"added_later": {"any": ["thing"]}}
    Draft7Validator(json_schema(message)).validate(value)
    assert DECODE[message.schema](json.dumps(value).encode()) == example


def test_a_flat_candle_has_no_trade_ids_and_no_volume_and_every_other_has_both_ids() -> None:
    usual, flat = (json.loads(CANDLE.encode(CANDLE.examples[name])) for name in ("candle", "flat"))
    schema = Draft7Validator(json_schema(CANDLE))
    for wrong in (
        usual | {"first_trade_id": None},
        usual | {"trade_count": 0},
        flat | {"last_trade_id": "1"},
        flat | {"volume": "1"},
        flat | {"trade_count": 1},
    ):
        assert not schema.is_valid(wrong)


def _refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from [part["$ref"]] if "$ref" in part else []
        for inner in part.values():
            yield from _refs(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _refs(inner)


def _follow(reference: str) -> Any:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_every_reference_of_the_document_leads_somewhere() -> None:
    references = list(_refs(DOCUMENT))
    assert len(references) > 30
    for reference in references:
        assert _follow(reference)


def test_the_document_has_the_public_topics_as_topics_create_makes_them() -> None:
    partitions = Settings.from_environment({}).partitions
    public = [
        spec for spec in topic_specs(partitions, ()) if spec.name != META and not spec.name.endswith("-changelog")
    ]
    assert {spec.name for spec in public} == DOCUMENT["channels"].keys()
    for spec in public:
        channel = DOCUMENT["channels"][spec.name]
        binding = channel["bindings"]["kafka"]
        configuration = binding["topicConfiguration"]
        assert channel["address"] == binding["topic"] == spec.name
        assert binding["partitions"] == partitions
        policies = ",".join(configuration["cleanup.policy"])
        assert {
            **{name: str(value) for name, value in configuration.items()},
            "cleanup.policy": policies,
        } == spec.config


@each_channel
def test_examples_of_the_document_are_what_its_schemas_say(channel: ChannelSpec) -> None:
    message = DOCUMENT["components"]["messages"][channel.topic]
    assert message["examples"]
    for example in message["examples"]:
        Draft7Validator(message["headers"]).validate(example["headers"])
        if channel.message is not None:
            writes(channel.message.schema).validate(example["payload"])
            assert _follow(message["payload"]["$ref"])["title"] == channel.message.schema


@each_channel
def test_headers_as_they_are_written_are_those_of_the_document(channel: ChannelSpec) -> None:
    schema = {**DOCUMENT["components"]["messages"][channel.topic]["headers"], "additionalProperties": False}
    if channel.message is not None:
        written = message_headers(channel.message.schema)
    else:
        more = {"trades.late": {"partition": "1", "offset": "2"}, "trades.dead": {"venue": "gmo"}}
        written = dead_letter(
            channel.topic, key=None, value=b"v" * 10**6, reason="r" * 2_000, source="s", consumer="c",
            **more.get(channel.topic, {}),
        ).headers  # fmt: skip
    headers = {name: value.decode() for name, value in written}
    Draft7Validator(schema).validate(headers)
    if channel.message is None:
        assert headers.keys() == schema["properties"].keys()


@given(symbol=_SYMBOLS)
def test_keys_as_they_are_written_are_as_the_document_says(symbol: str) -> None:
    messages = DOCUMENT["components"]["messages"]
    keys = {topic: Draft7Validator(message["bindings"]["kafka"]["key"]) for topic, message in messages.items()}
    keys["candles"].validate(symbol)
    keys["candles.live"].validate(live_key(symbol, "1m").decode())
    assert not keys["candles.live"].is_valid(symbol)
    assert not keys["candles"].is_valid("BTC")
    assert re.search(SYMBOL["pattern"], symbol)


def kept(counts: WhichCounts, messages: Iterable[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What a reader keeps that knows nothing but `x-which-counts`."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for message in messages:
        slot = tuple(message[name] for name in counts.identity)
        rank = [message[name] for name in counts.greatest]
        known = found.get(slot)
        if known is not None:
            known_rank = [known[name] for name in counts.greatest]
            if rank < known_rank or (rank == known_rank and counts.of_equals == "first"):
                continue
        found[slot] = message
    return found


@each_channel
def test_what_counts_is_said_by_fields_that_are_there_and_as_the_page_says_it(channel: ChannelSpec) -> None:
    counts = channel.which_counts
    fields = channel.message.struct.__struct_fields__ if channel.message else channel.headers
    assert {*counts.identity, *counts.greatest} <= {*fields}
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{channel.topic}` | ["))
    said = _cells(row)[-1]
    named = set(re.findall(r"`([a-z_.]+)`", said)) - {"candles", "active", "superseded"}
    assert named == {*counts.identity, *counts.greatest} - {"status"}
    if counts.identity and not counts.greatest:
        assert f"the {counts.of_equals} of each" in said
    assert ("greatest" in said) == bool(counts.greatest)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["active", "superseded"])),
        min_size=1,
        max_size=8,
    )
)
def test_of_signals_the_rule_keeps_the_one_that_ranks_highest(drawn: list[tuple[int, int, Any]]) -> None:
    example = SIGNAL.examples["long"]
    assert isinstance(example, Signal)
    signals = [
        msgspec.structs.replace(example, version=version, revision=revision, status=status)
        for version, revision, status in drawn
    ]
    counts = next(channel.which_counts for channel in CHANNELS if channel.message is SIGNAL)
    found = kept(counts, (msgspec.structs.asdict(signal) for signal in signals))
    best = max(signals, key=signal_rank)
    assert list(found) == [signal_slot(best)]
    assert Signal(**found[signal_slot(best)]) == best


def test_of_statuses_the_rule_keeps_the_last_and_of_gaps_the_first_of_the_newest() -> None:
    counts = {channel.topic: channel.which_counts for channel in CHANNELS}
    slot = {"symbol": "gmo:BTC", "from_time": START}
    gaps = [{**slot, "updated_at": at, "number": number} for number, at in enumerate([1, 3, 3, 2])]
    assert [one["number"] for one in kept(counts["feed.gaps"], gaps).values()] == [1]
    assert [one["number"] for one in kept(counts["feed.status"], gaps).values()] == [3]
    assert [one["number"] for one in kept(counts["trades"], [{**one, "trade_id": "1"} for one in gaps]).values()] == [0]


def test_every_topic_is_sent_by_somebody_and_trades_are_taken_from_others_too() -> None:
    operations = DOCUMENT["operations"].values()
    by_action = {
        action: {one["channel"]["$ref"].rpartition("/")[2] for one in operations if one["action"] == action}
        for action in ("send", "receive")
    }
    assert by_action == {"send": {*DOCUMENT["channels"]}, "receive": {"trades"}}
    assert all(one["summary"].startswith("By ashi ") for one in operations)
