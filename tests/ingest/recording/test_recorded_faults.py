"""What was recorded of feeds while connections broke is what they published: each venue's against the simulator."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from simulated_feeds import MARKETS, SimulatedFeeds, until

from ashi.contracts.trade import Trade
from ashi_ingest.publish.buffer import PublishBuffer
from ashi_ingest.recording.feed_recorder import FeedRecorder
from ashi_ingest.recording.format import read_recording
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.recorder import Recorder
from ashi_ingest.venues.registry import VENUES
from ashi_simulator import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Publisher:
    """What was handed to Kafka, in its order; acknowledged at once."""

    held = 0
    appended = None

    def __init__(self) -> None:
        self.trades: list[Trade] = []
        self.fetched = 0
        self.settled = asyncio.Event()

    def expect(self, count: int) -> None:
        pass

    async def publish(self, trades: Sequence[Trade], *, streamed: bool, late: bool) -> None:
        self.trades += trades
        self.fetched += 0 if streamed else len(trades)

    async def reject(self, rejected: Sequence[Any], source: str) -> None:
        raise AssertionError(f"refused: {rejected}")

    async def send_batches(self) -> None:
        pass


class RecordedFeeds(SimulatedFeeds):
    """The feeds of a venue, recorded."""

    def __init__(self, simulator: Simulator, venue: str, directory: Path) -> None:
        self.publisher = Publisher()
        self.recorder = Recorder(directory, venue)
        recorded = FeedRecorder(self.recorder, with_connections=not VENUES[venue].live(has_key=True).ordered_ids)
        stand_in: Callable[[Any], Any] = lambda fake: fake  # noqa: E731
        self.buffer = PublishBuffer(stand_in(self.publisher), recorded.fetched)
        super().__init__(simulator, venue, self.buffer, recorded, on_state=recorded.state)

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[None]:
        async with self.running(self.buffer.run()):
            yield
        await self.buffer.empty()
        self.recorder.close()

    def is_complete(self) -> bool:
        return len(self.publisher.trades) == len(self.simulator.truth())


def by_symbol(trades: Iterable[Trade]) -> dict[str, list[Trade]]:
    """Each trade where it stands first: while one connection takes over from another, both bring it."""
    ordered: dict[str, dict[str, Trade]] = defaultdict(dict)
    for trade in trades:
        ordered[trade.symbol].setdefault(trade.trade_id, trade)
    return {symbol: list(trades.values()) for symbol, trades in ordered.items()}


def disorder_us(trades: Sequence[Trade]) -> int:
    """How far, at most, a trade stands behind a later one, µs."""
    latest = greatest = 0
    for trade in trades:
        latest = max(latest, trade.traded_at)
        greatest = max(greatest, latest - trade.traded_at)
    return greatest


def replayed(venue: str, directory: Path) -> list[Trade]:
    reader = RecordingReader(venue)
    trades: list[Trade] = []
    for path in sorted(directory.glob(f"{venue}-*.gz")):
        for line in read_recording(path):
            reading = reader.read(line)
            assert not reading.parsed.rejected
            trades += reading.trades
    return trades + reader.finish()


async def cut_and_replaced(venue: str, directory: Path) -> None:
    async with Simulator(venue, MARKETS[venue], seed=7, rate=40, bursts=True) as simulator:
        feeds = RecordedFeeds(simulator, venue, directory)
        async with feeds.recording():
            simulator.start_market()
            await until(lambda: len(feeds.publisher.trades) > 60, 30)
            simulator.fault("refuse", seconds=1.0, drop=True)
            await until(lambda: feeds.publisher.fetched > 0, 30)
            await until(lambda: feeds.feeds.live == len(feeds.markets), 30)
            simulator.fault("lifetime", connections="all", notice_s=0.5)
            await asyncio.sleep(2)
            await simulator.stop_market()
            await until(feeds.is_complete, 30)
        truth = {(trade.symbol, trade.trade_id) for trade in simulator.truth()}
        again = replayed(venue, directory)
        assert {(trade.symbol, trade.trade_id) for trade in again} == truth
        told = by_symbol(feeds.publisher.trades)
        for symbol, trades in by_symbol(again).items():
            # Of a hole in the ids a feed holds what is behind it; a recording only what comes when its repair begins.
            assert disorder_us(trades) <= disorder_us(told[symbol]) + 900_000


def test_of_feeds_whose_connections_broke_and_were_replaced_a_replay_has_what_they_published(tmp_path):
    async def all_venues() -> None:
        async with asyncio.TaskGroup() as group:
            for venue in MARKETS:
                group.create_task(cut_and_replaced(venue, tmp_path / venue))

    asyncio.run(all_venues())
