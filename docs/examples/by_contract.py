"""What counts of any topic, by `asyncapi.json` alone: no name of a topic or a field stands in this program.

    pip install 'aiokafka>=0.14,<0.15' 'cramjam>=2.8,<3' 'jsonschema>=4.23,<5'
    python by_contract.py ../contracts/asyncapi.json 127.0.0.1:9092 feed.gaps

Prints a message a line. What is not as its schema says is passed over, and told.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from jsonschema import Draft7Validator, ValidationError


async def records_now(bootstrap: str, topic: str) -> AsyncIterator[Any]:
    """All that is committed of a topic now, each partition in its order."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()


async def what_counts(contract: dict[str, Any], bootstrap: str, topic: str) -> list[Any]:
    """Of what is in a topic the messages that count, in the order in which they came."""
    rule = contract["channels"][topic]["x-which-counts"]
    message = contract["components"]["messages"][topic]
    if message["contentType"] != contract["defaultContentType"]:
        sys.exit(f"{topic} holds letters, which quote what is no message")
    headers = Draft7Validator(message["headers"])
    payload = Draft7Validator(contract["components"]["schemas"][message["name"]])
    kept: dict[Any, Any] = {}
    async for record in records_now(bootstrap, topic):
        try:
            found = {name: value.decode() for name, value in record.headers if value is not None}
            headers.validate(found)  # the header `schema` too: another version is another message
            value = json.loads(record.value)
            payload.validate(value)
        except (ValueError, ValidationError) as error:
            print(
                f"{topic}/{record.partition}/{record.offset} is passed over: {str(error).splitlines()[0]}",
                file=sys.stderr,
            )
            continue
        identity = tuple(value[name] for name in rule["identity"])
        rank = [value[name] for name in rule["greatest"]]
        if identity in kept:
            known = [kept[identity][name] for name in rule["greatest"]]
            if rank < known or (rank == known and rule["of-equals"] == "first"):
                continue
        kept[identity] = value
    return list(kept.values())


def main() -> None:
    """Print them."""
    path, bootstrap, topic = sys.argv[1:4]
    contract = json.loads(Path(path).read_text(encoding="utf-8"))
    for message in asyncio.run(what_counts(contract, bootstrap, topic)):
        print(json.dumps(message, ensure_ascii=False))


if __name__ == "__main__":
    main()
