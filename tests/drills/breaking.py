"""A drill for each alert: what is broken, and how it is mended. Meanwhile the alert fires, and no other page."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import trustme
from confluent_kafka import Consumer, Producer

from ashi.contracts import Timeframe, encode_candle
from ashi.contracts.topics import CANDLES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import partition_of
from drills.ground import SYMBOLS, Ground
from samples.candles import a_candle
from servers.monitored_pipeline import MARKETS
from servers.secured_kafka import secured_kafka
from waits import until

FAST: Final = 30.0
SLOW: Final = 6.0
"""For what needs longer than the stages' own looks of three and five seconds."""
FASTEST: Final = 2_000.0
"""For what takes days."""


class Drill(NamedTuple):
    """What is broken, and who is to hear of it.

    Attributes:
        alerts: those that must fire, each, and resolve.
        what: is broken, in words.
        broken: breaks it, and mends it at the end of the block.
        factor: of the watchers that are looked at.
        pages: others that may page too, as they follow of it.
        bound_s: how long the alerts may take to fire, and to resolve.

    """

    alerts: tuple[str, ...]
    what: str
    broken: Callable[[Ground], AbstractContextManager[None]]
    factor: float = FAST
    pages: tuple[str, ...] = ()
    bound_s: float = 60.0


@contextmanager
def doing(work: Callable[[], None], every_s: float) -> Iterator[None]:
    """Do it again and again in a thread."""
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            work()
            done.wait(every_s)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(30)


@contextmanager
def store_locked(ground: Ground) -> Iterator[None]:
    with ground.locked_store():
        yield


@contextmanager
def store_slow(ground: Ground) -> Iterator[None]:
    """It takes a few rows a second, and twenty candles a second come."""
    producer = Producer({"bootstrap.servers": ground.settings.kafka_bootstrap})
    minute = 0

    def publish() -> None:
        nonlocal minute
        minute += 1
        candle = a_candle(minute, symbol="drill:SLOW")
        key = candle.symbol.encode()
        producer.produce(CANDLES, encode_candle(candle), key, partition=partition_of(key, ground.settings.partitions))
        producer.poll(0)

    with ground.locked_store(hold_s=0.8, gap_s=0.11), doing(publish, 0.05):
        yield
    producer.flush(20)


@contextmanager
def venue_gone(ground: Ground) -> Iterator[None]:
    ground.stop_venue()
    yield
    ground.start_venue()


@contextmanager
def transaction_open(ground: Ground) -> Iterator[None]:
    producer = ground.open_transaction(SYMBOLS[0])
    yield
    producer.abort_transaction(20)


@contextmanager
def kafka_frozen(ground: Ground) -> Iterator[None]:
    """It keeps its connections and answers nothing."""
    process = ground.broker.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def aggregate_killed(ground: Ground) -> Iterator[None]:
    ground.kill("aggregate")
    yield
    ground.start_aggregate()


@contextmanager
def shard_absent(ground: Ground) -> Iterator[None]:
    """Of the markets that were read half are with nobody, as where one of two workers that share them has ended."""
    ground.end("ingest")
    ground.start("ingest", "ingest", "binance", MARKETS[0], **ground.venue, ASHI_REPAIR_PATIENCE="5s")
    yield
    ground.end("ingest")
    ground.start_ingest(ASHI_REPAIR_PATIENCE="5s")


@contextmanager
def kafka_killed(ground: Ground) -> Iterator[None]:
    ground.stop_kafka()
    yield
    ground.start_kafka()


@contextmanager
def kafka_slow(ground: Ground) -> Iterator[None]:
    """It stands still for six seconds of each fourteen."""
    process = ground.broker.process
    assert process is not None

    def stall() -> None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(6.0)
        process.send_signal(signal.SIGCONT)

    with doing(stall, 8.0):
        yield


@contextmanager
def no_trade(ground: Ground) -> Iterator[None]:
    ground.publish([(b"drill:NONE", b"this is no trade")])
    yield


@contextmanager
def trades_late(ground: Ground) -> Iterator[None]:
    ground.publish(ground.trades("drill:LATE", range(1, 3)))
    ground.publish(ground.trades("drill:LATE", range(100, 300), ago_s=3_600))
    yield


@contextmanager
def trades_lost(ground: Ground) -> Iterator[None]:
    """Trades are missing, and REST refuses for longer than is waited for it."""
    ground.fault("rest_refuse", status=500, seconds=600.0)
    ground.fault("skip", market=MARKETS[0], frames=3)
    yield
    ground.fault("rest_refuse", status=500, seconds=0.0)


