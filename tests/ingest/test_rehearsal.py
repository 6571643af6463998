"""What rehearsals stand on: time that passes by itself, a Kafka in memory, a reader who catches a worker that lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from kafka_in_memory import KafkaInMemory
from rehearsal import Rehearsal
from shared_time import run_virtually

from ashi.contracts.topics import FEED_STATUS, TRADES
from ashi_ingest.feed.reporting.status import FeedReporter
from ashi_ingest.rate_limiter import RateLimiter

really = time.monotonic


def test_an_hour_takes_moments_and_every_clock_says_so() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = time.time_ns(), time.time(), time.monotonic(), time.monotonic_ns(), loop.time()
        await asyncio.sleep(3600)
        after = time.time_ns(), time.time(), time.monotonic(), time.monotonic_ns(), loop.time()
        passed = [(now - then) / unit for now, then, unit in zip(after, before, (1e9, 1, 1, 1e9, 1), strict=True)]
        assert passed == pytest.approx([3600.0] * 5, abs=0.01)

    begun = really()
    run_virtually(main)
    assert really() - begun < 60
    assert time.monotonic is really


def test_a_clock_that_is_the_default_of_an_argument_is_that_clock_too() -> None:
    async def main() -> None:
        limiter = RateLimiter(60.0)
        begun = time.monotonic()
        for _ in range(3):
            await limiter.turn()
        assert time.monotonic() - begun == pytest.approx(120.0, abs=1.0)

    begun = really()
    run_virtually(main)
    assert really() - begun < 30


def test_what_comes_over_a_socket_comes_before_time_goes_on() -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        begun = time.monotonic()
        writer.write(b"hello\n")
        assert await asyncio.wait_for(reader.readline(), 3600) == b"hello\n"
        assert time.monotonic() - begun < 60
        writer.close()
        server.close()

    run_virtually(main)


def test_a_partition_keeps_its_order_however_long_acknowledgments_take() -> None:
    kafka = KafkaInMemory()
    delays = iter([3.0, 0.1, 1.0])
    kafka.acknowledgment_s = lambda topic: 0.01 if topic == FEED_STATUS else next(delays)

    async def main() -> None:
        futures = [kafka.take(TRADES, 0, [(b"k", str(number).encode(), ())]) for number in range(3)]
        status = kafka.take(FEED_STATUS, 0, [(b"k", b"status", ())])
        await status
        assert [record.value for record in kafka.log] == [b"status"]
        await asyncio.gather(*futures)
        assert [record.value for record in kafka.log[1:]] == [b"0", b"1", b"2"]
        assert [record.offset for record in kafka.log[1:]] == [0, 1, 2]

    run_virtually(main)


def claim_all(reporter: FeedReporter, symbol: str) -> None:
    """What changes is said at once; else it would go out with a heartbeat, when all may be there again."""
    now_us = time.time_ns() // 1000
    reporter.set_complete_until(symbol, now_us)
    reporter.set_state(symbol, "connected", f"all is known up to {now_us}")


CLAIMS: dict[str, Callable[[FeedReporter, str], None]] = {
    "all is known up to now": claim_all,
    "nothing": lambda reporter, symbol: None,
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_worker_that_claims_too_much_is_caught(claim: str) -> None:
    """The reader is misled by nobody but a worker that lies."""

    async def act(run: Rehearsal) -> None:
        await run.pause(30)
        run.fault("mute", market="BTC", seconds=20.0)
        for _ in range(20):
            await run.pause(1)
            CLAIMS[claim](reporters[-1], "gmo:BTC")

    reporters: list[FeedReporter] = []
    with pytest.MonkeyPatch.context() as patch:
        made = FeedReporter.__init__

        def make(reporter: FeedReporter, *arguments: object, **options: object) -> None:
            made(reporter, *arguments, **options)  # type: ignore[arg-type]
            reporters.append(reporter)

        patch.setattr(FeedReporter, "__init__", make)
        run = Rehearsal("gmo", ("BTC", "BTC_JPY"), rate=3.0).run(act)
    assert (run.reader.misled_trades > 0) == (claim != "nothing"), run.reader.misled[:3]
