"""The pipeline that drills break: a broker of its own, a venue that can be restarted, stages on ports that stay."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from ashi.contracts import Trade, encode_trade
from ashi.contracts.topics import CANDLES
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from kafka_topics.fresh_topics import renew_topics
from rig.writes import locked_database, open_transaction, publish, venue_fault
from servers.free_ports import HOST, free_ports
from servers.monitored_pipeline import MARKETS, Pipeline, settings_of
from servers.stages import Stage, simulated_venue

JOBS = ("ingest", "aggregate", "sink", "strategy", "chart")
SYMBOLS = [f"binance:{market}" for market in MARKETS]


class Ground(Pipeline):
    """A whole deployment, and what can be done to it."""

    def __init__(self, settings: Settings, folder: Path, broker: Broker) -> None:
        self.broker = broker
        self.ports = dict(zip((*JOBS, "other", "venue"), free_ports(len(JOBS) + 2), strict=True))
        self._venue: Any = None
        self.closing = ExitStack()
        super().__init__(settings, folder, {})

    @property
    def targets(self) -> dict[str, Sequence[str]]:
        """What Prometheus scrapes, by job."""
        jobs = {f"ashi-{name}": [f"{HOST}:{self.ports[name]}"] for name in JOBS}
        return {**jobs, "other": [f"{HOST}:{self.ports['other']}"]}

    def start(self, name: str, *arguments: str, **env: str) -> Stage:
        return super().start(name, *arguments, **{"ASHI_METRICS_PORT": str(self.ports[name]), **env})

    def begin(self) -> None:
        """Start everything, and wait until it works."""
        asyncio.run(renew_topics(self.settings))
        # As long as a drill can be behind.
        self.set_topic(CANDLES, "retention.ms", "30000")
        self.start_venue()
        self.start_aggregate()
        self.start_sink(ASHI_SINK_BATCH_SIZE="1")
        self.start_ingest(ASHI_REPAIR_PATIENCE="5s")
        self.start_chart()
        self.start_strategy()

    def start_venue(self) -> None:
        """Start the simulated venue where it was."""
        self._venue = simulated_venue("binance", *MARKETS, "--rate", "40", "--port", str(self.ports["venue"]))
        self.venue = self._venue.__enter__()

    def stop_venue(self) -> None:
        """Nobody answers there any more."""
        if self._venue is not None:
            self._venue.__exit__(None, None, None)
            self._venue = None

    def fault(self, name: str, **arguments: object) -> None:
        """Let the venue do something wrong."""
        venue_fault(self.ports["venue"], name, **arguments)

    def stop_kafka(self) -> None:
        """As its machine's failure does."""
        process = self.broker.process
        assert process is not None
        process.kill()
        process.wait(20)

    def start_kafka(self) -> None:
        """Start it where it was."""
        self.broker.start(child=True, port=int(self.settings.kafka_bootstrap.rsplit(":", 1)[1]))

    def set_topic(self, topic: str, name: str, value: str | None) -> None:
        """Set a setting of a topic, or take it back."""
        kind = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
        entry = ConfigEntry(name, value, incremental_operation=kind)
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_bootstrap})
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(20)

    def locked_store(self, hold_s: float | None = None, gap_s: float = 0.02) -> AbstractContextManager[None]:
        """Somebody else has the database locked: all the time, or for `hold_s` at a time with gaps in between."""
        return locked_database(self.folder / "candles.db", hold_s, gap_s)

    def open_transaction(self, symbol: str) -> Producer:
        """Leave one open in the partition of a symbol; `abort_transaction` ends it."""
        return open_transaction(self.settings, symbol)

    def publish(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write keys and values into topic `trades`."""
        publish(self.settings, records)

    def trades(self, symbol: str, ids: Sequence[int], ago_s: float = 0.0) -> list[tuple[bytes, bytes]]:
        """Records of trades that were made so long ago."""
        at = time.time_ns() // 1_000 - int(ago_s * 1e6)
        return [
            (symbol.encode(), encode_trade(Trade(symbol, str(number), Decimal(1), Decimal(1), "buy", at, at, number)))
            for number in ids
        ]

    def freeze(self, name: str) -> None:
        """It stands still, and does not know."""
        self.stages[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self.stages[name].process.send_signal(signal.SIGCONT)

    def end(self, name: str) -> None:
        """Stop a stage as an operator does."""
        stage = self.stages.pop(name)
        stage.process.terminate()
        stage.process.wait(30)

    def tidy(self) -> None:
        """End what a drill has left at work, as it had to go on until its alert was over."""
        if "other" in self.stages:
            self.end("other")
        self.closing.close()

    def close(self) -> None:
        for stage in self.stages.values():
            with suppress(ProcessLookupError):
                stage.process.send_signal(signal.SIGCONT)
        super().close()
        self.closing.close()
        self.stop_venue()


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """A broker and all stages at work."""
    broker = Broker(folder)
    broker.start(child=True, fresh=True)
    made = Ground(settings_of(broker.bootstrap), folder, broker)
    try:
        made.begin()
        yield made
    finally:
        made.close()
        broker.stop()
