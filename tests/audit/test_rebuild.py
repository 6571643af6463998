"""`ashi rebuild` on a real Kafka, with workers that go on."""

from __future__ import annotations

import asyncio
import signal
import time
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from verifying import (
    HORIZON,
    MINUTE,
    NAMES,
    SETTLED,
    SYMBOLS,
    as_json,
    expire,
    iso,
    publish,
    published,
    reached,
    some_trades,
    span,
)

from ashi.client import Completeness
from ashi.contracts import Trade, decode_trade
from ashi.contracts.candle import EPOCH_BITS
from ashi.contracts.errors import StateError
from ashi.contracts.feed import FeedGap, FeedStatus, decode_feed_gap
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, FEED_GAPS, META, TRADES
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_aggregate.epoch import Epoch, Rebuilt, claim_rebuild, last_rebuild, require_epoch
from ashi_aggregate.reconfigure import reconfigure
from ashi_sinks.worker import sink_group
from oracle import candles_of, closed, stored, timely, unique
from samples.hypothesis_strategies import START

pytestmark = pytest.mark.kafka


def settled(expected: dict[Any, Any], log: list[Trade]) -> dict[Any, Any]:
    """Of the oracle's candles those that are surely final."""
    newest: dict[str, int] = {}
    for trade in log:
        newest[trade.symbol] = max(newest.get(trade.symbol, 0), trade.traded_at)
    return {key: value for key, value in expected.items() if value["close_time"] + SETTLED <= newest[key[0]]}


async def gap_messages(settings: Settings) -> list[FeedGap]:
    return [decode_feed_gap(record.value) async for record in read_topic(settings, FEED_GAPS)]


def called_complete(settings: Settings, log: list[Trade]) -> dict[Any, Any]:
    """The candles that readers have, and take for complete when the feeds have compared everything."""
    completeness = Completeness()
    for symbol in SYMBOLS:
        until = max(trade.traded_at for trade in log) + 24 * 60 * MINUTE
        completeness.update(FeedStatus(symbol, "connected", START, None, None, None, START, until))
    for gap in asyncio.run(gap_messages(settings)):
        completeness.update(gap)
    best: dict[Any, Any] = {}
    for candle in asyncio.run(published(settings)):
        key = candle.symbol, candle.timeframe, candle.open_time
        if key not in best or candle.version > best[key].version:
            best[key] = candle
    return stored([candle for candle in best.values() if completeness.is_complete(candle)])


