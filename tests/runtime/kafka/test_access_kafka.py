"""Each stage with a user of its own, who may do what `ashi.contracts.access` says and nothing else."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ashi.contracts.access import CHART, Access, Operation, access_table, sink_access, strategy_access
from ashi.contracts.errors import BrokerError, NotPermittedError
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import (
    AGGREGATE_APP,
    CANDLES,
    CANDLES_DEAD,
    FEED_GAPS,
    FEED_STATUS,
    META,
    TRADES,
    topic_specs,
)
from ashi.contracts.trade import decode_trade
from ashi.runtime.kafka.cluster.access import require_access
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.consuming.records import read_topic
from ashi_cli.main import main
from ashi_simulator import Simulator
from ashi_sinks.sqlite.reader import SqliteReader
from kafka_topics.fresh_topics import renew_topics
from oracle import candles_of, closed, stored
from servers.secured_kafka import Right, SecuredKafka, token
from servers.subscribing import until_subscribed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ashi.runtime.settings import Settings
    from conftest import StartStage

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

MARKET = "BTCUSDT"
GROUP = "ashi-sink-sqlite"
TIMEFRAMES = (Timeframe.parse("1s"),)
STAGES: dict[str, Access] = {
    "ingest": access_table(TIMEFRAMES)["ashi ingest"],
    "replay": access_table(TIMEFRAMES)["ashi ingest replay"],
    "aggregate": access_table(TIMEFRAMES)["ashi aggregate"],
    "sink": sink_access([CANDLES, FEED_GAPS, FEED_STATUS], CANDLES_DEAD, GROUP),
    "strategy": strategy_access("ashi-strategy-one"),
    "chart": CHART,
}
RIGHTS: list[tuple[str, Right]] = [(user, right) for user, access in STAGES.items() for right in access.rights()]


def check(kafka: SecuredKafka, user: str) -> None:
    asyncio.run(require_access(kafka.settings(user), STAGES[user]))


@pytest.fixture(scope="module", name="secured")
def with_rights(secured: SecuredKafka) -> SecuredKafka:
    """Each stage's user may do what the table says."""
    asyncio.run(renew_topics(replace(secured.open, timeframes=TIMEFRAMES)))
    for user, access in STAGES.items():
        secured.grant(user, access)
        soon(partial(check, secured, user))
    return secured


@pytest.fixture
def kafka_settings(secured: SecuredKafka) -> Settings:
    """For `start_stage`; each stage gets the user that it runs as."""
    return secured.open


