"""The stores that a run fills side by side, each by sinks of its own, and the server that is taken away from them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ashi_sinks.registry import migrate_store
from ashi_sinks.worker import sink_group
from rig.fleet import Fleet, Timeline, Worker
from servers.free_ports import HOST
from servers.postgres import PostgresServer

POSTGRES = "postgres"
AWAY = '"event":"the store is away, trying again"'
"""What a sink logs each time that it cannot write."""


@dataclass(frozen=True)
class Store:
    """A store of a kind that `ashi sink` knows by `name`; its sinks are a consumer group."""

    name: str
    url: str
    sinks: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return sink_group(self.name)

    def start_sinks(self, fleet: Fleet) -> list[Worker]:
        # The URL goes by the environment: it may hold a password.
        environment = {"ASHI_STORAGE": self.url, **self.settings}
        return [
            fleet.add(f"sink-{self.name}-{number}", "sink", self.name, environment=environment)
            for number in range(self.sinks)
        ]


class Postgres:
    """A real server that goes away and comes back at the same address, while everything else goes on.

    In a crash it forgets the last transactions of whoever has not insisted on better. Sinks must insist.
    """

    def __init__(self, directory: Path, port: int, timeline: Timeline, listens_at: str = HOST) -> None:
        self._timeline = timeline
        self._server = PostgresServer(
            port=port,
            listen_addresses=listens_at,
            log=directory / "postgres.log",
            synchronous_commit="off",
            wal_writer_delay="10s",  # how long it may keep them in memory; of its own 200 ms few crashes would tell
        )
        self._back_at: float | None = None
        self._gone_at = 0.0
        self.restarts: Counter[str] = Counter()
        """How often it has come back, by the way it went."""
        self._way = ""
        self._ways: dict[str, Callable[[], None]] = {
            "stopped": self._server.stop,
            "stopped at once": self._server.stop_at_once,
            "killed": self._server.crash,
        }
        self.remove = self._server.remove

    @property
    def url(self) -> str:
        return self._server.url()

    @property
    def is_away(self) -> bool:
        return self._back_at is not None

    def migrate(self) -> None:
        for line in migrate_store(self.url):
            self._timeline(f"postgres: {line}")

    def take_away(self, draw: float, seconds: float) -> None:
        """End it in one of three ways (`draw`: 0 to 1); `tick` starts it again when so many seconds are over."""
        self._way = list(self._ways)[int(draw * len(self._ways))]
        self._gone_at = time.monotonic()
        self._ways[self._way]()
        self._back_at = time.monotonic() + seconds
        self._timeline(f"postgres was {self._way}; it starts again in {seconds:.1f} s")

    def bring_back(self) -> None:
        """Start it again now, if it is away."""
        if self._back_at is not None:
            self._back_at = time.monotonic()
            self.tick()

    def tick(self) -> None:
        """Start it again if it is time."""
        if self._back_at is None or time.monotonic() < self._back_at:
            return
        self._server.start()
        self._back_at = None
        self.restarts[self._way] += 1
        self._timeline(f"postgres serves again, after {time.monotonic() - self._gone_at:.1f} s")


def stores(directory: Path, postgres: Postgres) -> list[Store]:
    """All stores of a run. One lake worker, since several mostly wait for each other."""
    return [
        Store("sqlite", f"sqlite:///{directory / 'candles.db'}", sinks=2),
        Store(POSTGRES, postgres.url, sinks=2),
        # It would wait 10 s for larger batches, and be caught in the middle of one too seldom.
        Store("lake", f"lake:///{directory / 'lake'}", sinks=1, settings={"ASHI_SINK_BATCH_INTERVAL": "1s"}),
    ]


def waits(directory: Path) -> int:
    """How often a sink has found its store away."""
    return sum(log.read_text(errors="replace").count(AWAY) for log in directory.glob("sink-*.log"))
