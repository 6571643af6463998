"""Dead letters: what could not be parsed or stored, kept with headers that say why, from where and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.topics import TRADES
from ashi.runtime.wall_clock import now_us

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_VALUE_BYTES: Final = 900_000
"""Longer values are cut: a frame that Kafka refuses (1 MB by default) must not stop the feed it came from."""
MAX_KEY_BYTES: Final = 1_000
MAX_HEADER_CHARACTERS: Final = 1_000

Headers = list[tuple[str, bytes]]


class DeadLetter(NamedTuple):
    """A message for `trades.dead` or `candles.dead`, in the order of a producer's arguments."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


def message_headers(schema: str) -> Headers:
    """The headers of a message of the public contract, such as `ashi.trade.v1`."""
    return [("content-type", b"application/json"), ("schema", schema.encode())]


def dead_letter(
    topic: str, *, key: bytes | None, value: bytes | None, reason: str, source: str, consumer: str, **more: str
) -> DeadLetter:
    """Wrap `value`, as it was received, for the dead-letter `topic`.

    `reason` is the error's text. `source` is where the value stands: `recording:/p/file.gz:123` or `trades/3/1789`.
    `consumer` is who writes it: the consumer group, `ashi-ingest` for a worker that reads an exchange.
    `more` become headers too (`ashi.<name>`), such as `partition` and `offset` of a record of `trades`.
    `ashi.failed_at` is now, in µs since the epoch. A value that was cut has its full length in `ashi.full_length`; a
    key of more than 1,000 bytes is cut as well.
    """
    texts = {"reason": reason, "source": source, "consumer": consumer, "failed_at": str(now_us())}
    texts |= more
    if value is not None and len(value) > MAX_VALUE_BYTES:
        texts["full_length"] = str(len(value))
    headers: Headers = [("content-type", b"application/octet-stream")]
    for name, text in texts.items():
        # Reasons quote what was received, which may hold lone surrogates; a header must not fail for them.
        headers.append((f"ashi.{name}", text[:MAX_HEADER_CHARACTERS].encode(errors="backslashreplace")))
    return DeadLetter(topic, key and key[:MAX_KEY_BYTES], value and value[:MAX_VALUE_BYTES], headers)


def trade_place(headers: Iterable[tuple[str, bytes]]) -> tuple[int, int] | None:
    """The partition and offset in topic `trades` of the record that a letter in `trades.late` or `trades.dead` quotes.

    From headers of their own; a letter of a version that had none tells it by its source. None for a letter about
    something else, such as a frame of an exchange, and for what is no letter.
    """
    texts = dict(headers)
    try:
        if "ashi.partition" in texts:
            return int(texts["ashi.partition"]), int(texts["ashi.offset"])
        topic, partition, offset = texts["ashi.source"].decode().split("/")
        return (int(partition), int(offset)) if topic == TRADES else None
    except (KeyError, ValueError):
        return None