def test_late_trades_come_into_candles_while_workers_go_on_and_a_reconfiguration_wins(
    kafka_settings, start_stage, ashi, tmp_path
):
    settings = kafka_settings
    url = f"sqlite:///{tmp_path}/candles.db"
    log = some_trades(10_000, seed=1, step_us=600_000)
    workers = [start_stage("aggregate"), start_stage("aggregate")]
    start_stage("sink", "sqlite", ASHI_STORAGE=url)
    asyncio.run(publish(settings, log))
    asyncio.run(reached(settings, AGGREGATE_APP, TRADES))

    status, out, err = ashi("verify", url, "--trades")
    assert status == 0, out + err
    assert " 0 differ, " in out
    assert "explained: 1 trade came too late for it" in out
    before = asyncio.run(published(settings))
    live = closed(candles_of(unique(timely(log, "1m", HORIZON)), NAMES), log, 2_000_000)
    assert stored(before) == live

    # Of the candles that lack a late trade none is called complete; most others are.
    every = closed(candles_of(unique(log), NAMES), log, 2_000_000)
    must = settled(every, log)
    complete = called_complete(settings, log)
    assert {key: every[key] for key in complete if every[key]["trade_count"]} == {
        key: value for key, value in complete.items() if value["trade_count"]
    }
    lacking = {key for key in live if live[key] != every[key] and every[key]["trade_count"]}
    assert len([key for key in complete if key[1] == "1m"]) > len([key for key in live if key[1] == "1m"]) / 2
    told = asyncio.run(gap_messages(settings))
    assert {(gap.state, gap.final) for gap in told} == {("lost", True)}

    status, out, _ = ashi("rebuild", *span(), "--dry-run")
    assert status == 0
    assert "would be published" in out
    assert "of trades that came too late would be repaired, in topic feed.gaps" in out
    assert len(asyncio.run(gap_messages(settings))) == len(told)
    assert out.splitlines()[0].split()[-2:] == ["published", "rebuilt"], "no column for reasons there are none of"
    assert len(asyncio.run(published(settings))) == len(before)
    assert asyncio.run(last_rebuild(settings)) == -1

    status, out, _ = ashi("rebuild", *span())
    assert status == 0
    assert "were published, in epoch 1" in out
    after = asyncio.run(published(settings))
    kept = stored(after)
    assert {key: kept[key] for key in must} == must
    assert {key for key in must if live.get(key) != must[key]}, "no late trade changed anything: the test is void"
    rebuilt = {(c.symbol, c.timeframe, c.open_time) for c in after[:] if c.version >> EPOCH_BITS == 1}
    assert rebuilt == {key for key in must if live.get(key) != must[key]}, "what is right is not published again"

    # What was rebuilt is complete again where all of its candles are final: the hour too that it is in.
    complete = called_complete(settings, log)
    assert {key: every[key] for key in complete if every[key]["trade_count"]} == {
        key: value for key, value in complete.items() if value["trade_count"]
    }
    final_hours = {(key[0], key[2]) for key in must if key[1] == "1h"}
    in_final_hours = {key for key in must if (key[0], key[2] - key[2] % (60 * MINUTE)) in final_hours}
    assert in_final_hours & lacking
    assert in_final_hours <= complete.keys()
    ended = asyncio.run(gap_messages(settings))

    status, out, _ = ashi("rebuild", *span())
    assert "nothing is to be published" in out
    assert len(asyncio.run(published(settings))) == len(after)
    assert len(asyncio.run(gap_messages(settings))) == len(ended)

    asyncio.run(reached(settings, sink_group("sqlite"), CANDLES))
    status, out, _ = ashi("verify", url, "--trades", "--to", iso(min(key[2] for key in every) + 2_700_000_000))
    assert status == 0
    assert " 0 differ, 0 differ as explained" in out

    # The workers go on in their epoch, and what they publish now is as it should be.
    more = some_trades(2_000, seed=2, begin=max(trade.traded_at for trade in log), step_us=600_000)
    asyncio.run(publish(settings, more))
    asyncio.run(reached(settings, AGGREGATE_APP, TRADES))
    assert all(worker.process.poll() is None for worker in workers)
    newer = asyncio.run(published(settings))[len(after) :]
    assert newer
    assert {candle.version >> EPOCH_BITS for candle in asyncio.run(published(settings))} == {0, 1}
    status, out, err = ashi("verify", url, "--trades")
    assert status == 0, out + err

    # Workers that are moved to another partition look at the epoch: a rebuild is none.
    workers.append(start_stage("aggregate"))
    workers[-1].wait_for("ready")
    workers[0].signal(signal.SIGTERM)
    assert workers.pop(0).process.wait(25) == 0
    asyncio.run(publish(settings, some_trades(100, seed=3, begin=max(trade.traded_at for trade in more))))
    asyncio.run(reached(settings, AGGREGATE_APP, TRADES))
    assert all(worker.process.poll() is None for worker in workers)

    for worker in workers:
        worker.signal(signal.SIGTERM)
    assert [worker.process.wait(25) for worker in workers] == [0, 0]
    status, out, _ = ashi("aggregate", "reconfigure")
    assert "epoch 2: ASHI_TIMEFRAMES" in out
    start_stage("aggregate")
    deadline = time.monotonic() + 60
    while True:
        anew = stored([candle for candle in asyncio.run(published(settings)) if candle.version >> EPOCH_BITS == 2])
        if {key: anew.get(key) for key in live} == live and not lacking & called_complete(settings, log).keys():
            break
        assert time.monotonic() < deadline, f"{len(anew)} of {len(live)}"
        time.sleep(0.3)
    kept = stored(asyncio.run(published(settings)))
    assert {key: kept[key] for key in live} == live, "the new state takes the place of rebuilt candles"


