"""What two versions of the contract must have in common: `docs/contracts` of a release, and of now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RELEASED = Path(__file__).parent / "released"
"""A folder for each version: the files of `docs/contracts` as they were (`python -m ashi.contracts.schemas FOLDER`). Of
0.1.0, which had none, they are written from its code, with messages that it wrote (`recorded`)."""

_SAYS_NOTHING = ("$schema", "$comment", "title", "description", "examples")
"""Keywords that bind no value."""
_COMPARED_APART = ("properties", "required", "items", "enum")
_CONDITION = ("if", "then", "else")


def read(version: str, name: str) -> Any:
    """A file of a release, or None."""
    path = RELEASED / version / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def schema_changes(released: dict[str, Any], now: dict[str, Any], where: str = "the message") -> Iterator[str]:
    """What a schema says otherwise than the released one, and may not within a version; nothing if all is well.

    Fields may be added that may be missing. So whoever knows the one reads what the other writes, both ways.
    """
    before, after = released.get("properties", {}), now.get("properties", {})
    if (after.keys() - before.keys()) & {*now.get("if", {}).get("required", [])}:
        now = {name: part for name, part in now.items() if name not in _CONDITION}  # it is about a field that is new
    for keyword in sorted(released.keys() | now.keys()):
        if keyword in _SAYS_NOTHING or keyword in _COMPARED_APART:
            continue
        if released.get(keyword) != now.get(keyword):
            yield f"{where}: {keyword} was {released.get(keyword)!r} and is {now.get(keyword)!r}"
    if {*map(repr, released.get("enum", []))} != {*map(repr, now.get("enum", []))}:
        yield f"{where}: its values were {released.get('enum')} and are {now.get('enum')}"
    if ("items" in released) != ("items" in now):
        yield f"{where}: its items are described in one and not in the other"
    elif "items" in released:
        yield from schema_changes(released["items"], now["items"], f"{where}[]")
    must_before, must_after = {*released.get("required", [])}, {*now.get("required", [])}
    for name, schema in before.items():
        if name not in after:
            yield f"{where}.{name} is gone"
            continue
        if (name in must_before) != (name in must_after):
            yield f"{where}.{name} may be missing in one and not in the other"
        yield from schema_changes(schema, after[name], f"{where}.{name}")
    for name in after.keys() - before.keys():
        if name in must_after or "default" not in after[name]:
            yield f"{where}.{name} is new, and what its lack means is not said"


def document_changes(released: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """The same of two AsyncAPI documents: topics, keys, headers, policies, what counts, and schemas."""
    for topic, before in released["channels"].items():
        after = now["channels"].get(topic)
        if after is None:
            yield f"topic {topic} is gone"
            continue
        for part in ("address", "x-which-counts"):
            if before[part] != after[part]:
                yield f"{topic}: {part} was {before[part]} and is {after[part]}"
        policies = [one["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"] for one in (before, after)]
        if policies[0] != policies[1]:
            yield f"{topic}: cleanup.policy was {policies[0]} and is {policies[1]}"
        old, new = (document["components"]["messages"][topic] for document in (released, now))
        for part in ("name", "contentType"):
            if old[part] != new[part]:
                yield f"{topic}: {part} was {old[part]!r} and is {new[part]!r}"
        keys = [one["bindings"]["kafka"]["key"] for one in (old, new)]
        yield from schema_changes(keys[0], keys[1], f"{topic}: the key")
        headers = [{**one["headers"], "properties": _may_be_missing(one["headers"])} for one in (old, new)]
        yield from schema_changes(headers[0], headers[1], f"{topic}: the headers")
    for name, schema in released["components"]["schemas"].items():
        if name in now["components"]["schemas"]:
            yield from schema_changes(schema, now["components"]["schemas"][name], name)
        else:
            yield f"schema {name} is gone"


def _may_be_missing(headers: dict[str, Any]) -> dict[str, Any]:
    """Headers may be added: that one is not there says so itself."""
    return {name: {"default": None, **schema} for name, schema in headers["properties"].items()}