@contextmanager
def feed_silent(ground: Ground) -> Iterator[None]:
    """A market is mute, and REST, which would tell, refuses."""
    ground.fault("rest_refuse", status=500, seconds=600.0)
    ground.fault("mute", market=MARKETS[0], seconds=0.0, resubscriptions=10_000)
    yield
    ground.fault("mute", market=MARKETS[0], seconds=0.1)
    ground.fault("rest_refuse", status=500, seconds=0.0)


@contextmanager
def connections_drop(ground: Ground) -> Iterator[None]:
    with doing(lambda: ground.fault("drop"), 2.0):
        yield


@contextmanager
def rest_limited(ground: Ground) -> Iterator[None]:
    def limit() -> None:
        ground.fault("rest_429", requests=3)
        ground.fault("drop")

    with doing(limit, 3.0):
        yield


@contextmanager
def other_version(ground: Ground) -> Iterator[None]:
    program = (
        "import ashi, sys; ashi.__version__ = '99.0'; from ashi_cli.main import main; "
        f"sys.exit(main(['chart', '--storage', {ground.storage!r}, '--port', '0']))"
    )
    log = ground.folder / "other-version.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ
            | {
                "ASHI_KAFKA_BOOTSTRAP": ground.settings.kafka_bootstrap,
                "ASHI_METRICS_PORT": str(ground.ports["other"]),
            },
            stdout=output,
            stderr=output,
        )
    yield
    process.terminate()
    process.wait(30)


@contextmanager
def ids_scattered(ground: Ground) -> Iterator[None]:
    ground.publish(ground.trades("drill:IDS", range(0, 62_000, 2)))
    began_s = time.monotonic()
    yield
    # Ids are forgotten by the symbol's own time, once the horizon of two minutes is over.
    time.sleep(max(began_s + 125.0 - time.monotonic(), 0.0))
    ground.publish(ground.trades("drill:IDS", [100_000]))


@contextmanager
def members_come_and_go(ground: Ground) -> Iterator[None]:
    """Somebody joins the sink's group and leaves it, again and again."""

    def visit() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": ground.settings.kafka_bootstrap,
                "group.id": "ashi-sink-sqlite",
                "partition.assignment.strategy": "roundrobin",
                "enable.auto.commit": False,
            }
        )
        consumer.subscribe([CANDLES, "feed.gaps", "feed.status"])
        deadline_s = time.monotonic() + 10
        while not consumer.assignment() and time.monotonic() < deadline_s:
            consumer.poll(0.2)
        consumer.close()

    with doing(visit, 0.5):
        yield


@contextmanager
def clock_ahead(ground: Ground) -> Iterator[None]:
    found = importlib.util.find_spec("libfaketime")
    assert found is not None
    library = Path(str(found.origin)).parent / "vendor/libfaketime/src/libfaketime.so.1"
    fake = {"LD_PRELOAD": str(library), "FAKETIME": "+30s", "DONT_FAKE_MONOTONIC": "1"}
    ground.start("other", "ingest", "binance", *MARKETS, "--redundant", **ground.venue, **fake)
    yield
    ground.end("other")


@contextmanager
def second_publisher(ground: Ground) -> Iterator[None]:
    ground.start("other", "ingest", "binance", *MARKETS, **ground.venue)
    yield
    ground.end("other")


class SecuredChart:
    """A chart that shows a certificate, good for so many days, to a Kafka with TLS."""

    def __init__(self, ground: Ground, name: str, days: int) -> None:
        self._folder = ground.folder / name
        self._kafka = ground.closing.enter_context(secured_kafka(self._folder, users=("nobody",)))
        settings = self._kafka.tls("TLS")
        asyncio.run(create_topics(self._kafka.open, topic_specs(settings.partitions, settings.timeframes)))
        self.renew(days)
        stage = ground.start(
            "other",
            *("chart", "--storage", ground.storage, "--port", "0"),
            ASHI_KAFKA_BOOTSTRAP=settings.kafka_bootstrap,
            ASHI_KAFKA_SECURITY_PROTOCOL="SSL",
            ASHI_KAFKA_CA_FILE=str(self._kafka.ca_file),
            ASHI_KAFKA_CERT_FILE=str(self._folder / "client.pem"),
            ASHI_KAFKA_KEY_FILE=str(self._folder / "client.pem"),
        )
        stage.wait_for('"event":"the chart is served"')
        # Which it may be before it has read what it shows to Kafka: a key that is replaced until then ends it.
        read = "ashi_certificate_expiry_timestamp_seconds"
        until("the certificate is read", lambda: ground.value("other", read) is not None, 60, 0.2)

    def renew(self, days: int, *, whole: bool = True) -> None:
        """Replace the certificate where it lies, with its key; not `whole`, with that of another one."""
        issued, other = self._issue(days), self._issue(days)
        key = (issued if whole else other).private_key_pem.bytes()
        (self._folder / "new.pem").write_bytes(key + b"".join(each.bytes() for each in issued.cert_chain_pems))
        (self._folder / "new.pem").replace(self._folder / "client.pem")

    def _issue(self, days: int) -> trustme.LeafCert:
        until = datetime.now(UTC) + timedelta(days=days)
        return self._kafka.authority.issue_cert("chart.example", not_after=until)


