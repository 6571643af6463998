"""A whole run with a user for each stage, while all that they log in with is replaced: nothing is lost, or shown."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
import pytest
import trustme
from deployed_users import deployed_users, make_users
from secret_deployment import API_KEY, MARKET, SECRETS, SYMBOL, TOKEN, Deployment, secrets_in, seen_of_process, until

from ashi.client import read_candles
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, SIGNALS, TRADES, topic_specs
from ashi.contracts.trade import decode_trade
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_cli.main import main
from ashi_cli.onemachine.children import stop_all
from ashi_simulator import Simulator
from ashi_sinks.registry import open_reader
from kafka_topics.fresh_topics import delete_topics
from oracle import candles_of, closed, stored
from servers.free_ports import HOST
from servers.postgres import PostgresServer
from servers.subscribing import until_subscribed

if TYPE_CHECKING:
    from servers.secured_kafka import SecuredKafka

pytestmark = [pytest.mark.outside, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(400)]

OLD, NEW = datetime(2041, 1, 1, tzinfo=UTC), datetime(2042, 1, 1, tzinfo=UTC)
OURS = datetime(2043, 1, 1, tzinfo=UTC)
EXPIRY = 'ashi_certificate_expiry_timestamp_seconds{{kind="{}"}}'
GROUPS = {AGGREGATE_APP: TRADES, "ashi-sink-postgres": CANDLES, "ashi-sink-lake": CANDLES}


@contextmanager
def as_user(deployment: Deployment, user: str, monkeypatch: pytest.MonkeyPatch, **env: str) -> Iterator[None]:
    """For a command in this process."""
    with monkeypatch.context() as patch:
        for name, value in (deployment.environment(user) | env).items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def deployment(secured: SecuredKafka, tmp_path: Path) -> Iterator[Deployment]:
    asyncio.run(delete_topics(replace(secured.open, timeframes=(Timeframe.parse("1s"),))))
    users = deployed_users()
    make_users(secured, users)
    found = Deployment(secured, tmp_path)
    yield found
    stop_all([stage.process for stage in found.stages.values()], 10)
    secured.let_in([user.name for user in users])
    secured.show("BOTH", secured.authority.issue_cert(HOST, not_after=OLD), secured.authority)


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


def rotate(deployment: Deployment, users: list[str]) -> None:
    """Everything that the stages log in with is replaced by something of another authority, one after another."""
    kafka, ours = deployment.kafka, deployment.kafka.authority
    next_authority = trustme.CA()
    kafka.show("BOTH", ours.issue_cert(HOST, not_after=OLD), ours, next_authority)
    deployment.trust(ours, next_authority)
    deployment.write_certificate(next_authority, half=True)
    everywhere = set(deployment.stages)

    def all_say(metric: str, value: float) -> bool:
        deployment.require_alive()
        return set(deployment.values(metric).values()) == {value}

    until("a key without its certificate is told by all", lambda: all_say("ashi_certificate_files_behind", 1.0))
    for user in everywhere:
        assert "going on with those of before" in deployment.stages[user].log.read_text()
    deployment.write_certificate(next_authority, OURS)
    until("the pair is read", lambda: all_say("ashi_certificate_files_behind", 0.0))
    until("our new certificate is known", lambda: all_say(EXPIRY.format("client"), OURS.timestamp()))
    # From here on the broker takes no certificate of before, and shows none: who goes on has read the files again.
    kafka.show("BOTH", next_authority.issue_cert(HOST, not_after=NEW), next_authority)
    deployment.trust(next_authority)
    until("all have seen the broker's new certificate", lambda: all_say(EXPIRY.format("broker"), NEW.timestamp()))
    deployment.change_passwords(users)


def test_a_run_with_a_user_for_each_stage_through_a_rotation_of_all_that_is_secret(
    deployment: Deployment,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kafka, users = deployment.kafka, [user.name for user in deployed_users()]
    lake = f"lake:///{deployment.folder}/lake"
    storage = deployment.folder / "storage"
    storage.write_text(postgres.url())
    said: dict[str, str] = {}

    def command(user: str, *arguments: str, **env: str) -> str:
        with as_user(deployment, user, monkeypatch, **env):
            status = main(list(arguments))
        out, err = capsys.readouterr()
        said[" ".join(arguments)] = out + err
        assert status == 0, f"{arguments}: {out}{err}"
        return str(out)

    def ends(topic: str) -> dict[int, int]:
        return {number: end for number, end in asyncio.run(end_offsets(kafka.open, topic)).items() if end}

    def are_through() -> bool:
        deployment.require_alive()
        return all(
            {n: at for n, at in asyncio.run(committed_offsets(kafka.open, group, topic)).items() if at}
            == ends(topic)
            != {}
            for group, topic in GROUPS.items()
        )

    def have_begun() -> bool:
        deployment.require_alive()
        return all(
            any(asyncio.run(committed_offsets(kafka.open, group, topic)).values()) for group, topic in GROUPS.items()
        )

    command("ashi-operator", "topics", "create", ASHI_PARTITIONS="2")
    command("ashi-operator", "topics", "check", ASHI_PARTITIONS="2")
    command("ashi-sink-postgres", "sink", "postgres", "--migrate", ASHI_STORAGE_FILE=str(storage))

    async def live() -> None:
        async with Simulator("binance", [MARKET], rate=50) as simulator:
            ingest = deployment.start(
                "ashi-ingest",
                "ingest",
                "binance",
                MARKET,
                ASHI_WEBSOCKET_URL=simulator.websocket_url,
                ASHI_REST_URL=simulator.rest_url,
                ASHI_BINANCE_API_KEY=API_KEY,
            )
            deployment.start("ashi-aggregate", "aggregate", ASHI_FLAT_CANDLES="0")  # which would go on for ever
            deployment.start("ashi-sink-postgres", "sink", "postgres", ASHI_STORAGE_FILE=str(storage))
            quick = {"ASHI_SINK_BATCH_INTERVAL": "1s"}
            deployment.start("ashi-sink-lake", "sink", "lake", ASHI_STORAGE=lake, **quick)
            deployment.start("ashi-sink-lake-trades", "sink", "lake", "--topic", "trades", ASHI_STORAGE=lake, **quick)
            crossing = ("ma_cross", "--symbol", SYMBOL, "--timeframe", "1s", "--fast", "2", "--slow", "3")
            deployment.start("ashi-strategy", "strategy", "run", *crossing)
            deployment.start(
                "ashi-chart", "chart", "--port", "0", ASHI_STORAGE_FILE=str(storage), ASHI_CHART_TOKEN=TOKEN
            )
            await until_subscribed(simulator, [MARKET], ingest)
            simulator.start_market()
            await asyncio.to_thread(
                until, "candles are stored and signals given", lambda: have_begun() and ends(SIGNALS)
            )
            await asyncio.to_thread(rotate, deployment, users)
            before = await end_offsets(kafka.open, TRADES)
            began_s = time.monotonic()
            await asyncio.to_thread(
                until,
                "it goes on for longer than the broker lets a connection live",
                lambda: time.monotonic() > began_s + 7 and sum(ends(TRADES).values()) > sum(before.values()) + 100,
            )
            await simulator.stop_market()
            trades = [*simulator.truth()]
            await asyncio.to_thread(until, "all is stored", lambda: sum(ends(TRADES).values()) >= len(trades))
            last = trades[-1].traded_at // 1_000_000 * 1_000_000
            await asyncio.to_thread(until, "the last window is closed, and all is stored", lambda: last_is_stored(last))
            await look(trades)

    def last_is_stored(open_time: int) -> bool:
        return are_through() and all(open_time in asyncio.run(open_times(url)) for url in (postgres.url(), lake))

    async def open_times(url: str) -> set[int]:
        async with open_reader(url) as store:
            return {candle.open_time async for candle in store.read(SYMBOL, "1s")}

    async def look(trades: list[Any]) -> None:
        published = [decode_trade(record.value) async for record in read_topic(kafka.open, TRADES)]
        assert [trade.trade_id for trade in published] == [trade.trade_id for trade in trades]
        reader = Settings.from_environment(deployment.environment("ashi-reader"))
        newest: dict[int, Any] = {}
        async with read_candles(reader, since="beginning", follow=False) as candles:
            async for candle in candles:
                newest[candle.open_time] = candle
        for url in (postgres.url(), lake):
            async with open_reader(url) as store:
                rows = [candle async for candle in store.read(SYMBOL, "1s")]
            assert rows == [newest[at] for at in sorted(newest)], url
        truth = closed(candles_of(published, ["1s"]), published, 2_000_000)
        found = stored([candle for candle in rows if candle.trade_count])
        assert {key: found[key] for key in truth} == truth
        log = deployment.stages["ashi-chart"].log.read_text()
        address = next(json.loads(line)["address"] for line in log.splitlines() if "the chart is served" in line)
        async with aiohttp.ClientSession() as client:
            async with client.get(address) as page:
                said["page"] = await page.text()
            async with client.ws_connect(f"{address}ws?token={TOKEN}") as socket:
                await socket.send_json({"op": "series", "symbol": SYMBOL, "timeframe": "1s", "bars": 50})
                said["chart"] = ""
                async with asyncio.timeout(30):
                    while SYMBOL not in said["chart"]:
                        said["chart"] += await socket.receive_str()
            async with client.get(f"{address}api/bars", params={"symbol": SYMBOL}) as refused:
                assert refused.status == 401

    asyncio.run(live())
    told = json.loads(command("ashi-operator", "status", "--json"))
    assert told["feeds"]
    with as_user(deployment, "ashi-operator", monkeypatch, ASHI_STORAGE_FILE=str(storage), ASHI_PARTITIONS="2"):
        main(["doctor", "--json", "--stage", "sink"])
    said["doctor"] = "".join(capsys.readouterr())
    assert "kafka.login" in said["doctor"]
    deployment.require_alive()

    # Everything that was written, served or shown.
    for user, stage in deployment.stages.items():
        log = stage.log.read_text()
        assert '"level":"debug"' in log
        assert "Sasl" in log, "the library tells of each request"
        said[f"log of {user}"] = log
        for path in ("/metrics", "/live", "/ready"):
            said[f"{user}{path}"] = deployment.get(user, path)
        for process in [psutil.Process(stage.process.pid), *psutil.Process(stage.process.pid).children(recursive=True)]:
            said |= seen_of_process(process.pid)
            assert _core_limit(process.pid) == "0"
    for spec in topic_specs(1, (Timeframe.parse("1s"),)):
        said[f"topic {spec.name}"] = asyncio.run(_contents(kafka.open, spec.name))
    assert secrets_in(said) == []
    kept = {path.name: path.read_text() for path in deployment.folder.glob("*.password")}
    assert secrets_in(kept), "what is looked for would be found"
    assert len(SECRETS) == 5

    stop_all([deployment.stages[user].process for user in ("ashi-ingest", "ashi-aggregate")], 20)
    copied = command("ashi-operator", "topics", "grow", "--partitions", "3", ASHI_FLAT_CANDLES="0")
    assert len(ends(TRADES)) == 2, copied  # the symbol's old partition, and the one that it has now
    assert secrets_in({"grow": copied}) == []


def _core_limit(pid: int) -> str:
    """The size of the core that a process would leave, as `/proc` says it."""
    [line] = [each for each in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in each]
    return line.removeprefix("Max core file size").split()[0]


async def _contents(settings: Settings, topic: str) -> str:
    """All that readers get of a topic."""
    records = [record async for record in read_topic(settings, topic)]
    return "\n".join(f"{record.key!r} {record.value!r}" for record in records)
