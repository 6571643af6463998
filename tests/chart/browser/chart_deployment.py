"""A deployment for tests of the pages: real Kafka, a SQLite store that a sink fills, and `ashi chart` as a process.

Candles and what feeds say are published by the tests; where a test wants them made of trades it starts the aggregate
stage, too.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts import Trade, encode_trade, parse_timeframes
from ashi.contracts.candle import Candle, encode_candle
from ashi.contracts.feed import FeedGap, FeedStatus, encode_feed
from ashi.contracts.instrument import Instrument, encode_instrument
from ashi.contracts.records import live_key
from ashi.contracts.signal import Signal, encode_signal
from ashi.contracts.topics import (
    CANDLES,
    CANDLES_LIVE,
    FEED_GAPS,
    FEED_STATUS,
    INSTRUMENTS,
    SIGNALS,
    TRADES,
    topic_specs,
)
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import make_producer
from ashi_sinks.registry import make_sink, open_reader
from servers.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from ashi.runtime.settings import Settings
    from conftest import StartStage
    from servers.stages import Stage

CLOSED, CORRECTED, COMPLETE, INCOMPLETE, FLAT = 1, 2, 4, 8, 16
"""The flags of a bar, as docs/chart.md has them."""
SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US

_TOPICS: Final[list[tuple[type, str, Any]]] = [
    (Candle, CANDLES, encode_candle),
    (Trade, TRADES, encode_trade),
    (FeedGap, FEED_GAPS, encode_feed),
    (FeedStatus, FEED_STATUS, encode_feed),
    (Instrument, INSTRUMENTS, encode_instrument),
    (Signal, SIGNALS, encode_signal),
]


def now_us() -> int:
    return time.time_ns() // 1000


class Deployment:
    """Made by `a_deployment`."""

    def __init__(self, settings: Settings, start_stage: StartStage, folder: Path, timeframes: str) -> None:
        self.settings = settings
        self.storage = f"sqlite:///{folder}/candles.db"
        self.port = free_port()
        self.chart: Stage | None = None
        self._start_stage = start_stage
        self._stages: list[Stage] = []
        self._timeframes = timeframes
        self._producer = make_producer(settings)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def chart_url(self, symbol: str, timeframe: str, path: str = "") -> str:
        return f"{self.url}{path}chart?symbol={symbol}&timeframe={timeframe}"

    def start(self, *arguments: str, **env: str) -> Stage:
        stage = self._start_stage(*arguments, ASHI_STORAGE=self.storage, ASHI_TIMEFRAMES=self._timeframes, **env)
        self._stages.append(stage)
        return stage

    def check(self) -> None:
        """See that all stages still run, but for a chart that was killed."""
        for stage in self._stages:
            if stage.process.poll() not in {None, -signal.SIGKILL}:
                raise AssertionError(stage.log.read_text()[-3000:])

    def start_chart(self, **env: str) -> None:
        """Start it, or start it again on the same port."""
        self.chart = self.start("chart", ASHI_CHART_PORT=str(self.port), **env)
        self.chart.wait_for("the chart is served")

    async def send(self, *messages: Any) -> None:
        """Publish messages, in order."""
        for message in messages:
            topic, encode = next((topic, encode) for kind, topic, encode in _TOPICS if isinstance(message, kind))
            await self._producer.send(topic, encode(message), message.symbol.encode())
        await self._producer.flush()

    async def send_live(self, *candles: Candle) -> None:
        """Publish candles in progress."""
        for candle in candles:
            key = live_key(candle.symbol, candle.timeframe)
            await self._producer.send(CANDLES_LIVE, encode_candle(candle), key)
        await self._producer.flush()

    async def store(self, candles: Sequence[Candle]) -> None:
        """Put candles into the store, as if a sink had done so long ago."""
        sink = make_sink(self.storage)
        await sink.open()
        await sink.write(candles)
        await sink.close()

    async def stored(self, symbol: str, timeframe: str, **bounds: int) -> list[Candle]:
        async with open_reader(self.storage) as reader:
            return [candle async for candle in reader.read(symbol, timeframe, **bounds)]


@asynccontextmanager
async def a_deployment(
    settings: Settings, start_stage: StartStage, folder: Path, timeframes: str = "1s,1m,1h"
) -> AsyncIterator[Deployment]:
    """A deployment of which nothing runs yet but the producer of what tests publish."""
    deployment = Deployment(settings, start_stage, folder, timeframes)
    # Those of the timeframes that the tests' Kafka has not.
    await create_topics(settings, topic_specs(settings.partitions, parse_timeframes(timeframes)))
    await deployment._producer.start()
    try:
        yield deployment
    finally:
        await deployment._producer.stop()


class Market:
    """Trades of a symbol as time goes by, at a price that wanders; `async with` publishes them in the background."""

    def __init__(self, deployment: Deployment, symbol: str, price: int = 100_000, every_s: float = 0.04) -> None:
        self.symbol = symbol
        self._deployment = deployment
        self._price = price
        self._every_s = every_s
        self._chance = random.Random(symbol)
        self._number = 0
        self._task: asyncio.Task[None] | None = None

    def trade(self, traded_at: int | None = None, price: Decimal | None = None) -> Trade:
        """The next trade."""
        self._number += 1
        self._price += self._chance.randint(-40, 40)
        at = now_us() if traded_at is None else traded_at
        return Trade(
            symbol=self.symbol,
            trade_id=str(self._number),
            price=Decimal(self._price) / 100 if price is None else price,
            size=Decimal(self._chance.randint(1, 10**6)) / 10**4,
            side=self._chance.choice(("buy", "sell")),
            traded_at=at,
            received_at=at,
            sequence=self._number,
        )

    async def __aenter__(self) -> Market:
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _go_on(self) -> None:
        while True:
            await self._deployment.send(self.trade())
            await asyncio.sleep(self._every_s)
