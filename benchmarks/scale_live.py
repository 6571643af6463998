"""The second half of `scale.py`: trades as they happen, and how soon after its end a window's candle is in Kafka."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from scale_replay import Worker, state_records
from trades import START_ID, names_of, send_in_batches

from ashi.contracts import Trade, decode_candle, encode_trade
from ashi.contracts.topics import CANDLES, TRADES
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings

HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
END_US = 1_700_000_000_000_000 // HOUR_US * HOUR_US
"""The end of an hour, in the trades' own time. That runs as fast as the clock, so it comes when we want it to come."""
LEAD_S = 14.0
"""How long before that trades begin to come."""
SETTLE_S = 6.0
"""After a change of the rate, and after the end of a window, before the state is measured."""
TICK_S = 0.02
AT_ONCE = 100
"""So many symbols trade for the first time at once."""
QUIET = 10
"""Of so many symbols one is quiet."""
READY_S = 60.0

_Window = tuple[str, str, int]
"""Symbol, timeframe and open time."""
_Seen = tuple[int, float, float, float, tuple[float, float]]
"""Rate, share of a core, memory at first and at last, records and bytes of the state per second."""


@dataclass(frozen=True, slots=True)
class Live:
    """What was measured at one rate. Delays are those of candles, `missing` are those that had not come in the end.

    `core`: how much of a core the worker took. `state_…`: what it wrote to changelogs.
    """

    rate: int
    core: float
    memory_first_mb: float
    memory_last_mb: float
    state_records_per_second: float
    state_bytes_per_second: float
    candles: int
    flat: int
    missing: int
    delay_p50_ms: float
    delay_p99_ms: float
    delay_most_ms: float


class Market:
    """Trades at a rate, each as it happens, but for the quiet symbols: those trade once, at the beginning."""

    def __init__(self, settings: Settings, symbols: int) -> None:
        self.shift_us = 0
        self.rate = 0
        self._symbols = [
            (name, name.encode(), partition_of(name.encode(), settings.partitions)) for name in names_of(symbols)
        ]
        self._active = [each for number, each in enumerate(self._symbols) if number % QUIET]
        self._rng = random.Random(1)
        self._id = START_ID
        self._producer = make_producer(settings)

    async def begin(self) -> None:
        """Let each symbol trade once. The trades' own time begins here, `LEAD_S` before the end of the hour.

        Not all at one time: those sent last would be late by as much as it takes to send them, and with them, for as
        long as they are quiet, the closing of their windows.
        """
        await self._producer.start()
        self.shift_us = time.time_ns() // 1000 - (END_US - int(LEAD_S * 1e6))
        for begin in range(0, len(self._symbols), AT_ONCE):
            now_us = time.time_ns() // 1000 - self.shift_us
            trades = [self._trade(each, now_us) for each in self._symbols[begin : begin + AT_ONCE]]
            await asyncio.gather(*await send_in_batches(self._producer, TRADES, trades))

    async def run(self) -> None:
        """Trade until cancelled, and disconnect."""
        last_us = time.time_ns() // 1000
        owed = 0.0
        try:
            while True:
                await asyncio.sleep(TICK_S)
                now_us = time.time_ns() // 1000
                owed += self.rate * (now_us - last_us) / 1e6
                count, owed = int(owed), owed % 1
                step = (now_us - last_us) / max(count, 1)
                times = [int(last_us + step * (number + 1)) - self.shift_us for number in range(count)]
                await send_in_batches(
                    self._producer,
                    TRADES,
                    [self._trade(self._rng.choice(self._active), traded_at) for traded_at in times],
                )
                last_us = now_us
        finally:
            await self._producer.stop()

    def _trade(self, symbol: tuple[str, bytes, int], traded_at: int) -> tuple[int, bytes, bytes]:
        rng = self._rng
        self._id += 1
        name, key, partition = symbol
        trade = Trade(
            symbol=name,
            trade_id=str(self._id),
            price=Decimal(rng.randrange(2_600_000, 2_700_000)).scaleb(-3),
            size=Decimal(rng.randrange(1, 10**9)).scaleb(-8),
            side="buy" if self._id % 2 else "sell",
            traded_at=traded_at,
            received_at=traded_at + 1_000,
            sequence=self._id,
        )
        return partition, key, encode_trade(trade)