def test_only_the_range_and_the_symbols_asked_for_are_published(kafka_settings, start_stage, ashi):
    log = some_trades(6_000, seed=4)
    start_stage("aggregate")
    asyncio.run(publish(kafka_settings, log))
    asyncio.run(reached(kafka_settings, AGGREGATE_APP, TRADES))
    before = asyncio.run(published(kafka_settings))
    begin, end = START + 5 * MINUTE, START + 15 * MINUTE
    status, _, err = ashi("rebuild", *span(begin, end), "--symbol", SYMBOLS[2], "--symbol", SYMBOLS[3])
    assert status == 0
    assert "came too late and not in topic" not in err, "the late trades from before the range are not known"
    new = asyncio.run(published(kafka_settings))[:]
    new = [candle for candle in new if candle.version >> EPOCH_BITS == 1]
    assert new
    assert len(new) + len(before) == len(asyncio.run(published(kafka_settings)))
    assert {candle.symbol for candle in new} <= {SYMBOLS[2], SYMBOLS[3]}
    assert all(begin <= candle.open_time < end for candle in new if candle.trade_count)
    every = candles_of(unique(log), NAMES)
    assert all(stored([c]) == {k: every[k] for k in stored([c])} for c in new if c.trade_count)


def test_a_range_in_which_nothing_is_final_publishes_nothing_and_says_so(kafka_settings, start_stage, ashi):
    trades = [
        Trade(SYMBOLS[0], str(n), Decimal(5), Decimal(1), "buy", START + n * 10**6, START + n * 10**6, n)
        for n in range(150)
    ]
    start_stage("aggregate")
    asyncio.run(publish(kafka_settings, trades))
    asyncio.run(reached(kafka_settings, AGGREGATE_APP, TRADES))
    status, out, err = ashi("rebuild", *span())
    assert (status, "nothing is to be published" in out) == (0, True)
    assert "not final yet" in err
    status, out, err = ashi("rebuild", *span(), "--symbol", SYMBOLS[0], "--symbol", "binance:s0usdt")
    assert (status, out) == (2, "")
    assert "there are no trades of binance:s0usdt in topic trades from 2" in err
    assert "; did you mean binance:S0USDT? Trades" in err


def test_without_workers_ever_there_is_nothing_to_rebuild(kafka_settings, ashi):
    asyncio.run(publish(kafka_settings, some_trades(10, seed=5)))
    status, _, err = ashi("rebuild", *span())
    assert status == 1
    assert "no aggregate worker has ever run" in err


async def write_meta(settings: Settings, key: bytes, value: Any) -> None:
    producer = make_producer(settings)
    await producer.start()
    await producer.send_and_wait(META, key=key, value=msgspec.json.encode(value))
    await producer.stop()


def test_of_two_rebuilds_at_once_one_gives_way_and_numbers_never_repeat(kafka_settings):
    settings = kafka_settings

    async def scenario() -> None:
        await reconfigure(settings)
        epoch = await require_epoch(settings)
        assert await claim_rebuild(settings, epoch, -1, 0, 1) == 1
        with pytest.raises(StateError, match="another `ashi rebuild`"):
            await claim_rebuild(settings, epoch, -1, 0, 1)
        last = await last_rebuild(settings)
        assert last == 1
        assert await claim_rebuild(settings, epoch, last, 0, 1) == 2
        _, after = await reconfigure(settings)
        assert after.epoch == 3
        with pytest.raises(StateError, match="reconfigure"):
            await claim_rebuild(settings, epoch, 2, 0, 1)
        # The claim that was given up is still a number that was taken.
        _, again = await reconfigure(settings)
        assert again.epoch == 4
        assert await require_epoch(settings) == again

    asyncio.run(scenario())


