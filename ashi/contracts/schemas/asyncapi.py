"""The AsyncAPI 3 document of the topics: for people, for generators of code, and for catalogues of events."""

from __future__ import annotations

import json
from typing import Any, Final

from ashi import __version__
from ashi.contracts.access import Access, Operation, access_table
from ashi.contracts.schemas.channels import CHANNELS, ChannelSpec, headers_of
from ashi.contracts.schemas.json_schema import payload_schema
from ashi.contracts.schemas.messages import MESSAGES
from ashi.contracts.topics import TopicSpec, topic_specs

ASYNCAPI: Final = "3.0.0"
_BINDING: Final = "0.5.0"
PARTITIONS: Final = 8
"""Of each topic, unless `ASHI_PARTITIONS` says otherwise."""

_DESCRIPTION: Final = """\
Exchange trades into candles (OHLCV) over Apache Kafka. The document is written from Ashi's side: what it sends,
others read.

**Delivery** is at least once: any message may come again, after a crash or because several workers read one market,
and what comes again may be older than what came before it. Each channel says in `x-which-counts` what a reader
keeps: of the messages with the same `identity` the one in which the fields of `greatest`, one after the other, are
greatest; of equals the `first` in its partition, or the `last`. Whoever keeps that is right.

**Order.** What is of one symbol in one topic is in one partition, in the order in which it was written. Nothing is
promised between symbols nor between topics. A partition is found from the symbol as Java's client does (murmur2).

**Transactions.** Read with `isolation.level=read_committed`: what is aborted never happened. Offsets have holes.

**Values** are one JSON object in UTF-8. The order of fields means nothing. A field is null only where its schema
says so, and then null is written out. A field is missing only where its schema has a default: old messages lack it.
Decimals are text in plain notation; they have no sign, no exponent and no trailing zeros, and are exact. Times are
microseconds since the epoch in UTC.

**Deletions.** No record without a value means anything in any topic. **Timestamps** of records are the broker's,
when they were appended (`LogAppendTime`), and no rule uses them. **Compression** is zstd, unless set otherwise.

**Versions.** A message says in its header `schema` what it is, with its version. Within a version only fields are
added: leave alone what you do not know. What a field means, its type, its bounds and the values that a list of them
has change with the version only. A message of another version is none of the topic for you. Ashi's own readers do not
guess what it means: they take it for unreadable, and say so.

**Names.** With `ASHI_TOPIC_PREFIX` all topics and consumer groups of a deployment begin so."""

_SERVERS: Final[dict[str, Any]] = {
    "kafka": {
        "host": "{bootstrap}",
        "protocol": "kafka",
        "title": "The Kafka of a deployment",
        "description": "Encrypted or not, and with a user or without, as the deployment has it.",
        "variables": {"bootstrap": {"description": "One of its brokers, host:port.", "default": "127.0.0.1:9092"}},
    }
}


def asyncapi_document() -> dict[str, Any]:
    """The document, as JSON has it. `as_text` is how it is written."""
    specs = {spec.name: spec for spec in topic_specs(PARTITIONS, ())}
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "Ashi",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": "candles"}, {"name": "kafka"}, {"name": "market data"}],
        },
        "defaultContentType": "application/json",
        "servers": _SERVERS,
        "channels": {each.topic: _channel(each, specs[each.topic]) for each in CHANNELS},
        "operations": _operations(),
        "components": {
            "messages": {each.topic: _message(each) for each in CHANNELS},
            "schemas": {message.schema: payload_schema(message) for message in MESSAGES},
        },
    }


def as_text(document: dict[str, Any]) -> str:
    """A document as it stands in a file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _channel(channel: ChannelSpec, spec: TopicSpec) -> dict[str, Any]:
    counts = channel.which_counts
    return {
        "address": channel.topic,
        "title": channel.title,
        "description": channel.summary,
        "messages": {channel.topic: {"$ref": f"#/components/messages/{channel.topic}"}},
        "bindings": {
            "kafka": {
                "topic": channel.topic,
                "partitions": spec.partitions,
                "topicConfiguration": _configuration(spec.config),
                "bindingVersion": _BINDING,
            }
        },
        "x-which-counts": {
            "identity": list(counts.identity),
            "identity-in": "headers" if channel.message is None else "payload",
            "greatest": list(counts.greatest),
            "of-equals": counts.of_equals,
        }
        if counts.identity
        else "each",
    }


def _configuration(config: dict[str, str]) -> dict[str, Any]:
    """Settings of a topic as the binding has them: numbers as numbers, policies as a list."""
    typed: dict[str, Any] = {name: int(text) if text.isdigit() else text for name, text in config.items()}
    return typed | {"cleanup.policy": config["cleanup.policy"].split(",")}


def _message(channel: ChannelSpec) -> dict[str, Any]:
    message = channel.message
    headers = {**(headers_of(message) if message else {}), **channel.headers}
    return {
        "name": message.schema if message else channel.topic,
        "title": message.title if message else "Letter",
        "summary": message.summary
        if message
        else "Quotes what was received, as it was, with the reason in its headers.",
        "contentType": "application/json" if message else "application/octet-stream",
        "headers": {
            "type": "object",
            "description": "Names and values are text in UTF-8. There may be further ones.",
            "properties": headers,
            **({"required": list(channel.required_headers)} if channel.required_headers else {}),
        },
        "payload": {"$ref": f"#/components/schemas/{message.schema}"}
        if message
        else {
            "description": "The bytes of what is quoted, cut after 900,000; null where it had no value. "
            "They need be no JSON."
        },
        "bindings": {"kafka": {"key": channel.key, "bindingVersion": _BINDING}},
        "examples": _examples(channel),
    }


def _examples(channel: ChannelSpec) -> list[dict[str, Any]]:
    message = channel.message
    if message is None:
        return [{"name": "letter", "headers": dict(channel.letter), "payload": None}]
    headers = {name: header["const"] for name, header in headers_of(message).items()}
    return [
        {"name": name, "headers": headers, "payload": json.loads(message.encode(message.examples[name]))}
        for name in channel.examples
    ]


def _operations() -> dict[str, Any]:
    """What Ashi sends, and what it takes from others; which of its commands do it, by the table of rights."""
    operations = {}
    for channel in CHANNELS:
        name = "".join(part.title() for part in channel.topic.split("."))
        operations["send" + name] = _operation("send", channel, Operation.WRITE)
        if channel.others_write:
            operations["receive" + name] = _operation("receive", channel, Operation.READ)
    return operations


def _operation(action: str, channel: ChannelSpec, needed: Operation) -> dict[str, Any]:
    by = [command for command, access in access_table(()).items() if _may(access, channel.topic, needed)]
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.topic}"},
        "summary": f"By {', '.join(by)}.",
        "messages": [{"$ref": f"#/channels/{channel.topic}/messages/{channel.topic}"}],
    }


def _may(access: Access, topic: str, operation: Operation) -> bool:
    return operation in access.topics.get(topic, frozenset())
