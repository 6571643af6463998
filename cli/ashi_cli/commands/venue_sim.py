"""`ashi venue-sim`: a venue on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from ashi_cli import values
from ashi_cli.declaration import Command, Option, Positional
from ashi_ingest.venues.registry import VENUES


def venue_sim(
    *,
    venue: Annotated[str, Positional(f"one of {', '.join(VENUES)}")],
    markets: Annotated[Sequence[str], Positional("by the venue's own names (default: a few)", metavar="MARKET")] = (),
    rate: Annotated[
        int | None,
        Option(
            "trades per second (default: 100; with --ongoing of each market, 1)", metavar="N", parse=values.positive
        ),
    ] = None,
    bursts: Annotated[bool, Option("five times as many now and then")] = False,
    seed: Annotated[int, Option("seed for the market and random faults", metavar="N")] = 0,
    recordings: Annotated[
        Sequence[Path],
        Option(
            "replay this as if it happened now, instead of a random market; repeatable",
            flag="--recording",
            metavar="PATH",
        ),
    ] = (),
    speed: Annotated[float, Option("of the replay (default: 1, as recorded)", metavar="X")] = 1.0,
    ongoing: Annotated[
        bool, Option("markets that never close: they tell the same past after each start, and of the time between")
    ] = False,
    script: Annotated[Path | None, Option("faults at times, a JSON object a line", metavar="FILE")] = None,
    faults: Annotated[
        int, Option("number of random faults to inject, one per second", metavar="N", parse=values.positive)
    ] = 0,
    lifetime: Annotated[float | None, Option("close connections at this age, in seconds", metavar="S")] = None,
    start: Annotated[
        Literal["at-once", "when-subscribed", "when-told"], Option("when trading begins (default: at-once)")
    ] = "at-once",
    port: Annotated[int, Option("port to serve on (default: any free one)", metavar="N", parse=values.port)] = 0,
) -> int:
    """`ashi venue-sim`."""
    import asyncio

    from ashi_cli.recorded_trades import read_trades
    from ashi_simulator import VenueSimOptions, check_venue, run_venue_sim

    check_venue(venue)

    chosen = VenueSimOptions(
        venue=venue,
        markets=tuple(markets),
        seed=seed,
        rate=rate,
        bursts=bursts,
        trades=read_trades(venue, recordings) if recordings else (),
        speed=speed,
        ongoing=ongoing,
        script=script,
        random_faults=faults,
        lifetime_s=lifetime,
        starts=start,
        port=port,
    )
    asyncio.run(run_venue_sim(chosen))
    return 0


VENUE_SIM: Final = Command(
    name="venue-sim",
    text="a venue on this machine that trades, keeps the real one's limits, and misbehaves on command",
    run=venue_sim,
    epilog="""\
examples:
  ashi venue-sim binance
  ashi venue-sim bitflyer BTC_JPY FX_BTC_JPY --rate 2000 --faults 50
  ashi venue-sim gmo --recording monday.txt.gz --speed 10

It prints how to let `ashi ingest` read it, and how to break it (docs/venues.md).""",
)