class StateMeter:
    """Records and bytes of the changelogs per second between two looks."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._before = (0.0, 0, 0)

    async def look(self) -> tuple[float, float]:
        """Records and bytes per second since the last look."""
        now = (time.monotonic(), await state_records(self._settings), self._bytes())
        before, self._before = self._before, now
        return (now[1] - before[1]) / (now[0] - before[0]), (now[2] - before[2]) / (now[0] - before[0])

    def _bytes(self) -> int:
        return sum(log.stat().st_size for log in self._folder.rglob("*-changelog-*/*.log"))


async def delays_of(
    settings: Settings, shift_us: int, ends: Mapping[int, int]
) -> dict[int, tuple[dict[_Window, float], int]]:
    """For each rate: ms from the end of a window, and the lateness, to its first candle; and how many were flat.

    `ends`: the rate at which each end of a window (µs, the trades' own time) came.
    """
    found: dict[int, tuple[dict[_Window, float], int]] = {rate: ({}, 0) for rate in ends.values()}
    async for record in read_topic(settings, CANDLES):
        candle = decode_candle(record.value)
        if candle.close_time not in ends:
            continue
        rate = ends[candle.close_time]
        delays, flat = found[rate]
        key = candle.symbol, candle.timeframe, candle.open_time
        if key not in delays:
            due_us = candle.close_time + shift_us + settings.allowed_lateness_us
            delays[key] = record.timestamp - due_us / 1000
            found[rate] = delays, flat + (candle.trade_count == 0)
    return found


class _Course:
    """The course of a live part: the rates, and the ends of windows that come at each."""

    def __init__(self, worker: Worker, market: Market, meter: StateMeter) -> None:
        self._worker, self._market, self._meter = worker, market, meter
        self._trading: asyncio.Task[None] | None = None
        self._began = 0.0
        self.ends: dict[int, int] = {}
        self.seen: list[_Seen] = []

    async def begin(self, rate: int) -> None:
        """Wait for the worker, then trade."""
        deadline = time.monotonic() + READY_S
        while not self._worker.is_ready:
            self._worker.check()
            if time.monotonic() > deadline:
                raise SystemExit("the worker does not get ready")
            await asyncio.sleep(0.1)
        self._market.rate = rate
        await self._market.begin()
        self._began = time.monotonic()
        self._trading = asyncio.create_task(self._market.run())

    async def end(self) -> None:
        """Trade no more."""
        if self._trading is not None:
            self._trading.cancel()
            await asyncio.gather(self._trading, return_exceptions=True)

    async def _until(self, data_us: float) -> None:
        """Wait until the trades' own time has come there."""
        at = self._began + LEAD_S + (data_us - END_US) / 1e6
        while (left_s := at - time.monotonic()) > 0:
            self._worker.check()
            if self._trading is not None and self._trading.done():
                self._trading.result()
            await asyncio.sleep(min(0.5, left_s))

    async def run(self, rate: int, begin_us: float, ends: Sequence[int], lateness_us: int) -> None:
        """Trade at a rate until the last of these ends of windows has passed; measure from `begin_us` on."""
        worker = self._worker
        self._market.rate = rate
        await self._until(begin_us)
        memory, cpu_s, at = worker.memory_mb, worker.cpu_s, time.monotonic()
        await self._meter.look()
        await self._until(ends[0] - 500_000)
        state = await self._meter.look()
        self.ends |= dict.fromkeys(ends, rate)
        await self._until(ends[-1] + SETTLE_S * 1e6 + lateness_us)
        core = (worker.cpu_s - cpu_s) / (time.monotonic() - at)
        self.seen.append((rate, core, memory, worker.memory_mb, state))


async def live(
    settings: Settings,
    env: Mapping[str, str],
    tree: Path,
    folder: Path,
    *,
    symbols: int,
    rates: Sequence[int],
    minutes: int,
) -> list[Live]:
    """Measure a worker of the version in `tree` on an empty broker; `folder` is that of the broker."""
    worker = Worker(env, tree, folder / "live.log")
    market = Market(settings, symbols)
    course = _Course(worker, market, StateMeter(settings, folder))
    settle_us = SETTLE_S * 1e6
    try:
        await course.begin(rates[0])
        for number, rate in enumerate(rates):
            # The end of the hour comes at the first rate; each later one has a minute, the last one all that are left.
            last = max(minutes, number) if number == len(rates) - 1 else number
            ends = [END_US + each * MINUTE_US for each in range(number, last + 1)]
            begin_us = ends[0] - (LEAD_S * 1e6 if number == 0 else MINUTE_US - 2 * settle_us) + settle_us
            await course.run(rate, begin_us, ends, settings.allowed_lateness_us)
    finally:
        await course.end()
        worker.stop()
    found = await delays_of(settings, market.shift_us, course.ends)
    expected = dict.fromkeys(rates, 0)
    for end, rate in course.ends.items():
        expected[rate] += symbols * sum(end % each.length_us == 0 for each in settings.timeframes)
    return [_result(each, found[each[0]], expected[each[0]]) for each in course.seen]


def _result(seen: _Seen, found: tuple[Mapping[_Window, float], int], expected: int) -> Live:
    delays, flat = found
    rate, core, memory_first, memory_last, (records, size) = seen
    came = list(delays.values()) or [math.nan]
    cuts = statistics.quantiles(came, n=100) if len(came) > 1 else came * 99
    return Live(
        rate=rate,
        core=core,
        memory_first_mb=memory_first,
        memory_last_mb=memory_last,
        state_records_per_second=records,
        state_bytes_per_second=size,
        candles=len(delays),
        flat=flat,
        missing=expected - len(delays),
        delay_p50_ms=cuts[49],
        delay_p99_ms=cuts[98],
        delay_most_ms=max(came),
    )