def test_a_reconfiguration_does_not_take_the_number_of_a_rebuild_that_came_in_between(kafka_settings, monkeypatch):
    """It looks at rebuilds, then a rebuild takes the next number, then it writes the same number down."""
    settings = kafka_settings
    import ashi_aggregate.reconfigure as module

    real = module.write_epoch

    async def late(of: Settings, epoch: Epoch) -> None:
        monkeypatch.setattr(module, "write_epoch", real)
        await write_meta(settings, b"rebuild-1-x", Rebuilt(epoch.epoch, 0, 0, 1, 0))
        await real(of, epoch)

    async def scenario() -> None:
        await reconfigure(settings)
        monkeypatch.setattr(module, "write_epoch", late)
        _, after = await reconfigure(settings)
        assert after.epoch == 2
        assert await require_epoch(settings) == after

    asyncio.run(scenario())


def test_no_number_beyond_the_last_epoch_is_taken(kafka_settings):
    async def scenario() -> None:
        await reconfigure(kafka_settings)
        await write_meta(kafka_settings, b"rebuild-8191-x", Rebuilt(8191, 0, 0, 1, 0))
        epoch = await require_epoch(kafka_settings)
        with pytest.raises(StateError, match="is the last one"):
            await claim_rebuild(kafka_settings, epoch, 8191, 0, 1)
        with pytest.raises(StateError, match="is the last one"):
            await reconfigure(kafka_settings)

    asyncio.run(scenario())


def test_trades_kept_in_a_lake_serve_where_the_topic_no_longer_has_them(kafka_settings, start_stage, ashi, tmp_path):
    pytest.importorskip("deltalake")
    from ashi_sinks.lake.location import lake_of
    from ashi_sinks.lake.tables import StoredTrade
    from ashi_sinks.lake.trades import LakeTrades

    settings, lake, url = kafka_settings, f"lake:///{tmp_path}/lake", f"sqlite:///{tmp_path}/candles.db"
    log = some_trades(8_000, seed=6)
    start_stage("aggregate")
    start_stage("sink", "sqlite", ASHI_STORAGE=url)
    asyncio.run(publish(settings, log))
    asyncio.run(reached(settings, AGGREGATE_APP, TRADES))

    async def keep() -> None:
        table = LakeTrades(lake_of(lake))
        await table.open_or_make()
        await table.write(
            [StoredTrade(r.partition, r.offset, decode_trade(r.value)) async for r in read_topic(settings, TRADES)]
        )
        await table.close()

    asyncio.run(keep())
    asyncio.run(expire(settings, TRADES, 0.9))
    chosen = [word for symbol in SYMBOLS[1:4] for word in ("--symbol", symbol)]
    begin = START + MINUTE
    status, out, err = ashi("verify", url, "--trades", lake, "--from", iso(begin), "--json", *chosen)
    rows, summary = as_json(out)
    assert [row for row in rows if not row["explained"]] == [], err
    assert status == 0
    assert summary["explained"] > 0

    # By the native fold, as it is here, and by Python.
    _, out, err = ashi("rebuild", *span(begin), "--trades", lake, *chosen, "--dry-run")
    assert "Python" not in err
    with pytest.MonkeyPatch.context() as without:
        without.setenv("ASHI_NATIVE_FOLD", "off")
        assert ashi("rebuild", *span(begin), "--trades", lake, *chosen, "--dry-run") == (0, out, err)
    status, out, _ = ashi("rebuild", *span(begin), "--trades", lake, *chosen)
    assert (status, "were published, in epoch 1" in out) == (0, True)
    every = closed(candles_of(unique(log), NAMES), log, 2_000_000)
    must = {key: value for key, value in settled(every, log).items() if key[2] >= begin and key[0] in chosen}
    kept = stored(asyncio.run(published(settings)))
    assert {key: kept[key] for key in must} == must
    status, out, _ = ashi("rebuild", *span(begin), "--trades", lake, *chosen)
    assert "nothing is to be published" in out

    status, _, err = ashi("verify", url, "--trades", lake)
    assert (status, "--from" in err) == (2, True)
