"""What a lake has kept comes back into the topics: each trade once, in order, wherever it was broken off."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from lake_trades import a_trade, as_rows, write
from sink_samples import a_candle, a_gap, a_status

from ashi.contracts import Trade
from ashi.contracts.candle import make_version
from ashi.contracts.errors import StorageError
from ashi.contracts.records import SINCE_HEADER, feed_gap_in, feed_status_in, time_in, trade_in
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES
from ashi.contracts.trade import MAX_AHEAD_US
from ashi.runtime.kafka.consuming.records import read_topic
from ashi_sinks.lake import publish
from ashi_sinks.lake.location import Lake, lake_of
from ashi_sinks.lake.publish import publish_lake
from ashi_sinks.lake.trades import LakeTrades
from ashi_sinks.registry import make_sink

OTHER = "bitflyer:BTC_JPY"


class BrokenOffError(Exception):
    pass


@pytest.fixture
def lake(tmp_path: Any) -> Lake:
    return lake_of(f"lake:///{tmp_path}/lake")


def fill(lake: Lake, url: str) -> dict[str, list[Trade]]:
    """Two symbols, a trade in disorder, one that was published twice; a candle, a gap and a status beside them."""
    trades = [a_trade(number) for number in range(40)]
    others = [a_trade(number, OTHER) for number in range(40)]
    logged = [*trades[:10], trades[11], trades[10], *trades[11:], trades[5]]
    write(lake, as_rows(logged, 0), as_rows(others, 1))

    async def keep() -> None:
        sink = make_sink(url)
        await sink.open()
        await sink.write([a_candle(version=make_version(4, 9))])
        await sink.write_gaps([a_gap(), a_gap(symbol=OTHER)])
        await sink.write_statuses([a_status(1), a_status(2, OTHER)])
        await sink.close()

    asyncio.run(keep())
    return {trades[0].symbol: trades, OTHER: others}


async def messages(settings: Any, topic: str) -> list[Any]:
    return [record async for record in read_topic(settings, topic)]


async def published(settings: Any) -> dict[str, list[Trade]]:
    found: dict[str, list[Trade]] = {}
    for record in await messages(settings, TRADES):
        trade = trade_in(record)
        found.setdefault(trade.symbol, []).append(trade)
    return found


def test_a_lake_is_published_once_and_in_order_wherever_it_is_broken_off(kafka_settings, lake, tmp_path, monkeypatch):
    wanted = fill(lake, f"lake:///{tmp_path}/lake")
    said: list[str] = []
    monkeypatch.setattr(publish, "BATCH", 7)
    real = publish.RecordBatches.send

    async def scenario() -> None:
        for calls in (2, 5):
            left = iter(range(calls))

            async def some(self: Any, *arguments: Any, left: Any = left) -> Any:
                if next(left, None) is None:
                    await asyncio.sleep(0.2)  # what was sent is acknowledged, or not
                    raise BrokenOffError
                return await real(self, *arguments)

            with monkeypatch.context() as patch:
                patch.setattr(publish.RecordBatches, "send", some)
                with pytest.raises(BrokenOffError):
                    await publish_lake(kafka_settings, lake, tell=said.append)
        for _ in range(2):
            await publish_lake(kafka_settings, lake, tell=said.append)
        assert await published(kafka_settings) == wanted
        assert "0 trades of 2 symbols, 2 gaps and 2 statuses" in said[-1]
        gaps = {feed_gap_in(record) for record in await messages(kafka_settings, FEED_GAPS)}
        assert {gap.symbol for gap in gaps} == set(wanted)
        statuses = [feed_status_in(record) for record in await messages(kafka_settings, FEED_STATUS)]
        assert {status.last_trade_id for status in statuses} == {"1", "2"}
        headers = [time_in(record.headers, SINCE_HEADER) for record in await messages(kafka_settings, TRADES)]
        assert set(headers) == {None}, "the lake has the log from its beginning"

    asyncio.run(scenario())


def test_what_the_lake_lacks_of_the_beginning_is_told_to_the_workers(kafka_settings, lake):
    """A symbol that is in the topic already, with newer trades, is left out."""
    trades = [a_trade(number) for number in range(20)]
    write(lake, as_rows(trades, 0, first=100), as_rows([a_trade(3, OTHER)], 1))

    async def scenario() -> None:
        table = LakeTrades(lake)
        await table.open()
        since = await table.missing_until(await table.snapshot())
        await table.close()
        assert since == trades[0].received_at + MAX_AHEAD_US
        bound = trades[10].traded_at
        said: list[str] = []
        await publish_lake(kafka_settings, lake, symbols=[trades[0].symbol], start=bound, tell=said.append)
        found = await messages(kafka_settings, TRADES)
        assert [trade_in(record) for record in found] == trades[10:]
        assert {time_in(record.headers, SINCE_HEADER) for record in found} == {max(since, bound)}
        await publish_lake(kafka_settings, lake, tell=said.append)
        assert f"{trades[0].symbol}: 0 trades published; 20 were left out" in "\n".join(said)
        assert len((await published(kafka_settings))[OTHER]) == 1

    asyncio.run(scenario())


def test_an_epoch_is_begun_beyond_those_of_a_store_and_a_store_is_filled_from_another(ashi, lake, tmp_path):
    url, store = f"lake:///{tmp_path}/lake", f"sqlite:///{tmp_path}/candles.db"
    fill(lake, url)
    status, out, error = ashi("aggregate", "reconfigure", "--beyond", url)
    assert (status, error) == (0, "")
    assert out.startswith("epoch 5: ")
    status, out, _ = ashi("aggregate", "reconfigure", "--beyond", url)
    assert out.splitlines()[1].startswith("epoch 6: ")

    status, out, error = ashi("sink", "sqlite", "--storage", store, "--restore-from", url)
    assert (status, error) == (0, "")
    assert out.splitlines() == [
        "candles: 1 read, 1 of them were missing or newer, 1 series",
        "gaps: 2 read, 2 were missing or newer",
        "statuses of feeds: 2 read, 2 were missing or newer",
    ]
    _, out, _ = ashi("sink", "sqlite", "--storage", store, "--restore-from", url)
    assert "1 read, 0 of them" in out

    async def newer() -> None:
        sink = make_sink(store)
        await sink.open()
        await sink.write([msgspec.structs.replace(a_candle(), version=make_version(5, 1))])
        await sink.close()

    asyncio.run(newer())
    ashi("sink", "sqlite", "--storage", store, "--restore-from", url)
    status, out, _ = ashi("aggregate", "reconfigure", "--beyond", store, "--beyond", url)
    assert out.splitlines()[1].startswith("epoch 7: ")
    empty = f"sqlite:///{tmp_path}/empty.db"
    asyncio.run(made(empty))
    status, _, error = ashi("sink", "sqlite", "--storage", store, "--restore-from", empty)
    assert (status, "holds no candles" in error) == (1, True)


async def made(url: str) -> None:
    sink = make_sink(url)
    await sink.open()
    await sink.close()


def test_a_lake_without_trades_says_how_to_keep_them(kafka_settings, lake, tmp_path):
    async def scenario() -> None:
        table = LakeTrades(lake)
        await table.open_or_make()
        await table.close()
        with pytest.raises(StorageError, match="ashi sink lake --topic trades"):
            await publish_lake(kafka_settings, lake, tell=print)

    asyncio.run(scenario())
