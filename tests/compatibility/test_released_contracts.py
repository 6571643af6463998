"""Within a version of a message only fields are added: every schema against all released ones, and their messages."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_changes import RELEASED, document_changes, read, schema_changes
from jsonschema import Draft7Validator
from recorded import recorded_log

import ashi
from ashi.contracts import ContractError, decode_candle, decode_trade
from ashi.contracts.feed import decode_feed_gap, decode_feed_status
from ashi.contracts.instrument import decode_instrument
from ashi.contracts.schemas import MESSAGES, asyncapi_document, json_schema
from ashi.contracts.signal import decode_signal

VERSIONS = sorted(path.name for path in RELEASED.iterdir())
NOW = {message.schema: json_schema(message) for message in MESSAGES}
ENCODE = {message.schema: message.encode for message in MESSAGES}
DECODE: dict[str, Callable[[bytes], Any]] = {
    "ashi.trade.v1": decode_trade,
    "ashi.candle.v1": decode_candle,
    "ashi.feed-gap.v1": decode_feed_gap,
    "ashi.feed-status.v1": decode_feed_status,
    "ashi.instrument.v1": decode_instrument,
    "ashi.signal.v1": decode_signal,
}
SCHEMAS = [(version, path.stem) for version in VERSIONS for path in sorted((RELEASED / version).glob("ashi.*.json"))]
each_released = pytest.mark.parametrize(("version", "schema"), SCHEMAS)


def golden(version: str) -> list[tuple[str, str]]:
    """Messages of a release as it wrote them: their schemas and values."""
    lines = RELEASED / version / "messages.jsonl"
    found = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] if lines.exists() else []
    document = read(version, "asyncapi.json") or {"components": {"messages": {}}}
    return [(one["schema"], one["value"]) for one in found] + [
        (message["name"], json.dumps(example["payload"]))
        for message in document["components"]["messages"].values()
        if message["contentType"] == "application/json"
        for example in message["examples"]
    ]


def test_every_release_is_kept() -> None:
    """A version that the changelog dates is released, and its contracts are those of its day."""
    changelog = (Path(ashi.__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert {"0.1.0", *dated} <= {*VERSIONS}, (
        "run: python -m ashi.contracts.schemas tests/compatibility/released/VERSION"
    )
    for version, schema in SCHEMAS:
        assert schema in {known for known, _ in golden(version)}


@each_released
def test_a_schema_says_what_the_released_one_said_and_adds_only_fields_that_may_be_missing(
    version: str, schema: str
) -> None:
    assert list(schema_changes(read(version, f"{schema}.json"), NOW[schema])) == []


@each_released
def test_who_knows_the_released_schema_reads_what_is_written_now(version: str, schema: str) -> None:
    message = next(one for one in MESSAGES if one.schema == schema)
    released = Draft7Validator(read(version, f"{schema}.json"))
    for example in message.examples.values():
        released.validate(json.loads(message.encode(example)))


def test_topics_are_as_they_were_released() -> None:
    now = asyncapi_document()
    for version in VERSIONS:
        if (released := read(version, "asyncapi.json")) is not None:
            assert list(document_changes(released, now)) == [], version


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_of_a_release_are_read_and_mean_what_they_meant(version: str) -> None:
    """Written anew they are the same, with the fields that have been added since, at their defaults."""
    found = golden(version)
    assert found
    for schema, value in found:
        Draft7Validator(NOW[schema]).validate(json.loads(value))
        written = json.loads(ENCODE[schema](DECODE[schema](value.encode())))
        added = {
            name: part["default"] for name, part in NOW[schema]["properties"].items() if name not in json.loads(value)
        }
        assert written == json.loads(value) | added


def test_the_schemas_of_0_1_0_are_those_of_what_it_wrote() -> None:
    """Every message that it wrote, field for field; and what it wrote to be refused is no message now either."""
    closed = {
        schema: Draft7Validator({**read("0.1.0", f"{schema}.json"), "additionalProperties": False})
        for version, schema in SCHEMAS
        if version == "0.1.0"
    }
    sound = wrong = 0
    for record in [*recorded_log(), *recorded_log("ingest.jsonl.gz")]:
        schema = dict(record.headers).get("schema", b"").decode()
        if not schema or record.value is None:
            continue
        try:
            DECODE[schema](record.value)
        except ContractError:
            wrong += 1
            continue
        closed[schema].validate(json.loads(record.value))
        sound += 1
    assert (sound, wrong) == (4_862, 18)


def _changed(change: Callable[[dict[str, Any]], Any]) -> list[str]:
    schema = copy.deepcopy(NOW["ashi.feed-status.v1"])
    change(schema)
    return list(schema_changes(NOW["ashi.feed-status.v1"], schema))


BREAKING: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("reason is gone", lambda one: one["properties"].pop("reason")),
    ("since: type", lambda one: one["properties"]["since"].update(type="string")),
    ("since: minimum", lambda one: one["properties"]["since"].update(minimum=0)),
    ("reason: type", lambda one: one["properties"]["reason"].update(type="string")),
    ("symbol: pattern", lambda one: one["properties"]["symbol"].pop("pattern")),
    ("state: its values", lambda one: one["properties"]["state"]["enum"].append("paused")),
    ("state: its values", lambda one: one["properties"]["state"]["enum"].pop()),
    ("complete_until may be missing", lambda one: one["required"].append("complete_until")),
    ("reason may be missing", lambda one: one["required"].remove("reason")),
    ("complete_until: default", lambda one: one["properties"]["complete_until"].update(default=0)),
    ("more is new", lambda one: one["properties"].update(more={"type": "string"})),
    ("more is new", lambda one: (one["properties"].update(more={"default": 1}), one["required"].append("more"))),
    ("workers[].id is gone", lambda one: one["properties"]["workers"]["items"]["properties"].pop("id")),
    ("workers: its items", lambda one: one["properties"]["workers"].pop("items")),
    ("additionalProperties", lambda one: one.update(additionalProperties=False)),
    ("then", lambda one: one.update(then={"required": ["reason"]})),
]


@pytest.mark.parametrize(("said", "change"), BREAKING)
def test_a_change_that_needs_a_version_is_found(said: str, change: Callable[[dict[str, Any]], Any]) -> None:
    assert any(said in one for one in _changed(change))


def test_a_field_that_may_be_missing_and_better_words_need_no_version() -> None:
    assert _changed(lambda one: one["properties"].update(more={"type": "string", "default": "x"})) == []
    assert _changed(lambda one: one["properties"]["since"].update(description="Since when.")) == []
    assert _changed(lambda one: one["properties"]["state"]["enum"].reverse()) == []


BREAKING_OF_TOPICS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("topic signals is gone", lambda one: one["channels"].pop("signals")),
    ("candles: address", lambda one: one["channels"]["candles"].update(address="klines")),
    ("candles: x-which-counts", lambda one: one["channels"]["candles"]["x-which-counts"].update(greatest=[])),
    (
        "trades: cleanup.policy",
        lambda one: one["channels"]["trades"]["bindings"]["kafka"]["topicConfiguration"].update(
            {"cleanup.policy": ["compact"]}
        ),
    ),
    ("candles: name", lambda one: one["components"]["messages"]["candles"].update(name="ashi.candle.v2")),
    (
        "candles.live: the key: pattern",
        lambda one: one["components"]["messages"]["candles.live"]["bindings"]["kafka"]["key"].update(pattern="."),
    ),
    (
        "the headers.ashi.late is gone",
        lambda one: one["components"]["messages"]["trades"]["headers"]["properties"].pop("ashi.late"),
    ),
    ("schema ashi.signal.v1 is gone", lambda one: one["components"]["schemas"].pop("ashi.signal.v1")),
    (
        "ashi.trade.v1.price is gone",
        lambda one: one["components"]["schemas"]["ashi.trade.v1"]["properties"].pop("price"),
    ),
]


@pytest.mark.parametrize(("said", "change"), BREAKING_OF_TOPICS)
def test_a_change_of_a_topic_that_readers_would_meet_is_found(
    said: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    before = asyncapi_document()
    after = copy.deepcopy(before)
    change(after)
    assert any(said in one for one in document_changes(before, after))


def test_a_new_topic_a_new_header_and_another_retention_are_no_break() -> None:
    before = asyncapi_document()
    after = copy.deepcopy(before)
    after["channels"]["depth"] = after["channels"]["trades"]
    after["components"]["messages"]["trades"]["headers"]["properties"]["ashi.more"] = {"type": "string"}
    after["channels"]["candles"]["bindings"]["kafka"]["topicConfiguration"]["retention.ms"] = 1
    assert list(document_changes(before, after)) == []