def soon(ask: Callable[[], None]) -> None:
    """A broker learns of a change of rights a moment after it is made."""
    deadline_s = time.monotonic() + 60
    while True:
        try:
            return ask()
        except (pytest.fail.Exception, AssertionError, BrokerError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


@contextmanager
def without(secured: SecuredKafka, user: str, right: Right) -> Iterator[None]:
    """While one right is taken away, as every broker knows."""

    def refused() -> None:
        with pytest.raises(NotPermittedError):
            check(secured, user)

    secured.revoke(user, right)
    try:
        soon(refused)
        yield
    finally:
        secured.permit(user, right)
        soon(partial(check, secured, user))


@pytest.mark.parametrize(("user", "right"), RIGHTS, ids=["-".join(map(str, (user, *right))) for user, right in RIGHTS])
def test_a_right_that_is_missing_is_named(secured: SecuredKafka, user: str, right: Right) -> None:
    settings, access = secured.settings(user), STAGES[user]
    kind, name, operation = right
    with without(secured, user, right), pytest.raises(NotPermittedError) as told:
        asyncio.run(require_access(settings, access))
    assert f"does not permit user '{user}': " in str(told.value)
    assert f"{operation} on {kind.replace('_', ' ')} {name}" in str(told.value)


@pytest.mark.parametrize("met", ["at the check", "after it"])
@pytest.mark.parametrize(
    ("user", "command", "right"),
    [
        ("sink", "sink sqlite", ("group", GROUP, Operation.READ)),
        ("sink", "sink sqlite", ("topic", CANDLES, Operation.READ)),
        ("aggregate", "aggregate", ("topic", TRADES, Operation.DESCRIBE_CONFIGS)),
        ("aggregate", "aggregate", ("topic", META, Operation.READ)),
    ],
)
def test_a_worker_that_lacks_a_right_ends_and_names_it(
    secured: SecuredKafka,
    user: str,
    command: str,
    right: Right,
    met: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    more = {"ASHI_STORAGE": f"sqlite:///{tmp_path}/candles.db", "ASHI_TIMEFRAMES": "1s", "ASHI_METRICS_PORT": "0"}
    for name, value in (secured.environment(user) | more).items():
        monkeypatch.setenv(name, value)
    if met == "after it":

        async def passed(settings: Settings, access: Access) -> None:
            """As when the right is taken away a moment later."""

        monkeypatch.setattr("ashi.runtime.waiting.require_access", passed)
    kind, name, operation = right
    with without(secured, user, right):
        assert main(command.split()) == 1
    said = capsys.readouterr().err
    assert f"does not permit user '{user}': {operation} on {kind} {name}" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("right", [("topic", TRADES, Operation.READ), ("group", AGGREGATE_APP, Operation.READ)])
def test_a_worker_that_loses_a_right_while_it_runs_ends_and_names_it(
    secured: SecuredKafka, start_stage: StartStage, right: Right
) -> None:
    """Faust's own client learns of it, in a thread of its own."""
    worker = start_stage("aggregate", ASHI_TIMEFRAMES="1s", **secured.environment("aggregate"))
    worker.wait_for('"event":"ready"')
    kind, name, operation = right
    with without(secured, "aggregate", right):
        assert worker.process.wait(30) == 1, worker.log.read_text()
    [said] = [line for line in worker.log.read_text().splitlines() if '"error":"BrokerError"' in line]
    assert f"does not permit user 'aggregate': {operation} on {kind} {name}" in said


def test_a_topic_that_is_missing_is_told_from_one_that_is_not_permitted(secured: SecuredKafka) -> None:
    known = Access({**STAGES["sink"].topics, "candles.gone": STAGES["sink"].topics[CANDLES]}, GROUP)
    with pytest.raises(BrokerError, match=r"has no topic candles\.gone: create all with `ashi topics create`"):
        asyncio.run(require_access(secured.open, known))
    with pytest.raises(BrokerError, match=r"Read on topic candles\.gone.* may also be missing"):
        asyncio.run(require_access(secured.settings("sink"), known))


def test_rights_are_asked_for_and_named_by_what_topics_and_groups_are_called_in_kafka(secured: SecuredKafka) -> None:
    prefix = "staging."
    master = replace(secured.open, topic_prefix=prefix, timeframes=TIMEFRAMES)
    asyncio.run(create_topics(master, topic_specs(1, TIMEFRAMES)))
    settings = secured.settings("sink", ASHI_TOPIC_PREFIX=prefix)
    with pytest.raises(BrokerError, match=r"Read on topic staging\.candles, .*Read on group staging\.ashi-sink-sqlite"):
        asyncio.run(require_access(settings, STAGES["sink"]))
    secured.grant("sink", STAGES["sink"].in_kafka(prefix))
    soon(lambda: asyncio.run(require_access(settings, STAGES["sink"])))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_with_one_user_for_each_stage_ends_in_the_oracles_candles(
    secured: SecuredKafka, kafka_settings: Settings, start_stage: StartStage, tmp_path: Path
) -> None:
    store = tmp_path / "candles.db"

    async def until(condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(120):
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def is_through(group: str, topic: str) -> bool:
        ends = {number: end for number, end in (await end_offsets(kafka_settings, topic)).items() if end}
        done = await committed_offsets(kafka_settings, group, topic)
        return bool(ends) and {number: offset for number, offset in done.items() if offset} == ends

    async def main() -> None:
        async with Simulator("binance", [MARKET], rate=50) as simulator:
            venue = {
                "ASHI_WEBSOCKET_URL": simulator.websocket_url,
                "ASHI_REST_URL": simulator.rest_url,
                "ASHI_BINANCE_API_KEY": "a-key-the-simulator-takes",
            }
            # The stages come by two listeners, and the test by a third: each is sent on to its own addresses.
            ingest = start_stage("ingest", "binance", MARKET, **venue, **secured.environment("ingest"))
            (tmp_path / "token").write_text(token("aggregate"))
            by_token = secured.by_token(ASHI_KAFKA_TOKEN_FILE=str(tmp_path / "token"))  # which Faust's clients take too
            aggregate = {"ASHI_TIMEFRAMES": "1s", **by_token}
            start_stage("aggregate", **aggregate)
            by_scram = secured.by_scram("sink", "SCRAM-SHA-512")
            start_stage("sink", "sqlite", ASHI_STORAGE=f"sqlite:///{store}", **by_scram)
            chart = start_stage(
                "chart", "--port", "0", ASHI_STORAGE=f"sqlite:///{store}", **secured.environment("chart")
            )
            await until_subscribed(simulator, [MARKET], ingest)
            simulator.start_market()
            await until(lambda: is_through(GROUP, CANDLES))
            await simulator.stop_market()
            await asyncio.to_thread(chart.wait_for, "reading candles")
            ingest.signal(signal.SIGTERM)
            assert await asyncio.to_thread(ingest.process.wait, 30) == 0, ingest.log.read_text()
            await until(lambda: is_through(AGGREGATE_APP, TRADES))
            await until(lambda: is_through(GROUP, CANDLES))
            trades = [decode_trade(record.value) async for record in read_topic(kafka_settings, TRADES)]
            assert [trade.trade_id for trade in trades] == [trade.trade_id for trade in simulator.truth()]
            reader = SqliteReader(store)
            await reader.open()
            rows = [candle async for candle in reader.read(f"binance:{MARKET}", "1s")]
            await reader.close()
            assert stored(rows) == closed(candles_of(trades, ["1s"]), trades, 2_000_000)

    asyncio.run(main())
