"""The chart's server: how soon what is appended is with every page, and what that takes, also if some read nothing.

    .venv/bin/python benchmarks/chart.py [--pages 500] [--symbols 50] [--mute 20] [--seconds 30] [--json]

On a real broker and an SQLite store with a day and a half of minutes of each symbol: pages, each looking at a series of
1,000 bars, spread over the symbols, in a process of their own; updates of every symbol in three timeframes four times a
second, as an aggregate worker sends them, and the closed candle at the end of each minute.

- *delay*: from before an update is handed to Kafka's client until a page has the bar of it, of all bars that come.
- *messages*: to all pages, a second; fewer than updates, where several are one.
- *core*: what the server takes of a core. *memory*: its resident set at the start of the measurement, at its end, and
  with the pages that read nothing (`--mute`), which are sent all that the others are, after as long again.
- *again*: all pages are cut off at once and come back at once: until each has its snapshot, seconds.

The numbers are those of this machine now; its pages and its producer take as much as the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
from arguments import seconds
from scale import HERE, broker, environment_of

from ashi.contracts.candle import Candle, encode_candle
from ashi.contracts.records import live_key
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import CANDLES, CANDLES_LIVE
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.settings import Settings
from ashi_cli.values import positive
from ashi_sinks.registry import make_sink

TIMEFRAMES = ("1m", "5m", "1h")
INTERVAL_S = 0.25
STORED = 2_160
BARS = 1_000
SETTLE_S = 5.0
READY_S = 60.0
MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured, as the text above has it."""

    pages: int
    symbols: int
    delay_p50_ms: float
    delay_p99_ms: float
    delay_most_ms: float
    bars: int
    messages_per_second: float
    core: float
    memory_begin_mb: float
    memory_end_mb: float
    mute: int
    memory_mute_mb: float
    again_s: float


def symbols_of(count: int) -> list[str]:
    """The markets."""
    return [f"binance:COIN{number:03}USDT" for number in range(count)]


