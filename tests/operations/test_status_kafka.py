"""`ashi status` of a deployment in a real Kafka."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from deployment_in_kafka import MINUTE, S, at_work, candle, commit_as_a_strategy, gap, now_us, status, write

from ashi.contracts.topics import AGGREGATE_APP, CANDLES, TRADES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.settings import Settings
from ashi_aggregate.epoch import agree_on_epoch
from ashi_cli.main import main
from ashi_operations.status.run import look_once
from ashi_operations.status.snapshot import Snapshot
from ashi_operations.status.watch import UNHEARD_OF, Watch

Ashi = Callable[..., tuple[int, str, str]]

SINK = "ashi-sink-sqlite"
STRATEGY = "ashi-strategy-ma_cross-1f"


def look(settings: Settings, *symbols: str, timeout_s: float = 20.0) -> Snapshot:
    return asyncio.run(look_once(settings, symbols, timeout_s))


def test_feeds_stages_stores_candles_and_what_is_wrong_are_seen_in_kafka(kafka_settings: Settings) -> None:
    close = now_us() // MINUTE * MINUTE

    async def scenario() -> tuple[Snapshot, Snapshot]:
        await agree_on_epoch(kafka_settings)
        await write(kafka_settings, [status("gmo:GONE", age_us=90 * S)])  # nothing else is heard of it
        await write(
            kafka_settings,
            [
                status("binance:BTCUSDT"),
                status("binance:ETHUSDT", "down", reason="the venue closed the connection"),
                gap("binance:ETHUSDT", "lost", close - MINUTE, close - 1, "REST does not answer"),
                *(candle("binance:BTCUSDT", close - back * MINUTE) for back in (2, 1, 0)),
                *((TRADES, "binance:BTCUSDT", b"{}", "") for _ in range(5)),
            ],
        )
        await commit_as_a_strategy(kafka_settings, STRATEGY)
        async with at_work(kafka_settings, AGGREGATE_APP, TRADES, left=3), at_work(kafka_settings, SINK, CANDLES):
            with_workers = await look_once(kafka_settings, [], 20.0)
        return with_workers, await look_once(kafka_settings, ["binance:BTCUSDT", "binance:BTCUSD"], 20.0)

    seen, later = asyncio.run(scenario())
    assert seen.unknown == []
    assert seen.brokers == 1
    assert seen.feeds is not None
    assert seen.feeds.states == {"down": 1, "stale": 1, "connected": 1}
    assert [(feed.symbol, feed.state) for feed in seen.feeds.troubled] == [
        ("binance:ETHUSDT", "down"),
        ("gmo:GONE", "stale"),
    ]
    assert seen.stages is not None
    aggregate, strategy = seen.stages
    assert (aggregate.group, aggregate.state, aggregate.members, aggregate.unowned) == (AGGREGATE_APP, "Stable", 1, [])
    assert aggregate.lags is not None
    [lag] = aggregate.lags
    assert (lag.topic, lag.records, lag.lost) == (TRADES, 3, [])
    assert 0 < lag.seconds < 60
    assert (strategy.group, strategy.members, strategy.unowned) == (STRATEGY, None, []), "its process is in no group"
    assert strategy.lags is not None
    assert [(each.topic, each.records) for each in strategy.lags] == [(CANDLES, 0)]
    assert seen.stores is not None
    [sink] = seen.stores
    assert (sink.group, sink.members, sink.newest_row) == (SINK, 1, close)
    assert sink.lags is not None
    assert [(each.topic, each.records) for each in sink.lags] == [(CANDLES, 0)]
    assert seen.candles is not None
    assert [(each.timeframe, each.symbol, each.close_time, each.close) for each in seen.candles] == [
        ("1m", "binance:BTCUSDT", close, "61837.63")
    ]
    assert seen.delay is not None
    assert seen.gaps is not None
    assert (seen.gaps.lost, seen.gaps.open) == (1, 0)
    assert {problem.code for problem in seen.problems} == {"feeds.down", "feeds.stale", "gaps.lost"} | (
        {"candles.late"} if seen.delay.p99 > 5 else set()  # it has been written long after the minute's end
    )
    # Nobody is at work any more, and one symbol is asked for, and one that there is not.
    assert {problem.about for problem in later.problems if problem.code == "group.absent"} == {AGGREGATE_APP, SINK}
    assert [(each.what, each.reason) for each in later.unknown] == [("symbol binance:BTCUSD", UNHEARD_OF)]
    assert later.feeds is not None
    assert [feed.symbol for feed in later.feeds.troubled] == ["binance:BTCUSDT"]


def test_the_command_prints_it_and_the_json(kafka_settings: Settings, ashi: Ashi) -> None:
    asyncio.run(write(kafka_settings, [status("binance:BTCUSDT")]))
    code, printed, _ = ashi("status", "--once")
    assert code == 0
    assert "✗ no aggregate worker runs" in printed
    assert "    ashi aggregate\n" in printed
    assert "1 feed read by 1 ingest worker" in printed
    code, printed, _ = ashi("status", "--json")
    assert code == 0
    document = msgspec.json.decode(printed.encode(), type=Snapshot)
    assert document.schema == "ashi.status.v1"
    assert document.feeds is not None
    assert document.feeds.symbols == 1


def test_a_symbol_without_a_venue_is_a_wrong_command_line_and_no_kafka_that_is_away(ashi: Ashi) -> None:
    code, _, told = ashi("status", "--once", "--symbol", "BTCUSDT")
    assert code == 2
    assert "--symbol: symbol 'BTCUSDT' has no venue" in told


def test_topics_that_are_missing_are_said_and_the_rest_is_known(kafka_settings: Settings) -> None:
    settings = replace(kafka_settings, topic_prefix="empty.")
    specs = [spec for spec in topic_specs(2, settings.timeframes) if spec.name != "feed.status"]
    asyncio.run(create_topics(settings, specs))
    seen = look(settings, timeout_s=5.0)
    missing = [problem for problem in seen.problems if problem.code == "topics.missing"]
    assert [problem.text for problem in missing] == ["topics are missing: empty.feed.status"]
    assert [each.what for each in seen.unknown] == ["feeds"]
    assert "there is no topic empty.feed.status: run `ashi topics create`" in seen.unknown[0].reason
    assert seen.feeds is None
    assert seen.candles == []
    assert seen.stages is not None
    assert [group.group for group in seen.stages] == [AGGREGATE_APP], "groups of other deployments are not of this one"


def test_a_watch_sees_what_comes_and_goes(kafka_settings: Settings) -> None:
    async def scenario() -> None:
        watch = Watch(kafka_settings)
        watch.start()
        try:
            await watch.wait_for_past(20.0)
            seen = await watch.look()
            assert seen.feeds is not None
            assert seen.feeds.symbols == 0
            await write(kafka_settings, [status("binance:BTCUSDT", "silent")])
            async with asyncio.timeout(20):
                while (seen := await watch.look()).feeds is None or not seen.feeds.symbols:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert seen.feeds.states == {"silent": 1}
            await watch.wait_for_clock(20.0)
            assert watch.clock_ahead_s is not None
            assert -1 < watch.clock_ahead_s < 10
        finally:
            await watch.close()

    asyncio.run(scenario())


def test_a_kafka_that_is_away_is_said_within_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ASHI_KAFKA_BOOTSTRAP", f"127.0.0.1:{nobody.getsockname()[1]}")
        began_s = time.monotonic()
        assert main(["status", "--once"]) == 1
        assert main(["status", "--json"]) == 1
        assert time.monotonic() - began_s < 40
    printed = capsys.readouterr().out
    assert "✗ cannot reach Kafka at 127.0.0.1:" in printed
    document: dict[str, Any] = json.loads(printed.splitlines()[-1])
    assert document["brokers"] is None
    assert [problem["code"] for problem in document["problems"]] == ["kafka.unreachable"]
    assert document["problems"][0]["command"] == "ashi doctor"
