"""`ashi history export` and `import`: what goes out of a topic comes into another as it was, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from exported_trades import BEGIN, DAY_US, SYMBOL, some_trades
from msgspec.structs import replace

from ashi.contracts.errors import EXIT_INTERRUPTED
from ashi.contracts.feed import FEED_GAP_SCHEMA, FeedGap, encode_feed
from ashi.contracts.records import SINCE_HEADER, feed_gap_in, time_in, trade_in
from ashi.contracts.topics import FEED_GAPS, TRADES
from ashi.contracts.trade import EARLIEST_US, Trade, encode_trade
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.kafka.producing.record_batches import RecordBatches
from ashi.runtime.settings import Settings
from ashi_history import importing
from ashi_history.fetched_files import FetchedFiles
from kafka_topics.fresh_topics import renew_topics

pytestmark = pytest.mark.kafka

OTHER = "gmo:ETH"
SPAN = "--from", "2023-11-14", "--to", "2023-11-17"


def as_logged(trades: list[Trade]) -> list[Trade]:
    """As an outage leaves them: some are repaired after later ones have come, some come twice."""
    return [*trades[:100], *trades[150:300], *trades[100:150], *trades[290:], trades[5]]


async def publish(settings: Settings, trades: list[Trade], gaps: list[FeedGap]) -> None:
    producer = make_producer(settings)
    await producer.start()
    headers = message_headers(FEED_GAP_SCHEMA)
    sent = [await producer.send(TRADES, key=each.symbol.encode(), value=encode_trade(each)) for each in trades]
    sent += [await producer.send(FEED_GAPS, encode_feed(gap), gap.symbol.encode(), headers=headers) for gap in gaps]
    await asyncio.gather(*sent)
    await producer.stop()


async def records_of(settings: Settings, topic: str, symbol: str) -> list[Any]:
    return [record async for record in read_topic(settings, topic) if record.key == symbol.encode()]


def killed_after(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, left: list[int]) -> None:
    """The process ends when that method has been called so often."""
    method = getattr(owner, name)

    def killing(self: Any, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, killing)


def test_a_topic_moves_to_another_kafka_killed_on_both_sides(kafka_settings, ashi, tmp_path, monkeypatch):
    trades, others = some_trades(), some_trades(OTHER, 60)
    lost = FeedGap(SYMBOL, BEGIN + DAY_US, BEGIN + DAY_US + 7, "lost", 0, "mute", BEGIN, final=True)
    before = FeedGap(SYMBOL, EARLIEST_US, BEGIN + 1, "lost", 0, "not read before", BEGIN)
    asyncio.run(publish(kafka_settings, as_logged(trades) + others, [before, lost]))
    assert "there are no trades of gmo:LTC" in ashi("history", "export", *SPAN, "--symbol", "gmo:LTC")[2]

    left = [10**6]
    killed_after(monkeypatch, FetchedFiles, "_append", left)
    monkeypatch.setattr("ashi_history.export.WRITTEN_AT_ONCE", 100)
    export = ("history", "export", *SPAN, "--into", str(tmp_path))
    for survived in (2, 1):
        left[0] = survived
        assert ashi(*export)[0] == EXIT_INTERRUPTED
    left[0] = 10**6
    status, out, err = ashi(*export)
    assert status == 0, out + err
    assert "gmo:BTC: 600 trades in 3 files" in out
    assert "gmo:ETH: 60 trades in 3 files" in out
    assert "trades may be missing from 2023-11-15T00:00:00Z to 2023-11-15T00:00:00Z: mute" in out

    asyncio.run(renew_topics(kafka_settings))
    monkeypatch.setattr(importing, "BATCH", 150)
    sends = [10**6]
    killed_after(monkeypatch, RecordBatches, "send", sends)
    take_in = ("history", "import", str(tmp_path))
    for survived in (1, 2):
        sends[0] = survived
        assert ashi(*take_in)[0] == EXIT_INTERRUPTED
    sends[0] = 10**6
    status, out, err = ashi(*take_in)
    assert status == 0, out + err
    status, out, _ = ashi(*take_in)
    assert (status, "gmo:BTC: 0 trades published to trades; 600 were there" in out) == (0, True)
    records = asyncio.run(records_of(kafka_settings, TRADES, SYMBOL))
    assert [trade_in(record) for record in records] == trades
    assert {time_in(record.headers, SINCE_HEADER) for record in records} <= {BEGIN, BEGIN + 1}
    assert [trade_in(record) for record in asyncio.run(records_of(kafka_settings, TRADES, OTHER))] == others
    gaps = [feed_gap_in(record) for record in asyncio.run(records_of(kafka_settings, FEED_GAPS, SYMBOL))]
    assert [(gap.from_time, gap.to_time, gap.state, gap.final) for gap in gaps] == [
        (EARLIEST_US, BEGIN + 1, "lost", False),
        (lost.from_time, lost.to_time, "lost", True),
    ], "told once, however often it was killed"

    asyncio.run(renew_topics(kafka_settings))
    live = replace(trades[300], trade_id="live")
    asyncio.run(publish(kafka_settings, [live], []))
    status, _, err = ashi(*take_in)
    assert status == 1
    assert "it would be late. Nothing was published" in err
    assert len(asyncio.run(records_of(kafka_settings, TRADES, SYMBOL))) == 1
