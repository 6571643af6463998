"""JSON Schemas of the messages: fields and types by msgspec's generator, meanings and bounds by `fields`."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

import msgspec

from ashi.contracts.schemas.fields import TIME, Fields, FieldSpec
from ashi.contracts.schemas.messages import PARTS, MessageSpec

Schema: TypeAlias = dict[str, Any]

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
"""The draft of JSON Schema that AsyncAPI 3 is built on, and that every validator knows."""

OF_TIMES: Final = "Microseconds since the epoch, UTC."
OF_DECIMALS: Final = "A decimal as text, in plain notation."

_PARTS_BY_NAME: Final = {struct.__name__: (struct, fields) for struct, fields in PARTS.items()}


def json_schema(message: MessageSpec) -> Schema:
    """The JSON Schema of a message as Ashi writes it, by itself: with nothing else beside it, it is whole.

    It is open, as fields are added within a version, and a field with a default may be missing: old messages lack it.
    """
    return {"$schema": DRAFT, **payload_schema(message)}


def payload_schema(message: MessageSpec) -> Schema:
    """The same without the line that names the draft, to stand in another document."""
    return {
        "title": message.schema,
        **_object_schema(message.struct, message.fields, message.summary),
        **message.condition,
    }


def _object_schema(struct: type[msgspec.Struct], fields: Fields, description: str) -> Schema:
    generated = msgspec.json.schema(struct)["$defs"][struct.__name__]
    types = {each.name: each.type for each in msgspec.structs.fields(struct)}
    return {
        "description": description,
        "type": "object",
        "properties": {
            name: _property(part, fields[name], types[name]) for name, part in generated["properties"].items()
        },
        "required": generated["required"],
        "additionalProperties": True,
    }


def _property(generated: Schema, field: FieldSpec, kind: Any) -> Schema:
    parts = generated.get("anyOf", [generated])
    schema = {key: value for key, value in parts[0].items() if key != "default"}
    values = _values(kind)
    if values:
        schema = {"type": "string", "enum": values}  # msgspec sorts them, and their meanings are in their own order
    if "items" in schema:
        struct, fields = _PARTS_BY_NAME[schema["items"]["$ref"].rpartition("/")[2]]
        schema["items"] = _object_schema(struct, fields, "One of them.")
    if {"type": "null"} in parts:
        schema["type"] = [schema["type"], "null"]
        if values:
            schema["enum"] = [*values, None]
    if "default" in generated:
        default = generated["default"]
        schema["default"] = list(default) if isinstance(default, tuple) else default
    return {"description": _description(field, values, schema), **schema, **field.keywords}


def _values(kind: Any) -> list[str]:
    """The values of a field that has a list of them, in the order in which they are declared."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [value for part in get_args(kind) if get_origin(part) is Literal for value in get_args(part)]


def _description(field: FieldSpec, values: list[str], schema: Schema) -> str:
    meaning = field.meaning
    if field.of_values:
        meanings = meaning.split("; ")
        meaning = "; ".join(f"`{value}`: {means}" for value, means in zip(values, meanings, strict=True))
    if field.keywords is TIME:
        return f"{meaning}. {OF_TIMES}"
    if schema.get("format") == "decimal":
        return f"{meaning}. {OF_DECIMALS}"
    return f"{meaning}."
