"""A reader by librdkafka, written from docs/messages.md alone, with the page's rules of what counts.

It must not import anything of Ashi, nor anything but the standard library and `confluent-kafka`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as Record
from strict_messages import Candle, Gap, Instrument, NotOnThePageError, Signal, Status, Trade, parse, require


@dataclass(frozen=True)
class Letter:
    topic: str
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]


TOPICS: dict[str, tuple[str, type[Any]]] = {
    "trades": ("ashi.trade.v1", Trade),
    "candles": ("ashi.candle.v1", Candle),
    "candles.live": ("ashi.candle.v1", Candle),
    "feed.gaps": ("ashi.feed-gap.v1", Gap),
    "feed.status": ("ashi.feed-status.v1", Status),
    "instruments": ("ashi.instrument.v1", Instrument),
    "signals": ("ashi.signal.v1", Signal),
}
LETTERS = ("trades.late", "trades.dead", "candles.dead")
OF_ALL_LETTERS = {"content-type", "ashi.reason", "ashi.source", "ashi.failed_at", "ashi.consumer"}
MORE_OF_LETTERS = {
    "trades.late": {"ashi.partition", "ashi.offset", "ashi.full_length"},
    "trades.dead": {"ashi.venue", "ashi.full_length"},
    "candles.dead": {"ashi.full_length"},
}


def records(bootstrap: str, topic: str) -> Iterator[Record]:
    """All that is committed of a topic, each partition in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "a-stranger",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        left = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
        while left:
            record = consumer.poll(30)
            require(record is not None, f"nothing comes of {topic}, partitions {left}")
            assert record is not None
            if (error := record.error()) is None:
                yield record
            else:
                require(error.code() == KafkaError._PARTITION_EOF, str(error))
                left.discard(record.partition() or 0)
    finally:
        consumer.close()


def message_in(topic: str, record: Record) -> Any:
    schema, kind = TOPICS[topic]
    headers = dict(record.headers() or [])
    named = headers.get("schema")
    require(named is None or named == schema.encode(), f"schema {named!r}")
    require(headers.get("content-type") in (None, b"application/json"), f"content-type {headers.get('content-type')!r}")
    value = record.value()
    require(value is not None, "no value")
    assert value is not None
    message = parse(kind, value, others_write=topic == "trades")
    key = f"{message.symbol}/{message.timeframe}" if topic == "candles.live" else message.symbol
    require(record.key() == key.encode(), f"key {record.key()!r} and not {key}")
    return message


def letter_in(topic: str, record: Record) -> Letter:
    headers: dict[str, str] = {}
    for header in record.headers() or []:
        assert isinstance(header, tuple)
        name, value = header
        require(name not in headers, f"header {name} stands twice")
        assert isinstance(value, bytes)
        headers[name] = value.decode()
    require(headers.keys() >= OF_ALL_LETTERS, f"{OF_ALL_LETTERS - headers.keys()} is not there")
    unknown = headers.keys() - OF_ALL_LETTERS - MORE_OF_LETTERS[topic]
    require(not unknown, f"headers {unknown}")
    require(headers["content-type"] == "application/octet-stream", headers["content-type"])
    require(all(len(text) <= 1_000 for text in headers.values()), "a long header")
    require(10**15 <= int(headers["ashi.failed_at"]) < 2**53, headers["ashi.failed_at"])
    if topic == "trades.late":
        place = f"trades/{int(headers['ashi.partition'])}/{int(headers['ashi.offset'])}"
        require(headers["ashi.source"] == place, headers["ashi.source"])
    return Letter(topic, record.key(), record.value(), headers)


_Message = TypeVar("_Message")


class Kept(Generic[_Message]):
    """Of each key the greatest rank, and the first of equals; without a rank the last."""

    def __init__(self, key: Callable[[_Message], Any], rank: Callable[[_Message], Any] | None = None) -> None:
        self._key, self._rank = key, rank
        self.by_key: dict[Any, _Message] = {}
        self.replaced = 0

    def take(self, message: _Message) -> None:
        known = self.by_key.get(self._key(message))
        if known is None or self._rank is None or self._rank(message) > self._rank(known):
            self.replaced += known is not None
            self.by_key[self._key(message)] = message


@dataclass
class Known:
    """All that the topics say, by the page's rules."""

    candles: Kept[Candle] = field(
        default_factory=lambda: Kept(lambda one: (one.symbol, one.timeframe, one.open_time), lambda one: one.version)
    )
    updates: list[Candle] = field(default_factory=list)
    gaps: Kept[Gap] = field(
        default_factory=lambda: Kept(lambda one: (one.symbol, one.from_time), lambda one: one.updated_at)
    )
    statuses: Kept[Status] = field(default_factory=lambda: Kept(lambda one: one.symbol))
    instruments: Kept[Instrument] = field(default_factory=lambda: Kept(lambda one: one.symbol))
    signals: Kept[Signal] = field(
        default_factory=lambda: Kept(
            lambda one: (one.strategy, one.symbol, one.timeframe, one.open_time),
            lambda one: (one.version, one.revision, one.status == "superseded"),
        )
    )
    trades: dict[tuple[str, str], tuple[Trade, tuple[int, int]]] = field(default_factory=dict)
    late_header: set[str] = field(default_factory=set)
    letters: list[Letter] = field(default_factory=list)
    refused: list[tuple[str, bytes | None, str]] = field(default_factory=list)

    def is_complete(self, candle: Candle) -> bool:
        status = self.statuses.by_key.get(candle.symbol)
        if status is None or status.complete_until is None or candle.close_time > status.complete_until:
            return False
        of_symbol = (gap for gap in self.gaps.by_key.values() if gap.symbol == candle.symbol)
        return not any(gap.state in ("open", "lost") and gap.overlaps(candle) for gap in of_symbol)

    def counted(self) -> Iterable[Trade]:
        """The first of each trade, but for those that came too late."""
        late = {
            (int(letter.headers["ashi.partition"]), int(letter.headers["ashi.offset"]))
            for letter in self.letters
            if letter.topic == "trades.late"
        }
        return [trade for trade, place in self.trades.values() if place not in late]


def read_everything(bootstrap: str, look: Callable[[str, Record], object] = lambda topic, record: None) -> Known:
    """All that the topics say; `look` is shown each record that holds a message, and each letter, with its topic."""
    known = Known()
    kept: dict[str, Kept[Any]] = {
        "candles": known.candles,
        "feed.gaps": known.gaps,
        "feed.status": known.statuses,
        "instruments": known.instruments,
        "signals": known.signals,
    }
    for topic in TOPICS:
        at: dict[str, set[int | None]] = defaultdict(set)
        for record in records(bootstrap, topic):
            try:
                message = message_in(topic, record)
            except NotOnThePageError as error:
                known.refused.append((topic, record.value(), str(error)))
                continue
            look(topic, record)
            at[message.symbol].add(record.partition())
            if topic == "candles.live":
                known.updates.append(message)
                continue
            if topic in kept:
                kept[topic].take(message)
                continue
            place = (record.partition() or 0, record.offset() or 0)
            known.trades.setdefault((message.symbol, message.trade_id), (message, place))
            if "ashi.late" in dict(record.headers() or []):
                known.late_header.add(message.trade_id)
        require(all(len(partitions) == 1 for partitions in at.values()), f"symbols in two partitions of {topic}")
    for topic in LETTERS:
        for record in records(bootstrap, topic):
            known.letters.append(letter_in(topic, record))
            look(topic, record)
    return known
