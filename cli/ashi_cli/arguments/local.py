"""Commands of one machine: the demo, the broker, a venue that misbehaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ashi_cli import commands
from ashi_cli.arguments import types
from ashi_cli.arguments.base import LIVE_VENUES, WORKDIR, Parser, add_command

if TYPE_CHECKING:
    from ashi_cli.arguments.base import Group


def add_demo(group: Group) -> None:
    """`ashi demo`."""
    parser = add_command(
        group,
        "demo",
        "recordings in, stored candles out: a broker and all stages on this machine, stopped at the end",
        """\
  ashi demo
  ashi demo --workers 3 --timeframes 1s,1m
  ashi demo --live --market bitflyer=FX_BTC_JPY --timeframes 1s,1m
  ashi demo --recording binance=monday.txt.gz --recording binance=tuesday.txt.gz --storage sqlite:////data/week.db

The log begins empty and windows close by the trades' own times, so the candles do not depend on how fast it ran.
ASHI_… variables reach every stage, except those about another Kafka (ASHI_KAFKA_…, ASHI_REPLICATION) and the metrics'
port. Exit status: 0, also when some frames could not be read (they are reported); 1 when a stage failed; 2 for wrong
usage; 3 when a recording could be read only in part (what was read is stored).""",
    )
    parser.add_argument(
        "--recording",
        metavar="VENUE=PATH",
        type=types.recording,
        action="append",
        default=[],
        help="replay this instead of the recordings that come with Ashi; repeatable, those of a venue in order given "
        f"(venues: {', '.join(LIVE_VENUES)})",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        type=types.url,
        help="where to store candles, such as sqlite:////absolute/path.db; must not exist yet "
        "(default: ASHI_STORAGE, else a file in the work directory that is made anew)",
    )
    parser.add_argument("--overwrite", action="store_true", help="remove what is at the storage first")
    parser.add_argument("--workers", metavar="N", type=types.positive, default=1, help="aggregate workers (default: 1)")
    parser.add_argument(
        "--timeframes",
        metavar="LIST",
        type=types.timeframes,
        help="such as 1m,5m,1h (default: ASHI_TIMEFRAMES, else that)",
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        type=Path,
        default=WORKDIR / "demo",
        help="the broker's files, logs and the default store (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="end stdout with a summary object; all else goes to stderr")
    parser.add_argument(
        "--live", action="store_true", help="read the exchanges themselves, until Ctrl-C, instead of recordings"
    )
    parser.add_argument(
        "--market",
        metavar="VENUE=MARKET",
        type=types.market,
        action="append",
        default=[],
        help="with --live: read this market instead of the ones that trade most; repeatable",
    )
    parser.add_argument("--seconds", metavar="N", type=types.positive, help="with --live: end after so long")
    parser.set_defaults(run=commands.demo)


def add_broker(group: Group) -> None:
    """`ashi broker`."""
    text = "a single-node Kafka on this machine, without a word: its status"
    parser = add_command(
        group, "broker", text, '  eval "$(ashi broker start)"\n  ashi broker start --port 9092\n  ashi broker stop'
    )
    workdir = Parser(add_help=False)
    workdir.add_argument(
        "--workdir",
        metavar="DIR",
        type=Path,
        default=WORKDIR,
        help="its files are in DIR/broker (default: %(default)s)",
    )
    parser.set_defaults(run=commands.broker_status, workdir=WORKDIR)
    actions = parser.add_subparsers(metavar="ACTION")
    start = actions.add_parser(
        "start", parents=[workdir], help="start it in the background", description="Start it and print its address."
    )
    start.add_argument("--port", metavar="N", type=types.port, help="port to serve on (default: any free one)")
    start.set_defaults(run=commands.broker_start)
    for name, run in (("stop", commands.broker_stop), ("status", commands.broker_status)):
        text = {"stop": "stop it; its topics stay", "status": "say where it runs; exit status 1 if it does not"}[name]
        action = actions.add_parser(name, parents=[workdir], help=text, description=f"{text.capitalize()}.")
        action.set_defaults(run=run)


def add_venue_sim(group: Group) -> None:
    """`ashi venue-sim`."""
    parser = add_command(
        group,
        "venue-sim",
        "a venue on this machine that trades, keeps the real one's limits, and misbehaves on command",
        "  ashi venue-sim binance\n"
        "  ashi venue-sim bitflyer BTC_JPY FX_BTC_JPY --rate 2000 --faults 50\n"
        "  ashi venue-sim gmo --recording monday.txt.gz --speed 10\n\n"
        "It prints how to let `ashi ingest` read it, and how to break it (docs/venues.md).",
    )
    parser.add_argument("venue", metavar="VENUE", help=f"one of {', '.join(LIVE_VENUES)}")
    parser.add_argument("markets", metavar="MARKET", nargs="*", help="by the venue's own names (default: a few)")
    parser.add_argument(
        "--rate", metavar="N", type=types.positive, default=100, help="trades per second (default: 100)"
    )
    parser.add_argument("--bursts", action="store_true", help="five times as many now and then")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the market and of random faults")
    parser.add_argument(
        "--recording",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help="replay this as if it happened now, instead of a random market; repeatable",
    )
    parser.add_argument("--speed", metavar="X", type=float, default=1.0, help="of the replay (default: 1, as recorded)")
    parser.add_argument("--script", metavar="FILE", type=Path, help="faults at times, a JSON object a line")
    parser.add_argument(
        "--faults", metavar="N", type=types.positive, default=0, help="so many random faults, one a second"
    )
    parser.add_argument("--lifetime", metavar="S", type=float, help="close connections at this age, in seconds")
    parser.add_argument(
        "--start",
        choices=["at-once", "when-subscribed", "when-told"],
        default="at-once",
        help="when trading begins (default: at-once)",
    )
    parser.add_argument(
        "--port", metavar="N", type=types.port, default=0, help="port to serve on (default: any free one)"
    )
    parser.set_defaults(run=commands.venue_sim)
