"""Whoever has nothing but docs/messages.md reads every topic of a deployment, and comes to the right candles."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from foreign_client import ForeignProducer, Sent, transactional
from foreign_samples import MINUTE_US, NAMES, PAUSING, SYMBOLS, make_trades, pausing_trades, records_of
from jsonschema import Draft7Validator
from strict_reader import LETTERS, TOPICS, Known, read_everything
from waiting import all_committed

from ashi.client import Settings
from ashi.contracts import Trade, encode_trade
from ashi.contracts.feed import FEED_GAP_SCHEMA, FEED_STATUS_SCHEMA, FeedGap, FeedStatus, FeedWorker, encode_feed
from ashi.contracts.instrument import INSTRUMENT_SCHEMA, Instrument, encode_instrument
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, FEED_GAPS, FEED_STATUS, INSTRUMENTS, SIGNALS, TRADES
from ashi_ingest.publish.publisher import open_publisher
from ashi_ingest.venues.parsing import Rejected
from oracle import candles_of, closed, timely, unique
from samples.hypothesis_strategies import START

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
FOLLOWED = SYMBOLS[0]
KNOWN_UNTIL = START + 10 * MINUTE_US
MISSED = "missed"


def gap_messages() -> list[FeedGap]:
    """Of one symbol: minute 1 was repaired, minute 3 is lost, of minute 5 a microsecond, and the present is open."""

    def gap(minute: int, length: int | None, state: Any, updated_at: int) -> FeedGap:
        begin = START + minute * MINUTE_US
        return FeedGap(FOLLOWED, begin, None if length is None else begin + length, state, 0, "silent", updated_at)

    return [
        gap(1, None, "open", START),
        gap(1, MINUTE_US, "repaired", START + 2),
        gap(1, None, "open", START + 1),  # of a worker that was slow
        gap(3, MINUTE_US, "lost", START),
        gap(5, 0, "open", START),
        gap(8, None, "open", START),
    ]


def statuses() -> list[FeedStatus]:
    worker = FeedWorker("ingest-0/1", "connected", START, redundant=False, complete_until=KNOWN_UNTIL)
    return [
        FeedStatus(FOLLOWED, "down", START, "cannot connect", None, None, START),
        FeedStatus(FOLLOWED, "connected", START, None, "1", START, START, KNOWN_UNTIL, (worker,)),
        FeedStatus(PAUSING, "repairing", START, None, None, None, START, None, ()),
    ]


def instruments() -> list[Instrument]:
    return [
        Instrument(FOLLOWED, None, None, None, None, "halted", START),
        Instrument(FOLLOWED, "S0", "USDT", Decimal("0.01"), Decimal("1E-8"), "trading", START),
    ]


async def publish_as_ashi_does(settings: Settings, log: list[Trade]) -> None:
    async with open_publisher(settings, "binance", live=True) as publisher:
        await publisher.publish(log)
        await publisher.flush()
        await all_committed(settings, AGGREGATE_APP, TRADES)
        await publisher.publish([log[-1], log[-1]])  # again
        await publisher.publish([late_trade(log)], late=True)  # what is closed is corrected
        await publisher.reject([Rejected(b"\xff no frame", "no JSON", None, None)], "feed:binance/0/1")
        for gap in gap_messages():
            await publisher.announce(FEED_GAPS, gap.symbol, encode_feed(gap), FEED_GAP_SCHEMA)
        for status in statuses():
            await publisher.announce(FEED_STATUS, status.symbol, encode_feed(status), FEED_STATUS_SCHEMA)
        for each in instruments():
            await publisher.announce(INSTRUMENTS, each.symbol, encode_instrument(each), INSTRUMENT_SCHEMA)


def late_trade(log: list[Trade]) -> Trade:
    """Within the horizon: it is to correct candles that are closed."""
    last = log[-1]
    at = last.traded_at - 2 * MINUTE_US
    return Trade(last.symbol, MISSED, Decimal(99), Decimal(1), None, at, at, 0)


def others_trades() -> list[Trade]:
    """What another team publishes, of a symbol of its own, as JSON numbers and without headers."""
    return [
        Trade("another:MARKET", str(number), Decimal(number + 1) / 4, Decimal("1E-8"), "sell", at, at, number)
        for number in range(30)
        for at in (START + number * 10_000_000,)
    ]


def as_numbers(trade: Trade) -> Sent:
    fields = json.loads(encode_trade(trade))
    fields["price"], fields["size"] = float(fields["price"]), float(fields["size"])  # 1e-08
    return TRADES, trade.symbol.encode(), json.dumps(fields).encode()


def refused_trade() -> Sent:
    """In minute 2 of a symbol; it leaves a gap there."""
    fields = json.loads(encode_trade(make_trades(1, seed=1)[0])) | {"symbol": FOLLOWED, "traded_at": START}
    fields |= {"price": "NaN", "traded_at": START + 2 * MINUTE_US + 7, "received_at": START + 2 * MINUTE_US + 7}
    return TRADES, FOLLOWED.encode(), json.dumps(fields).encode()


class ByTheContract:
    """Holds records against `docs/contracts/asyncapi.json`: keys, headers, values; of each topic the first hundreds."""

    def __init__(self) -> None:
        contract = json.loads((ROOT / "docs" / "contracts" / "asyncapi.json").read_text(encoding="utf-8"))
        schemas = {
            name: schema | {"additionalProperties": False} for name, schema in contract["components"]["schemas"].items()
        }
        self._messages = {
            topic: [
                Draft7Validator({**message["headers"], "additionalProperties": False}),
                Draft7Validator(message["bindings"]["kafka"]["key"]),
                Draft7Validator(schemas.get(message["name"], {})),  # of letters none
            ]
            for topic, message in contract["components"]["messages"].items()
        }
        self.seen: Counter[str] = Counter()

    def look(self, topic: str, record: Any) -> None:
        headers = {name: value.decode() for name, value in record.headers() or []}
        if self.seen[topic] >= 300 or (topic == TRADES and not headers):  # what others write has another form
            return
        self.seen[topic] += 1
        of_headers, of_key, of_value = self._messages[topic]
        of_headers.validate(headers)
        of_key.validate(record.key() and record.key().decode())
        if topic not in LETTERS:  # which need be no JSON
            of_value.validate(json.loads(record.value()))


def test_a_reader_written_from_the_page_reads_every_topic(
    kafka_settings: Settings, start_stage: Any, tmp_path: Path
) -> None:
    log = [*make_trades(3_000, seed=13), *pausing_trades()]
    others = others_trades()
    foreign = ForeignProducer(kafka_settings)
    worker = start_stage("aggregate", ASHI_CHECKPOINT_INTERVAL="100ms")
    sink = start_stage("sink", "sqlite", ASHI_STORAGE=f"sqlite:///{tmp_path}/candles.db")

    async def scenario() -> Known:
        await publish_as_ashi_does(kafka_settings, log)
        foreign.send([*map(as_numbers, others), refused_trade()])
        aborting = transactional(kafka_settings, "a-team")
        with aborting.transaction(aborted=True):
            aborting.send(records_of(make_trades(50, seed=14)))
        await all_committed(kafka_settings, AGGREGATE_APP, TRADES)
        foreign.send([(CANDLES, None, b"no candle")])
        await all_committed(kafka_settings, "ashi-sink-sqlite", CANDLES, FEED_GAPS, FEED_STATUS)
        for stage in (worker, sink):
            assert stage.process.poll() is None, stage.log.read_text()[-3_000:]
        return await asyncio.to_thread(read_everything, kafka_settings.kafka_bootstrap, contract.look)

    contract = ByTheContract()
    known = asyncio.run(scenario())
    assert contract.seen.keys() == {*TOPICS, *LETTERS} - {SIGNALS}, "some topic was empty"
    all_trades = unique([*log, late_trade(log), *others])
    right = closed(candles_of(timely(all_trades, "1m", 120_000_000), NAMES), all_trades, 2_000_000)
    found = {
        key: {name: value for name, value in vars(candle).items() if name in right[key]}
        for key, candle in known.candles.by_key.items()
    }
    assert found == right
    assert known.candles.replaced >= 1  # the minute of the late trade, which was flat
    assert sum(candle.trade_count == 0 for candle in known.candles.by_key.values()) >= 10
    # No update has a greater version than the candle that closed it; those of equal ones are equal.
    assert {update.symbol for update in known.updates} >= {symbol for symbol, _, _ in right}
    for update in known.updates:
        candle = known.candles.by_key.get((update.symbol, update.timeframe, update.open_time))
        assert candle is None or update.version < candle.version or update == candle
    # From its own reading of `trades` and `trades.late` the reader comes to the same candles.
    assert closed(candles_of(list(known.counted()), NAMES), [of for of, _ in known.trades.values()], 2_000_000) == right
    assert known.late_header == {MISSED}
    assert len(known.trades) - len(list(known.counted())) > 10

    assert [(topic, value) for topic, value, _ in known.refused] == [refused_trade()[::2], (CANDLES, b"no candle")]
    letters = {
        topic: [each for each in known.letters if each.topic == topic] for topic in ("trades.dead", "candles.dead")
    }
    assert {each.value for each in letters["trades.dead"]} == {b"\xff no frame", refused_trade()[2]}
    assert {each.headers["ashi.consumer"] for each in letters["trades.dead"]} == {"ashi-ingest", AGGREGATE_APP}
    assert {each.headers.get("ashi.venue") for each in letters["trades.dead"]} == {"binance", None}
    assert [(each.key, each.value) for each in letters["candles.dead"]] == [(None, b"no candle")]

    minutes = {
        (start - START) // MINUTE_US: known.is_complete(candle)
        for (symbol, timeframe, start), candle in known.candles.by_key.items()
        if (symbol, timeframe) == (FOLLOWED, "1m")
    }
    assert len(minutes) > 10
    counted = {id(trade) for trade in known.counted()}
    lacking = {
        (trade.traded_at - START) // MINUTE_US
        for trade, _ in known.trades.values()
        if trade.symbol == FOLLOWED and id(trade) not in counted
    }
    assert {0, 6} <= lacking, "the feed knows of no gap there, and the trades came too late"
    assert {minute for minute, complete in minutes.items() if complete} == {0, 1, 4, 6, 7} - lacking
    assert not any(known.is_complete(one) for one in known.candles.by_key.values() if one.symbol != FOLLOWED)
    assert {symbol: one.state for symbol, one in known.statuses.by_key.items()} == {
        FOLLOWED: "connected",
        PAUSING: "repairing",
    }
    assert {symbol: one.lot_size for symbol, one in known.instruments.by_key.items()} == {FOLLOWED: Decimal("1E-8")}
