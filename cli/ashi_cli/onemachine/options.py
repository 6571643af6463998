"""The options of `ashi demo` and `ashi up`, as their command lines and their code have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ashi_cli import values
from ashi_cli.declaration import Option, Positional
from ashi_cli.shared_options import WORKDIR
from ashi_ingest.venues.registry import VENUES


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What `ashi demo` is asked for; the help's words say what each is.

    `recordings` and `markets` are (venue, path) and (venue, market), in the order given.
    """

    recordings: Annotated[
        Sequence[tuple[str, Path]],
        Option(
            "replay this instead of the recordings that come with Ashi; repeatable, those of a venue in order given "
            f"(venues: {', '.join(VENUES)})",
            flag="--recording",
            metavar="VENUE=PATH",
            parse=values.recording,
        ),
    ] = ()
    storage: Annotated[
        str | None,
        Option(
            "where to store candles, such as sqlite:////absolute/path.db; must not exist yet "
            "(default: ASHI_STORAGE, else a file in the work directory that is made anew)",
            metavar="URL",
            parse=values.url,
        ),
    ] = None
    overwrite: Annotated[bool, Option("remove what is at the storage first")] = False
    workers: Annotated[int, Option("aggregate workers (default: 1)", metavar="N", parse=values.positive)] = 1
    timeframes: Annotated[
        str | None,
        Option("such as 1m,5m,1h (default: ASHI_TIMEFRAMES, else that)", metavar="LIST", parse=values.timeframes),
    ] = None
    workdir: Annotated[
        Path, Option("the broker's files, logs and the default store (default: %(default)s)", metavar="DIR")
    ] = WORKDIR / "demo"
    json: Annotated[bool, Option("end stdout with a summary object; all else goes to stderr")] = False
    live: Annotated[bool, Option("read the exchanges themselves, until Ctrl-C, instead of recordings")] = False
    markets: Annotated[
        Sequence[tuple[str, str]],
        Option(
            "with --live: read this market instead of the ones that trade most; repeatable",
            flag="--market",
            metavar="VENUE:MARKET",
            parse=values.market,
        ),
    ] = ()
    seconds: Annotated[int | None, Option("with --live: end after so long", metavar="N", parse=values.positive)] = None
    keep: Annotated[bool, Option("stay with the chart until Ctrl-C")] = False
    port: Annotated[
        int | None,
        Option("with --keep: the chart's (default: ASHI_CHART_PORT, else 8080)", metavar="N", parse=values.port),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What `ashi up` is asked for. `markets` are (venue, market), in the order given; `since` is in µs."""

    markets: Annotated[
        Sequence[tuple[str, str]],
        Positional(
            "such as bitflyer:BTC_JPY (default: those of the last time here, else the ones that trade most)",
            metavar="VENUE:MARKET",
            parse=values.market,
        ),
    ] = ()
    simulate: Annotated[bool, Option("simulated markets, without any network")] = False
    since: Annotated[
        int | None,
        Option(
            "markets that are read for the first time begin at TIME, UTC, not now (simulated ones: two hours ago)",
            metavar="TIME",
            parse=values.time,
        ),
    ] = None
    port: Annotated[
        int | None, Option("the chart's (default: ASHI_CHART_PORT, else 8080)", metavar="N", parse=values.port)
    ] = None
    timeframes: Annotated[
        str | None,
        Option(
            "such as 1m,5m,1h, once and for all (default: ASHI_TIMEFRAMES, else that)",
            metavar="LIST",
            parse=values.timeframes,
        ),
    ] = None
    storage: Annotated[
        str | None,
        Option(
            "where to keep candles, such as sqlite:////absolute/path.db (default: ASHI_STORAGE, else a file in the "
            "work directory)",
            metavar="URL",
            parse=values.url,
        ),
    ] = None
    workdir: Annotated[
        Path | None,
        Option(
            f"all that is kept from one start to the next (default: {WORKDIR / 'up'}, with --simulate "
            f"{WORKDIR / 'simulated'})",
            metavar="DIR",
        ),
    ] = None
