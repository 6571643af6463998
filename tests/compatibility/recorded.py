"""What version 0.1.0 wrote, as it is kept here: the records of a Kafka, wave by wave, and how they are read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ashi_aggregate.core.codec import decode_row

DATA = Path(__file__).parent / "recorded"
PARTITIONS = 2
TIMEFRAMES = "1m,5m,1h"
FLAT_CANDLES = "30"
LATENESS_US = 2_000_000

SETTINGS = {
    "ASHI_PARTITIONS": str(PARTITIONS),
    "ASHI_TIMEFRAMES": TIMEFRAMES,
    "ASHI_FLAT_CANDLES": FLAT_CANDLES,
    "ASHI_QUIET_CLOSE": "off",
}
"""What the workers of the recorded log ran with."""

WAVES = 4
"""Each wave was published whole, read by a worker of its own as one chunk a partition, and made durable at once."""
STOPPED_AFTER = 2
"""The wave after which the version before ends and the one under test goes on."""
REBUILT, RECONFIGURED = 5, 6
"""Not waves of trades: what `ashi rebuild` wrote after the last wave, and then a worker in the next epoch."""

VENUES = {
    "bitflyer": ["BTC_JPY", "FX_BTC_JPY"],
    "gmo": ["BTC", "BTC_JPY"],
    "binance": ["BTCUSDT", "ETHUSDT"],
    "binance-usdm": ["BTCUSDT"],
}
"""The venues that are simulated, and the markets of each that are read."""


class Recorded(NamedTuple):
    """One record of a topic. `wave` says after which one it was there; the timestamp is in ms."""

    wave: int
    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def to_line(record: Recorded) -> dict[str, Any]:
    """As JSON holds it: Latin-1 has a character for each byte, and leaves ASCII to be read."""
    key, value = (text if text is None else text.decode("latin-1") for text in (record.key, record.value))
    headers = [[name, text.decode("latin-1")] for name, text in record.headers]
    return record._asdict() | {"key": key, "value": value, "headers": headers}


def from_line(line: dict[str, Any]) -> Recorded:
    """The reverse of `to_line`."""
    key, value = (text if text is None else text.encode("latin-1") for text in (line["key"], line["value"]))
    headers = [(name, text.encode("latin-1")) for name, text in line["headers"]]
    return Recorded(**line | {"key": key, "value": value, "headers": headers})


def read_lines(name: str) -> list[Any]:
    """The JSON lines of a recorded file."""
    return [json.loads(line) for line in gzip.decompress((DATA / name).read_bytes()).decode().splitlines()]


def write_lines(name: str, lines: Iterable[Any]) -> None:
    """Write JSON lines. Without a time in the archive, so that the same lines are the same file."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (DATA / name).write_bytes(gzip.compress(text.encode(), mtime=0))


def read_json(name: str) -> Any:
    """A recorded file that people read as well."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def write_json(name: str, content: Any) -> None:
    """Write such a file."""
    (DATA / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded_log(name: str = "log.jsonl.gz") -> list[Recorded]:
    """All records, each partition in the order of its offsets."""
    return [from_line(line) for line in read_lines(name)]


_ADDED = ("topic_id", "records", "positions", "listed_by", "behind")
"""Fields that markers have had since. Rows have the same."""


def is_list(key: bytes | None) -> bool:
    """Whether a record in the changelog of the markers is a list of symbols, which the version before did not write."""
    return b"-symbols-" in (key or b"")


def read_state(topic: str, value: bytes) -> Any:
    """What a row or marker in a changelog says, however it is written; messages of other topics as they are.

    Of a marker without the fields that later versions add: a worker that goes on from what the version before wrote
    brings them with its next write, and needs none of them.
    """
    if topic.endswith("-markers-changelog"):
        return {name: field for name, field in json.loads(value).items() if name not in _ADDED}
    return decode_row(value) if topic.endswith("-changelog") else value


NEW_HEADERS = {
    "trades.late": {"ashi.partition", "ashi.offset", "ashi.consumer"},
    "trades.dead": {"ashi.consumer"},
    "candles.dead": {"ashi.consumer"},
}
"""Headers that letters have had since; all others are those of the version before."""


def comparable(topic: str, headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Headers without the time of the letter, and without those that later versions add."""
    left_out = NEW_HEADERS.get(topic, set())
    return [(name, b"TIME" if name == "ashi.failed_at" else text) for name, text in headers if name not in left_out]
