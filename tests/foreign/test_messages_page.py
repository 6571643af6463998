"""docs/messages.md says all that there is to say: its tables and examples against the contracts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
import strict_messages
from strict_reader import LETTERS, MORE_OF_LETTERS, OF_ALL_LETTERS, TOPICS

from ashi.contracts import Candle, Trade, decode_candle, decode_trade, encode_candle, encode_trade, parse_timeframes
from ashi.contracts.feed import FeedGap, FeedStatus, FeedWorker, decode_feed_gap, decode_feed_status, encode_feed
from ashi.contracts.instrument import Instrument, decode_instrument, encode_instrument
from ashi.contracts.signal import Signal, decode_signal, encode_signal
from ashi.contracts.topics import META, TRADES_LATE, topic_specs
from ashi.runtime.kafka.producing.dead_letters import dead_letter
from ashi.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "messages.md").read_text()
HEADING = re.compile(r"^## .*\(topic `(?P<topic>.+)`, schema `(?P<schema>.+)`\)$", re.MULTILINE)
DAY_MS = 86_400_000

Codec = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]
CODECS: dict[str, Codec] = {
    "trades": (decode_trade, encode_trade),
    "candles": (decode_candle, encode_candle),
    "candles.live": (decode_candle, encode_candle),
    "feed.gaps": (decode_feed_gap, encode_feed),
    "feed.status": (decode_feed_status, encode_feed),
    "instruments": (decode_instrument, encode_instrument),
    "signals": (decode_signal, encode_signal),
}
STRUCTS: dict[str, type[msgspec.Struct]] = {
    "trades": Trade,
    "candles": Candle,
    "feed.gaps": FeedGap,
    "feed.status": FeedStatus,
    "instruments": Instrument,
    "signals": Signal,
}


def sections() -> dict[str, str]:
    """The text of each topic's section."""
    parts = re.split(r"^(?=## )", PAGE, flags=re.MULTILINE)
    return {found["topic"]: part for part in parts if (found := HEADING.match(part))}


