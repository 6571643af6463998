"""The simulator as a process of its own: `ashi venue-sim`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ashi.runtime.signals import stop_signals
from ashi_simulator.rules import DEFAULT_MARKETS, RULES, check_venue
from ashi_simulator.script import random_script, read_script
from ashi_simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade


@dataclass(frozen=True, slots=True)
class VenueSimOptions:
    """The options of `ashi venue-sim`.

    Attributes:
        venue: bitflyer, gmo, binance or binance-usdm.
        markets: by the venue's names; none for a few usual ones, or for all that `trades` are of.
        seed: of the random market and of random faults.
        rate: executions per second over all markets together.
        bursts: the rate is five times as high now and then.
        trades: happen again, instead of a random market.
        speed: of the replay.
        script: a file of faults; see `ashi_simulator.script`.
        random_faults: how many random faults to perform besides, one a second.
        lifetime_s: connections are closed at this age, instead of the venue's own limit.
        starts: whether the market trades at once, when all its markets are subscribed to, or when it is told to
            (POST /sim/market).
        host: the address to listen at.
        port: 0 for a free one.

    """

    venue: str
    markets: tuple[str, ...] = ()
    seed: int = 0
    rate: float = 100.0
    bursts: bool = False
    trades: Sequence[Trade] = ()
    speed: float = 1.0
    script: Path | None = None
    random_faults: int = 0
    lifetime_s: float | None = None
    starts: Literal["at-once", "when-subscribed", "when-told"] = "at-once"
    host: str = "127.0.0.1"
    port: int = 0


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def run_venue_sim(options: VenueSimOptions, on_line: Callable[[str], None] = _print) -> None:
    """Simulate a venue until SIGTERM, SIGINT or SIGHUP; `on_line` is told first where it is and how to use it.

    Raises:
        UsageError: an option is wrong, or the port is taken.

    """
    simulator = _make(options)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = stop_signals()
    for number in numbers:
        loop.add_signal_handler(number, stopping.set)
    try:
        async with simulator:
            for line in _usage(options, simulator):
                on_line(line)
            stopped = loop.create_task(stopping.wait())
            if options.starts == "when-subscribed":
                subscribed = loop.create_task(simulator.wait_subscribed())
                await asyncio.wait({subscribed, stopped}, return_when=asyncio.FIRST_COMPLETED)
                subscribed.cancel()
            if options.starts != "when-told" and not stopping.is_set():
                simulator.start_market()
            await stopped
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _make(options: VenueSimOptions) -> Simulator:
    venue = check_venue(options.venue)
    markets = options.markets or (() if options.trades else DEFAULT_MARKETS[venue])
    rules = RULES[venue] if options.lifetime_s is None else replace(RULES[venue], lifetime_s=options.lifetime_s)
    script = [] if options.script is None else read_script(options.script)
    script += random_script(options.seed, options.random_faults, venue, markets or None)
    return Simulator(
        venue,
        markets,
        seed=options.seed,
        rate=options.rate,
        bursts=options.bursts,
        trades=options.trades,
        speed=options.speed,
        script=script,
        rules=rules,
        host=options.host,
        port=options.port,
    )


def _usage(options: VenueSimOptions, simulator: Simulator) -> list[str]:
    fault = '{"fault": "drop"}'
    return [
        f"{options.venue} is simulated; its markets are {', '.join(simulator.markets)}. In another terminal:",
        "",
        f"export ASHI_WEBSOCKET_URL={simulator.websocket_url}",
        f"export ASHI_REST_URL={simulator.rest_url}",
        f"ashi ingest {options.venue} {' '.join(simulator.markets)}",
        "",
        f"curl -d '{fault}' {simulator.rest_url}/sim/fault    breaks all connections",
        f"curl {simulator.rest_url}/sim/truth      what must have been published",
        f"curl {simulator.rest_url}/sim/limits     what was taken of the venue's limits",
    ]