@contextmanager
def certificate_expires(ground: Ground) -> Iterator[None]:
    chart = SecuredChart(ground, "expires", days=9)
    yield
    chart.renew(90)  # and the chart goes on: that it ended would end the alert as well


@contextmanager
def certificate_half_replaced(ground: Ground) -> Iterator[None]:
    chart = SecuredChart(ground, "half", days=90)
    chart.renew(90, whole=False)
    yield
    chart.renew(90)


STRATEGY = """
import time
from ashi_strategies import Strategy, long

class Blocks(Strategy):
    startup_candles = 1

    def on_candle(self, candle, series):
        time.sleep(3_600)
"""


@contextmanager
def strategy_blocks(ground: Ground) -> Iterator[None]:
    (ground.folder / "drill_strategies.py").write_text(STRATEGY)
    chosen = ("drill_strategies:Blocks", "--symbol", SYMBOLS[0], "--timeframe", str(Timeframe.parse("1s")))
    ground.start_strategy(*chosen, name="other", PYTHONPATH=str(ground.folder), ASHI_STRATEGY_TIMEOUT="5s")
    yield
    ground.kill("other")


@contextmanager
def chart_frozen(ground: Ground) -> Iterator[None]:
    ground.freeze("chart")
    yield
    ground.thaw("chart")


DRILLS: Final = (
    Drill(("StoreDown",), "somebody has the database locked", store_locked),
    Drill(
        ("RowsLate", "LagGrowing", "RetentionAtRisk"),
        "the database takes a few rows a second, twenty candles come",
        store_slow,
        bound_s=120,
    ),
    Drill(("FeedDown",), "the venue is gone", venue_gone),
    Drill(("WatermarkStalled",), "a transaction is left open in a partition", transaction_open),
    Drill(("CheckpointStalled",), "the broker keeps its connections and answers nothing", kafka_frozen),
    Drill(("WorkersAbsent",), "the aggregate worker is killed", aggregate_killed),
    Drill(("WorkersAbsent",), "half of the venue's markets are with nobody", shard_absent),
    Drill(("ProcessDown",), "the chart's process stands still", chart_frozen),
    Drill(("DeadLetters",), "a record that is no trade", no_trade),
    Drill(("TradesLate",), "two hundred trades of an hour ago", trades_late),
    Drill(("GapLost",), "trades are missing, REST refuses", trades_lost, bound_s=120),
    Drill(("FeedSilent",), "a market is mute, REST refuses", feed_silent, bound_s=150),
    Drill(("ReconnectStorm",), "connections drop every two seconds", connections_drop, factor=SLOW, bound_s=240),
    Drill(("RestLimited",), "REST answers 429", rest_limited, bound_s=120),
    Drill(("MixedVersions",), "a chart of another version", other_version, factor=FASTEST),
    Drill(("Rebalancing",), "a member comes and goes", members_come_and_go, factor=SLOW, bound_s=240),
    Drill(("ClockSkew",), "an ingest worker's clock is thirty seconds ahead", clock_ahead, bound_s=120),
    Drill(("TwoPublishers",), "a second worker of the same markets", second_publisher),
    Drill(("CertificateExpires",), "a client's certificate is good for nine days", certificate_expires, bound_s=150),
    Drill(("CertificateFilesBehind",), "a certificate has another's key", certificate_half_replaced, bound_s=150),
    Drill(("StrategyBlocked",), "a strategy sleeps", strategy_blocks),
    Drill(("KafkaDown",), "the broker is killed", kafka_killed, factor=SLOW, bound_s=120),
    Drill(("CandlesLate",), "the broker stands still six seconds of fourteen", kafka_slow, factor=SLOW, bound_s=240),
    Drill(("CandlesLateSlowly",), "the same", kafka_slow, factor=FASTEST, bound_s=240),
    Drill(("RowNearLimit",), "thirty thousand scattered ids of one symbol", ids_scattered, bound_s=420),
)
