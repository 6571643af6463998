"""The simulator as a process of its own: `ashi venue-sim`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from ashi.contracts.errors import UsageError
from ashi.runtime.signals import stop_signals
from ashi_simulator.rules import DEFAULT_MARKETS, RULES, check_venue
from ashi_simulator.script import random_script, read_script
from ashi_simulator.server import NEVER_OF_ONGOING, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade


USUAL_RATE: Final = 100.0
ONGOING_RATE: Final = 1.0


@dataclass(frozen=True, slots=True)
class VenueSimOptions:
    """The options of `ashi venue-sim`.

    Attributes:
        venue: bitflyer, gmo, binance or binance-usdm.
        markets: by the venue's names; none for a few usual ones, or for all that `trades` are of.
        seed: of the random market and of random faults.
        rate: executions per second over all markets together, of `ongoing` ones of each; None for as many as usual.
        bursts: the rate is five times as high now and then.
        trades: happen again, instead of a random market.
        speed: of the replay.
        ongoing: the markets have always been open, and tell the same past after each start.
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
    rate: float | None = None
    bursts: bool = False
    trades: Sequence[Trade] = ()
    speed: float = 1.0
    ongoing: bool = False
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
    if options.ongoing and options.trades:
        raise UsageError("a market that goes on for ever is not a recording: leave out --ongoing or --recording")
    markets = options.markets or (() if options.trades else DEFAULT_MARKETS[venue])
    rules = RULES[venue] if options.lifetime_s is None else replace(RULES[venue], lifetime_s=options.lifetime_s)
    script = [] if options.script is None else read_script(options.script)
    by_chance = random_script(options.seed, options.random_faults, venue, markets or None)
    script += [step for step in by_chance if not (options.ongoing and step.fault in NEVER_OF_ONGOING)]
    rate = options.rate or (ONGOING_RATE if options.ongoing else USUAL_RATE)
    return Simulator(
        venue,
        markets,
        seed=options.seed,
        rate=rate,
        bursts=options.bursts,
        trades=options.trades,
        speed=options.speed,
        ongoing=options.ongoing,
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