def candle_of(symbol: str, timeframe: str, time_us: int, version: int) -> Candle:
    """One that is as long as those of real markets; its version is the time when it was made, µs."""
    length_us = Timeframe.parse(timeframe).length_us
    open_time = time_us - time_us % length_us
    price = Decimal(60_000 + version // 1_000 % 1_000) + Decimal("0.25")
    return Candle(
        symbol, timeframe, open_time, open_time + length_us, price, price + 10, price - 10, price, Decimal("123.45678"),
        Decimal("7407406.802345"), 4_321, Decimal("61.72839"), Decimal("3703703.401172"), "1", "4321", version,
    )  # fmt: skip


async def store(path: Path, symbols: Sequence[str], now_us: int) -> None:
    """What a sink has stored up to now."""
    sink = make_sink(f"sqlite:///{path}")
    await sink.open()
    for symbol in symbols:
        opens = range(now_us - STORED * MINUTE_US, now_us - MINUTE_US, MINUTE_US)
        await sink.write([candle_of(symbol, "1m", each, each) for each in opens])
    await sink.close()


def produce(env: Mapping[str, str], symbols: Sequence[str], stop: Any) -> None:
    """In a process of its own: send updates of all symbols, and what closes, until told to stop."""

    async def send() -> None:
        producer = make_producer(Settings.from_environment(env))
        await producer.start()
        minute = time.time_ns() // 1_000 // MINUTE_US
        while not stop.is_set():
            began_s = time.monotonic()
            for place, symbol in enumerate(symbols):
                now_us = time.time_ns() // 1_000
                for timeframe in TIMEFRAMES:
                    update = encode_candle(candle_of(symbol, timeframe, now_us, now_us))
                    await producer.send(CANDLES_LIVE, update, live_key(symbol, timeframe))
                if place % 10 == 9:
                    await asyncio.sleep(INTERVAL_S / len(symbols) * 5)
            if time.time_ns() // 1_000 // MINUTE_US != minute:
                for symbol in symbols:
                    now_us = time.time_ns() // 1_000
                    closed = candle_of(symbol, "1m", minute * MINUTE_US, now_us)
                    await producer.send(CANDLES, encode_candle(closed), symbol.encode())
                minute = time.time_ns() // 1_000 // MINUTE_US
            await asyncio.sleep(max(began_s + INTERVAL_S - time.monotonic(), 0))
        await producer.stop()

    asyncio.run(send())


class Pages:
    """All pages, in a process of their own: each looks at a series, and notes how old a bar is when it comes."""

    def __init__(self, address: str, symbols: Sequence[str], count: int) -> None:
        self._address = address
        self._symbols = symbols
        self._count = count
        self.delays_ms: list[float] = []
        self.messages = 0
        self.snapshots = 0
        self.has_all = asyncio.Event()

    async def page(self, client: aiohttp.ClientSession, number: int) -> None:
        """One page, until it is cut off."""
        decode = msgspec.json.Decoder().decode
        async with client.ws_connect(f"{self._address}ws", max_msg_size=0) as page:
            symbol = self._symbols[number % len(self._symbols)]
            await page.send_json({"op": "series", "symbol": symbol, "timeframe": "1m", "bars": BARS})
            async for message in page:
                now_us = time.time_ns() // 1_000
                told = decode(message.data)
                self.messages += 1
                if told["t"] == "bars":
                    self.delays_ms += [(now_us - bar[7]) / 1_000 for bar in told["bars"]]
                elif told["t"] == "snapshot":
                    self.snapshots += 1
                    if self.snapshots == self._count:
                        self.has_all.set()

    async def come(self, client: aiohttp.ClientSession) -> tuple[list[asyncio.Task[None]], float]:
        """Connect all at once; how long it takes until each has its snapshot, seconds."""
        self.snapshots, self.has_all = 0, asyncio.Event()
        began_s = time.monotonic()
        tasks = [asyncio.create_task(self.page(client, number)) for number in range(self._count)]
        async with asyncio.timeout(READY_S):
            await self.has_all.wait()
        return tasks, time.monotonic() - began_s


def look(address: str, symbols: Sequence[str], count: int, orders: Any, found: Any) -> None:
    """In a process of its own: pages, by what `orders` say; each is answered."""

    async def main() -> None:
        pages = Pages(address, symbols, count)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            tasks, took_s = await pages.come(client)
            found.put(took_s)
            while (order := await asyncio.to_thread(orders.get)) != "end":
                if order == "begin":
                    pages.delays_ms, pages.messages = [], 0
                    found.put(None)
                elif order == "tell":
                    found.put((pages.delays_ms, pages.messages))
                else:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    tasks, took_s = await pages.come(client)
                    found.put(took_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


async def mute_page(address: str, symbol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A page that asks for a series and then reads nothing of what it is sent."""
    host, _, port = address.removeprefix("http://").rstrip("/").partition(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    raw.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1_024)
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    asked = json.dumps({"op": "series", "symbol": symbol, "timeframe": "1m", "bars": 20_000}).encode()
    writer.write(bytes([0x81, 0x80 | 126]) + len(asked).to_bytes(2, "big") + bytes(4) + asked)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return reader, writer


def serve(env: Mapping[str, str], path: Path) -> tuple[subprocess.Popen[str], str]:
    """The server as a process, and where it is."""
    command = [sys.executable, "-m", "ashi_cli.main", "chart", "--port", "0", "--storage", f"sqlite:///{path}"]
    server = subprocess.Popen(command, env={**env, "ASHI_LOG_FORMAT": "json"}, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    address = ""
    for line in server.stderr:
        event = json.loads(line)
        address = event.get("address") or address
        if event["event"] == "reading candles":
            break
    return server, address


def measure(env: Mapping[str, str], pages: int, symbols: Sequence[str], mute: int, length_s: float) -> Result:
    """One run."""
    context = multiprocessing.get_context("spawn")
    orders, found, stop = context.Queue(), context.Queue(), context.Event()
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as folder:
        path = Path(folder) / "candles.db"
        now_us = time.time_ns() // 1_000
        asyncio.run(store(path, symbols, now_us - now_us % MINUTE_US))
        server, address = serve(env, path)
        process = psutil.Process(server.pid)
        producing = context.Process(target=produce, args=(env, symbols, stop))
        looking = context.Process(target=look, args=(address, symbols, pages, orders, found))
        try:
            producing.start()
            looking.start()

            def order(what: str) -> Any:
                orders.put(what)
                return found.get(timeout=READY_S)

            found.get(timeout=READY_S)
            time.sleep(SETTLE_S)
            order("begin")
            begin_mb, cpu_s, began_s = _memory_mb(process), _cpu_s(process), time.monotonic()
            time.sleep(length_s)
            core = (_cpu_s(process) - cpu_s) / (time.monotonic() - began_s)
            delays, messages = order("tell")
            end_mb = _memory_mb(process)
            mute_mb = asyncio.run(_with_mute_pages(process, address, symbols, mute, length_s))
            again_s = order("again")
            orders.put("end")
        finally:
            stop.set()
            server.terminate()
            for each in (looking, producing):
                each.join(10)
                each.kill()
            server.wait(30)
    percentiles = statistics.quantiles(delays, n=100)
    return Result(
        pages, len(symbols), percentiles[49], percentiles[98], max(delays), len(delays), messages / length_s, core,
        begin_mb, end_mb, mute, mute_mb, again_s,
    )  # fmt: skip


async def _with_mute_pages(
    process: psutil.Process, address: str, symbols: Sequence[str], count: int, length_s: float
) -> float:
    async with AsyncExitStack() as open_pages:
        most = 0.0
        for number in range(count):
            _, writer = await mute_page(address, symbols[number % len(symbols)])
            open_pages.callback(writer.transport.abort)
        until_s = time.monotonic() + length_s
        while time.monotonic() < until_s:
            most = max(most, _memory_mb(process))
            await asyncio.sleep(0.5)
        return most


def _memory_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=positive, default=500)
    parser.add_argument("--symbols", type=positive, default=50)
    parser.add_argument("--mute", type=positive, default=20)
    parser.add_argument("--seconds", type=seconds, default=30.0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with broker(environment_of(HERE)) as (_, env, _):
        result = measure(env, chosen.pages, symbols_of(chosen.symbols), chosen.mute, chosen.seconds)
    if chosen.json:
        print(json.dumps(asdict(result)))
        return
    print(
        f"{result.pages} pages, {result.symbols} symbols: delay {result.delay_p50_ms:.0f} ms, 99 % within "
        f"{result.delay_p99_ms:.0f} ms, the longest {result.delay_most_ms:.0f} ms ({result.bars} bars, "
        f"{result.messages_per_second:.0f} messages/s); {result.core:.2f} of a core; memory "
        f"{result.memory_begin_mb:.0f} MB, {result.memory_end_mb:.0f} MB in the end, {result.memory_mute_mb:.0f} MB "
        f"with {result.mute} pages that read nothing; all again after {result.again_s:.1f} s"
    )


if __name__ == "__main__":
    main()
