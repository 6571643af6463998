from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest

from ashi.contracts.errors import UsageError
from ashi.runtime.health import Health, serve
from ashi.runtime.metrics import aggregate as metrics

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


def test_a_process_is_live_until_its_last_beat_is_too_old() -> None:
    clock = Clock()
    health = Health(live_bound_s=10.0, clock=clock)
    clock.now += 9.9
    assert health.live()[0]
    clock.now += 0.1
    assert health.live() == (False, "no progress for 10.0 s; at most 10 s are allowed")
    health.beat()
    assert health.live()[0]


def test_a_process_of_which_a_part_hangs_is_not_live_however_often_it_beats() -> None:
    health = Health()
    health.set_hanging("on_candle has taken 12 s")
    health.beat()
    assert health.live() == (False, "on_candle has taken 12 s")
    health.set_hanging(None)
    assert health.live()[0]


def test_live_is_served_with_its_reason(settings: Settings) -> None:
    async def scenario() -> tuple[tuple[int, str], tuple[int, str]]:
        clock = Clock()
        health = Health(live_bound_s=5.0, clock=clock)
        async with serve(settings, health) as address:
            good = await get(f"{address}/live")
            clock.now += 60
            return good, await get(f"{address}/live")

    good, bad = asyncio.run(scenario())
    assert good[0] == 200
    assert bad == (503, "no progress for 60.0 s; at most 5 s are allowed\n")


def test_a_process_is_ready_when_it_says_so_and_not_before(settings: Settings) -> None:
    async def scenario() -> list[tuple[int, str]]:
        health = Health()
        async with serve(settings, health) as address:
            answers = [await get(f"{address}/ready")]
            for ready, reason in ((True, "recovered"), (False, "stopping")):
                health.set_ready(ready, reason)
                answers.append(await get(f"{address}/ready"))
        return answers

    assert asyncio.run(scenario()) == [(503, "starting\n"), (200, "recovered\n"), (503, "stopping\n")]


def test_metrics_are_served_as_prometheus_reads_them(settings: Settings) -> None:
    async def scenario() -> tuple[str, str]:
        async with (
            serve(settings, Health()) as address,
            aiohttp.ClientSession() as session,
            session.get(f"{address}/metrics") as response,
        ):
            return response.headers["Content-Type"], await response.text()

    metrics.chunk_holes.inc(3)
    content_type, text = asyncio.run(scenario())
    assert content_type.startswith("text/plain; version=")
    [line] = [line for line in text.splitlines() if line.startswith("ashi_chunk_holes_total ")]
    assert float(line.split()[1]) >= 3


def test_a_port_that_is_taken_is_wrong_usage_and_names_the_setting(settings: Settings) -> None:
    async def scenario(port: int) -> None:
        async with serve(dataclasses.replace(settings, metrics_port=port), Health()):
            pytest.fail("the port is taken")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} of 127.0.0.1 is taken.*ASHI_METRICS_PORT"):
            asyncio.run(scenario(port))


def test_an_address_of_another_machine_is_wrong_usage_and_names_the_setting(settings: Settings) -> None:
    async def scenario() -> None:
        async with serve(dataclasses.replace(settings, metrics_host="192.0.2.1"), Health()):
            pytest.fail("the address is for documentation only")

    with pytest.raises(UsageError, match=r"192.0.2.1.*ASHI_METRICS_HOST"):
        asyncio.run(scenario())


def test_the_port_is_free_again_afterwards(settings: Settings) -> None:
    async def scenario() -> None:
        async with serve(settings, Health()) as address:
            port = int(address.rpartition(":")[2])
        async with serve(dataclasses.replace(settings, metrics_port=port), Health()) as again:
            assert again == address

    asyncio.run(scenario())