def rows(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column has this head."""
    table = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\|\n(?P<rows>(?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, f"no table of {first!r}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table["rows"].splitlines()]


def in_words(kind: Any, name: str) -> str:
    """A field's type as the page has it."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join([*(in_words(each, name) for each in get_args(kind) if each is not type(None)), "null"])
    if get_origin(kind) is Literal:
        return " or ".join(f'`"{value}"`' for value in get_args(kind))
    if get_origin(kind) is tuple:
        return "array of workers"
    if get_origin(kind) is dict:
        return "object of strings"
    if kind is int and (name.endswith(("_time", "_at", "_until")) or name in ("since", "heartbeat")):
        return "µs"
    return {str: "string", int: "integer", bool: "boolean", Decimal: "decimal"}[kind]


FIELD_TABLES = [*((topic, "field", struct) for topic, struct in STRUCTS.items()),
                ("feed.status", "field of a worker", FeedWorker)]  # fmt: skip


@pytest.mark.parametrize(("topic", "head", "struct"), FIELD_TABLES, ids=lambda each: getattr(each, "__name__", ""))
def test_the_tables_have_the_fields_of_the_contract_each_with_its_type(
    topic: str, head: str, struct: type[msgspec.Struct]
) -> None:
    found = [(name.strip("`"), kind) for name, kind, _ in rows(sections()[topic], head)]
    hints = {each.name: each.type for each in msgspec.structs.fields(struct)}
    assert found == [(name, in_words(kind, name)) for name, kind in hints.items()]


@pytest.mark.parametrize(("topic", "head", "struct"), FIELD_TABLES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_field_may_be_missing_where_the_page_says_so_and_nowhere_else(
    topic: str, head: str, struct: type[msgspec.Struct]
) -> None:
    said = {
        name.strip("`"): match[1]
        for name, _, meaning in rows(sections()[topic], head)
        if (match := re.search(r"missing: (\w+)$", meaning))
    }
    words = {False: "false", None: "null", (): "empty"}
    may = {each.name: words[each.default] for each in msgspec.structs.fields(struct) if not each.required}
    assert said == may


def examples() -> list[tuple[str, str]]:
    return [
        (topic, text)
        for topic, part in sections().items()
        for text in re.findall(r"```json\n(.*?)```", part, re.DOTALL)
    ]


@pytest.mark.parametrize(("topic", "text"), examples())
def test_the_examples_are_messages_as_ashi_writes_them(topic: str, text: str) -> None:
    decode, encode = CODECS[topic]
    assert json.loads(encode(decode(text.encode()))) == json.loads(text)
    strict_messages.parse(TOPICS[topic][1], text.encode())


def test_each_topic_has_an_example_and_candles_one_without_trades() -> None:
    assert {topic for topic, _ in examples()} == set(CODECS)
    counts = [json.loads(text)["trade_count"] for topic, text in examples() if topic == "candles"]
    assert [count > 0 for count in counts] == [True, False]


def test_the_table_of_topics_is_what_topics_create_makes() -> None:
    partitions = Settings.from_environment({}).partitions
    specs = {spec.name: spec for spec in topic_specs(partitions, parse_timeframes("1m"))}
    ours = {name for name in specs if name == META or name.endswith("-changelog")}
    table = {row[0].strip("`"): row for row in rows(PAGE, "topic")}
    assert table.keys() == specs.keys() - ours
    assert all(name in PAGE for name in (META, "-changelog"))
    assert f"`ASHI_PARTITIONS` partitions ({partitions})" in " ".join(PAGE.split())
    headings = {found["topic"]: found["schema"] for found in HEADING.finditer(PAGE)}
    assert headings == {topic: schema for topic, (schema, _) in TOPICS.items()}
    for name, (_, _, schema, policy, kept, _) in table.items():
        spec = specs[name]
        assert spec.partitions == partitions
        assert policy == f"`{spec.config['cleanup.policy']}`"
        days = spec.config.get("retention.ms")
        last = "the last of each key, for ever"
        assert kept == (last if days is None else f"{(of := int(days) // DAY_MS)} day{'s' * (of > 1)}")
        assert schema == (f"`{headings[name]}`" if name in headings else "none")
        assert spec.config["message.timestamp.type"] == "LogAppendTime"


def test_the_table_of_headers_has_those_of_letters() -> None:
    named = {row[0].strip("`") for row in rows(PAGE[PAGE.index("## Late and dead") :], "header")}
    assert named == OF_ALL_LETTERS.union(*MORE_OF_LETTERS.values())
    long = dead_letter(
        TRADES_LATE, key=b"k" * 2_000, value=b"v" * 10**6, reason="r" * 2_000, source="s", consumer="c", partition="1"
    )
    headers = dict(long.headers)
    assert OF_ALL_LETTERS | {"ashi.partition", "ashi.full_length"} == headers.keys()
    assert len(long.key or b"") == 1_000
    assert len(long.value or b"") == 900_000
    assert len(headers["ashi.reason"]) == 1_000
    assert {row[0].strip("`") for row in rows(PAGE[PAGE.index("## Late and dead") :], "topic")} == set(LETTERS)


def test_the_strict_reader_needs_nothing_of_ashi() -> None:
    source = "".join((ROOT / "tests" / "foreign" / f"strict_{name}.py").read_text() for name in ("messages", "reader"))
    imported = {line.split()[1].partition(".")[0] for line in source.splitlines() if re.match(r"(from|import) ", line)}
    assert imported - sys.stdlib_module_names == {"confluent_kafka", "strict_messages"}


CANDLE = json.loads(next(text for topic, text in examples() if topic == "candles"))
WRONG: list[tuple[str, Any]] = [
    ("a field that the page does not name", CANDLE | {"more": 1}),
    ("a field that is missing", {name: value for name, value in CANDLE.items() if name != "low"}),
    ("a null that may not be", CANDLE | {"volume": None}),
    ("a null of a candle with trades", CANDLE | {"first_trade_id": None}),
    ("a number for a decimal", CANDLE | {"open": 8760001}),
    ("a decimal that is not plain", CANDLE | {"open": "8760001.0"}),
    ("a string for an integer", CANDLE | {"version": "1789"}),
    ("a boolean for an integer", CANDLE | {"trade_count": True}),
    ("a time in ms", CANDLE | {"open_time": 1723161180000}),
    ("a flat candle with a volume", CANDLE | {"trade_count": 0, "first_trade_id": None, "last_trade_id": None}),
    ("no object", [CANDLE]),
]


@pytest.mark.parametrize("value", [value for _, value in WRONG], ids=[name for name, _ in WRONG])
def test_the_strict_reader_is_strict(value: Any) -> None:
    assert strict_messages.parse(strict_messages.Candle, json.dumps(CANDLE).encode()).version == 1789
    with pytest.raises(strict_messages.NotOnThePageError):
        strict_messages.parse(strict_messages.Candle, json.dumps(value).encode())
