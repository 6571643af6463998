"""What a live trade costs in each step of an ingest worker, without Kafka and without a network: CPU of one thread.

    .venv/bin/python benchmarks/ingest_steps.py [--frames N] [--at-once N] [--json]

Frames of Binance, one trade each, 24 markets in turn at random, so many in a read: cut out of the bytes of a websocket,
parsed, seen to by the feeds, encoded into batches, compressed. What `benchmarks/ingest.py` measures beyond these is the
system's: sockets, the event loop, requests to Kafka. Each step is measured for all frames before the next begins, three
times; the least counts, as other work only ever adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from ashi.runtime.kafka.connections.clients import MAX_BATCH_BYTES
from ashi.runtime.settings import Settings
from ashi_cli.values import positive
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.feed.supervisor import FeedSupervisor
from ashi_ingest.feed.symbol.sequencer import Mode
from ashi_ingest.publish.backpressure import Backpressure
from ashi_ingest.publish.buffer import PublishBuffer
from ashi_ingest.publish.publisher import Publisher
from ashi_ingest.venues.registry import VENUES
from ashi_ingest.websocket.frames import FrameConnection
from ashi_ingest.websocket.session import MAX_FRAME

VENUE = "binance"
MARKETS = [f"M{number}USDT" for number in range(24)]
PARTITIONS = 8
ROUNDS = 3
ZSTD = 4
"""The library's number."""


def make_frames(count: int) -> list[bytes]:
    """Frames as Binance sends them; the ids of each market count up by one."""
    chance = random.Random(7)
    last, now_ms, price = dict.fromkeys(MARKETS, 0), time.time_ns() // 1_000_000, 6_183_763
    frames = []
    for number in range(count):
        market, at_ms = chance.choice(MARKETS), now_ms + number // 20
        last[market] += 1
        price += chance.choice((0, 0, 0, -1, 1, -37, 35))
        event = {"e": "trade", "E": at_ms, "s": market, "t": last[market], "p": f"{price / 100:.8f}"}
        event |= {"q": f"{chance.randrange(1, 900_000) / 1e5:.8f}", "T": at_ms, "m": chance.random() < 0.5, "M": True}
        frame = {"stream": f"{market.lower()}@trade", "data": event}
        frames.append(json.dumps(frame, separators=(",", ":")).encode())
    return frames


def of_websocket(frames: Sequence[bytes]) -> bytes:
    """As a server sends them."""
    return b"".join(
        bytes((0x81, len(frame))) + frame if len(frame) < 126 else b"\x81\x7e" + len(frame).to_bytes(2) + frame
        for frame in frames
    )


class Producer:
    """Takes batches as the library's does, and keeps them."""

    def __init__(self) -> None:
        self.batches: list[BatchBuilder] = []

    def create_batch(self) -> BatchBuilder:
        """An empty one."""
        return BatchBuilder(MAX_BATCH_BYTES, ZSTD)

    async def send_batch(self, batch: BatchBuilder, _: str, **__: int) -> asyncio.Future[None]:
        """It is acknowledged at once, without a place."""
        self.batches.append(batch)
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged


class Watch:
    """CPU of this thread by step, µs a frame."""

    def __init__(self, frames: int) -> None:
        self.steps: dict[str, float] = {}
        self._frames = frames
        self._begun_s = time.thread_time()

    def begin(self) -> None:
        """What follows counts."""
        self._begun_s = time.thread_time()

    def end(self, step: str) -> None:
        """It was this."""
        self.steps[step] = (time.thread_time() - self._begun_s) / self._frames * 1e6


async def cut_out(watch: Watch, reads: Sequence[bytes], count: int) -> None:
    """From the bytes of a websocket to frames."""
    protocol = ClientProtocol(parse_uri("ws://venue/"), max_size=MAX_FRAME, state=State.OPEN)
    socket = FrameConnection(protocol, max_frame=MAX_FRAME, ping_interval=None)
    nothing: Any = SimpleNamespace(
        set_write_buffer_limits=lambda *_: None, pause_reading=lambda: None, resume_reading=lambda: None
    )
    socket.connection_made(nothing)

    async def take() -> None:
        taken = 0
        while taken < count:
            taken += len((await socket.recv_many()).messages)

    taking = asyncio.create_task(take())
    await asyncio.sleep(0)
    watch.begin()
    for read in reads:
        socket.data_received(read)
        await asyncio.sleep(0)
    await taking
    watch.end("frames")


def make_feeds(publisher: Any, publish_buffer: PublishBuffer) -> tuple[FeedSupervisor, Any]:
    """Feeds of all markets that are live, and a connection."""
    feeds = FeedSupervisor(
        VENUES[VENUE].live(has_key=False),
        {market: [] for market in MARKETS},
        publish_buffer=publish_buffer,
        reporter=FeedReporter(publisher, VENUE),
        rest=SimpleNamespace(),  # type: ignore[arg-type]
        recorder=None,
        backpressure=Backpressure(publish_buffer, 10**9),
        patience_s=60.0,
    )
    connection: Any = SimpleNamespace(number=1, markets=tuple(MARKETS), has_traded=lambda _: None)
    feeds.on_open(connection)
    for feed in feeds._feeds.values():
        feed.checked.has_begun, feed._sequencer.mode = True, Mode.LIVE
    return feeds, connection


async def measure(frames: Sequence[bytes], at_once: int) -> dict[str, float]:
    """One round."""
    watch = Watch(len(frames))
    parts = [frames[begin : begin + at_once] for begin in range(0, len(frames), at_once)]
    await cut_out(watch, [of_websocket(part) for part in parts], len(frames))
    parse, now_us = VENUES[VENUE].parser().parse, time.time_ns() // 1_000
    watch.begin()
    for frame in frames:
        parse(frame, now_us)
    watch.end("parsing")
    producer = Producer()
    publisher = Publisher(Settings.from_environment({}), producer, VENUE, PARTITIONS, live=True)
    publish_buffer = PublishBuffer(publisher)
    feeds, connection = make_feeds(publisher, publish_buffer)
    watch.begin()
    for part in parts:
        if feeds.on_frames(connection, part, time.time_ns()) != len(part):
            raise SystemExit("a frame was not taken for a trade's")
    watch.end("feeds")
    watch.steps["feeds"] -= watch.steps["parsing"]
    watch.begin()
    await publish_buffer.empty()
    await publisher.flush()
    watch.end("batches")
    watch.begin()
    for batch in producer.batches:
        batch._build()
    watch.end("compression")
    if sum(batch.record_count() for batch in producer.batches) != len(frames):
        raise SystemExit("not every trade is in a batch")
    return watch.steps


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=positive, default=20_000)
    parser.add_argument("--at-once", type=positive, default=40, help="frames in a read")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    frames = make_frames(arguments.frames)
    rounds = [asyncio.run(measure(frames, arguments.at_once)) for _ in range(ROUNDS)]
    least = {step: min(each[step] for each in rounds) for step in rounds[0]}
    if arguments.json:
        print(json.dumps(least))
        return 0
    for step, cpu_us in (least | {"together": sum(least.values())}).items():
        print(f"{step:<12} {cpu_us:6.2f} µs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
