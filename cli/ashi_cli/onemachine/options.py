"""The options of `ashi demo`, as its command line and its code have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ashi_cli import values
from ashi_cli.declaration import Option
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
            metavar="VENUE=MARKET",
            parse=values.market,
        ),
    ] = ()
    seconds: Annotated[int | None, Option("with --live: end after so long", metavar="N", parse=values.positive)] = None
