"""A whole pipeline as processes, each measured: a simulated venue, ingest, aggregate, a sink, a strategy, the chart."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ashi.runtime.settings import Settings
from kafka_topics.fresh_topics import PARTITIONS, renew_topics
from servers.stages import Stage, get, simulated_venue

MARKETS = ("BTCUSDT", "ETHUSDT")
TIMEFRAMES = "1s,1m"
LIVE = {"ASHI_TIMEFRAMES": TIMEFRAMES, "ASHI_QUIET_CLOSE": "on"}
"""As users run it: windows close by the clock as well."""


class Pipeline:
    """Starts stages against one Kafka, and knows where each serves its metrics."""

    def __init__(self, settings: Settings, folder: Path, venue: Mapping[str, str]) -> None:
        self.settings = settings
        self.folder = folder
        self.venue = venue
        self.stages: dict[str, Stage] = {}
        self._starts = 0

    def start(self, name: str, *arguments: str, **env: str) -> Stage:
        """Start a stage under a name, in place of one of that name that has ended."""
        self._starts += 1
        log = self.folder / f"{self._starts}-{name}.log"
        self.stages[name] = Stage(self.settings, log, arguments, {**LIVE, **env})
        return self.stages[name]

    def start_ingest(self, name: str = "ingest", **env: str) -> Stage:
        return self.start(name, "ingest", "binance", *MARKETS, **self.venue, **env)

    def start_aggregate(self, name: str = "aggregate", **env: str) -> Stage:
        return self.start(name, "aggregate", **env)

    def start_sink(self, name: str = "sink", **env: str) -> Stage:
        return self.start(name, "sink", "sqlite", **{"ASHI_STORAGE": self.storage, **env})

    def start_strategy(self, *arguments: str, name: str = "strategy", **env: str) -> Stage:
        chosen = arguments or ("ma_cross", "--symbol", f"binance:{MARKETS[0]}", "--timeframe", "1s", "--fast", "2")
        return self.start(name, "strategy", "run", *chosen, *(() if arguments else ("--slow", "3")), **env)

    def start_chart(self, name: str = "chart") -> Stage:
        return self.start(name, "chart", "--storage", self.storage, "--port", "0")

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder}/candles.db"

    def address(self, name: str) -> str:
        """`127.0.0.1:41235`, where a stage serves its metrics, once it does."""
        return self.stages[name].address.removeprefix("http://")

    def metrics(self, name: str) -> str:
        """What a stage serves now."""
        status, text = get(f"{self.stages[name].address}/metrics")
        assert status == 200, text
        return text

    def value(self, name: str, metric: str) -> float | None:
        """The sum over all label values of a metric that a stage serves; None where it serves no sample of it."""
        samples = [line for line in self.metrics(name).splitlines() if line.split("{")[0].split(" ")[0] == metric]
        return sum(float(line.rsplit(" ", 1)[1]) for line in samples) if samples else None

    def kill(self, name: str) -> None:
        """As the machine's failure does."""
        stage = self.stages.pop(name)
        stage.process.kill()
        stage.process.wait(10)

    def close(self) -> None:
        """End all that is left."""
        for stage in self.stages.values():
            with suppress(ProcessLookupError):
                stage.process.terminate()
        for stage in self.stages.values():
            try:
                stage.process.wait(15)
            except subprocess.TimeoutExpired:
                stage.process.kill()


def settings_of(bootstrap: str) -> Settings:
    """Those of a deployment at this Kafka."""
    return Settings.from_environment(
        {
            "ASHI_KAFKA_BOOTSTRAP": bootstrap,
            "ASHI_SESSION_TIMEOUT": "6s",
            "ASHI_PARTITIONS": str(PARTITIONS),
            "ASHI_TIMEFRAMES": TIMEFRAMES,
        }
    )


@contextmanager
def running_pipeline(bootstrap: str, folder: Path) -> Iterator[Pipeline]:
    """All stages at work on a simulated venue, with topics that are made anew."""
    settings = settings_of(bootstrap)
    asyncio.run(renew_topics(settings))
    with simulated_venue("binance", *MARKETS, "--rate", "50") as venue:
        running = Pipeline(settings, folder, venue)
        try:
            running.start_aggregate()
            running.start_sink()
            running.start_ingest()
            running.start_chart()
            running.start_strategy()
            yield running
        finally:
            running.close()
