"""The `ashi` command: what it takes, and which function does it. Also `python -m ashi.cli.main`."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from ashi import __version__
from ashi.cli import commands
from ashi.contracts.errors import EXIT_INTERRUPTED, AshiError, ContractError, UsageError
from ashi.contracts.timeframe import Timeframe, parse_timeframes
from ashi.runtime.parsers import duration_between

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    _Group: TypeAlias = "argparse._SubParsersAction[_Parser]"  # it has no public name

EXIT_BROKEN_PIPE: Final = 141

LIVE_VENUES: Final = {
    "bitflyer": ("bitFlyer", "BTC_JPY"),
    "gmo": ("GMO Coin", "BTC_JPY"),
    "binance": ("Binance spot", "BTCUSDT"),
    "binance-usdm": ("Binance USD-M futures", "BTCUSDT"),
}
"""Each venue's name in prose and one of its markets, for the help."""

WORKDIR: Final = Path(".ashi")
"""Where the commands keep the broker's files, under the current directory; the demo has a folder of its own in it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status; errors go to stderr in words.

    Raises SystemExit (2) for wrong usage, as argparse does.
    """
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except AshiError as error:
        print(f"ashi: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever reads our output has had enough (`| head`). Python would complain at exit when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return status


class _Parser(argparse.ArgumentParser):
    """Errors in one line, with the command that explains more; help keeps its line breaks."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ashi",
        description="Exchange trades into candles over Apache Kafka.",
        epilog="""\
begin with:
  ashi demo                      the whole flow on this machine, with real recordings

each part by itself (settings: ASHI_… environment variables, see docs/settings.md):
  eval "$(ashi broker start)"    a broker for this directory; sets ASHI_KAFKA_BOOTSTRAP
  ashi topics create
  ashi aggregate &
  ashi sink sqlite --storage sqlite:///candles.db &
  ashi ingest replay --venue binance recording.txt.gz
  ashi candles binance:ETHUSDT 1m --storage sqlite:///candles.db
  ashi broker stop""",
    )
    parser.add_argument("--version", action="version", version=f"ashi {__version__}")
    group = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(group)
    _add_broker(group)
    _add_topics(group)
    _add_ingest(group)
    _add_stages(group)
    _add_candles(group)
    _add_verify(group)
    _add_rebuild(group)
    _add_lake(group)
    _add_venue_sim(group)
    return parser


def _add(group: _Group, name: str, text: str, examples: str = "") -> _Parser:
    epilog = f"examples:\n{examples}" if examples else None
    return group.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog)


def _add_demo(group: _Group) -> None:
    parser = _add(
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
        type=_recording,
        action="append",
        default=[],
        help="replay this instead of the recordings that come with Ashi; repeatable, those of a venue in order given "
        f"(venues: {', '.join(LIVE_VENUES)})",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        type=_url,
        help="where to store candles, such as sqlite:////absolute/path.db; must not exist yet "
        "(default: ASHI_STORAGE, else a file in the work directory that is made anew)",
    )
    parser.add_argument("--overwrite", action="store_true", help="remove what is at the storage first")
    parser.add_argument("--workers", metavar="N", type=_positive, default=1, help="aggregate workers (default: 1)")
    parser.add_argument(
        "--timeframes", metavar="LIST", type=_timeframes, help="such as 1m,5m,1h (default: ASHI_TIMEFRAMES, else that)"
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
        type=_market,
        action="append",
        default=[],
        help="with --live: read this market instead of the ones that trade most; repeatable",
    )
    parser.add_argument("--seconds", metavar="N", type=_positive, help="with --live: end after so long")
    parser.set_defaults(run=commands.demo)


def _add_broker(group: _Group) -> None:
    text = "a single-node Kafka on this machine, without a word: its status"
    parser = _add(
        group, "broker", text, '  eval "$(ashi broker start)"\n  ashi broker start --port 9092\n  ashi broker stop'
    )
    workdir = _Parser(add_help=False)
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
    start.add_argument("--port", metavar="N", type=_port, help="port to serve on (default: any free one)")
    start.set_defaults(run=commands.broker_start)
    for name, run in (("stop", commands.broker_stop), ("status", commands.broker_status)):
        text = {"stop": "stop it; its topics stay", "status": "say where it runs; exit status 1 if it does not"}[name]
        action = actions.add_parser(name, parents=[workdir], help=text, description=f"{text.capitalize()}.")
        action.set_defaults(run=run)


def _add_topics(group: _Group) -> None:
    parser = _add(group, "topics", "make the topics, or check that they are as they must be", "  ashi topics create")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    create = _add(actions, "create", "make the topics that are missing")
    create.set_defaults(run=commands.topics_create)
    check = _add(actions, "check", "print what is not as it must be, and what to do; exit status 1 if anything is")
    check.set_defaults(run=commands.topics_check)


def _add_ingest(group: _Group) -> None:
    parser = _add(group, "ingest", "trades of a venue into topic trades")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    replay = _add(
        actions,
        "replay",
        "publish what recordings of a venue hold",
        "  ashi ingest replay --venue binance monday.txt.gz tuesday.txt.gz\n\n"
        "Exit status 3: a recording could be read only in part; what was read is published.",
    )
    replay.add_argument("--venue", required=True, help=f"one of {', '.join(LIVE_VENUES)}")
    replay.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="recordings, in order (docs/recordings.md)")
    replay.add_argument("--summary", metavar="FILE", type=Path, help="write what was done to FILE, as JSON")
    replay.set_defaults(run=commands.ingest_replay)
    for venue, (title, market) in LIVE_VENUES.items():
        _add_live(actions, venue, title, market)


def _add_live(actions: _Group, venue: str, title: str, market: str) -> None:
    live = _add(
        actions,
        venue,
        f"trades of {title} as they happen, until told to stop",
        f"  ashi ingest {venue} {market}\n"
        f"  ashi ingest {venue} --all --shard 2/5 --record recordings/\n\n"
        "What was missed while it was not connected, or did not run, is fetched first (docs/venues.md).",
    )
    live.add_argument("markets", metavar="MARKET", nargs="*", help=f"by the venue's own names, such as {market}")
    live.add_argument("--all", action="store_true", help="all markets of the venue")
    live.add_argument(
        "--shard",
        metavar="N/M",
        type=_shard,
        help="only the markets that fall to worker N of M, counted from 0; every worker gets the same markets",
    )
    live.add_argument(
        "--record", metavar="DIR", type=Path, help="write every frame to files in DIR, as `ashi ingest replay` reads"
    )
    live.set_defaults(run=commands.ingest_live, venue=venue)


def _add_stages(group: _Group) -> None:
    aggregate = _add(group, "aggregate", "run an aggregate worker: topic trades into topic candles")
    aggregate.set_defaults(run=commands.aggregate)
    actions = aggregate.add_subparsers(metavar="ACTION")
    reconfigure = _add(
        actions,
        "reconfigure",
        "let the workers build their state anew, with the settings of this environment",
        "  ASHI_TIMEFRAMES=1m,5m,15m,1h ashi aggregate reconfigure\n"
        "  ashi aggregate reconfigure --from 2026-11-01T00:00:00Z\n\n"
        "Stop all aggregate workers first. They then read the log again from where it begins, or from the given time, "
        "and\nsend their candles anew, with greater versions. Windows that began before the first record are left out.",
    )
    reconfigure.add_argument(
        "--from", dest="begin_at", metavar="TIME", type=_time, help="read trades appended from then on (ISO 8601, UTC)"
    )
    reconfigure.set_defaults(run=commands.reconfigure)
    sink = _add(
        group,
        "sink",
        "run a sink worker: topic candles into a store",
        "  ashi sink sqlite --storage sqlite:////data/candles.db\n"
        "  ashi sink postgres --migrate --storage postgresql://ashi:secret@db/market\n"
        "  ASHI_STORAGE_FILE=/run/secrets/storage ashi sink postgres\n"
        "  ashi sink lake --storage lake:////data/lake\n"
        "  ashi sink lake --storage lake+s3://bucket/market --topic trades",
    )
    sink.add_argument("store", metavar="STORE", help="the kind of store: sqlite, postgres, lake")
    _add_storage(sink)
    sink.add_argument(
        "--topic",
        choices=["candles", "trades"],
        default="candles",
        help="what to store: candles with the feeds' gaps, or the trades, in a lake only (default: candles)",
    )
    modes = sink.add_mutually_exclusive_group()
    modes.add_argument("--migrate", action="store_true", help="make or upgrade the tables of the store, then exit")
    modes.add_argument(
        "--from-beginning",
        action="store_true",
        help="read the topics from their beginning, not from where the group was, to fill a store",
    )
    sink.set_defaults(run=commands.sink)


def _add_storage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="such as sqlite:////absolute/path.db or postgresql://user:password@host/database (default: ASHI_STORAGE, "
        "else candles.db here)",
    )


def _add_candles(group: _Group) -> None:
    parser = _add(
        group,
        "candles",
        "print stored candles",
        "  ashi candles binance:ETHUSDT 1m\n"
        "  ashi candles binance:ETHUSDT 1h --storage sqlite:////data/candles.db --csv > hours.csv\n\n"
        "CSV has the fields of the message (times in µs since the epoch, exact decimals) and feed_gap: `open` or\n"
        "`lost` where trades may be missing. A table has a column for it when there is any.",
    )
    parser.add_argument("symbol", metavar="SYMBOL", help="venue:MARKET, such as bitflyer:BTC_JPY")
    parser.add_argument("timeframe", metavar="TIMEFRAME", help="such as 1m")
    _add_storage(parser)
    parser.add_argument("--csv", action="store_true", help="all fields, as in the message, separated by commas")
    parser.add_argument(
        "--limit", metavar="N", type=_positive, help="only the latest N (default: 200 as a table, all as CSV)"
    )
    parser.set_defaults(run=commands.candles)


def _add_verify(group: _Group) -> None:
    parser = _add(
        group,
        "verify",
        "compare stored candles with their trades, or with the exchange's own",
        "  ashi verify sqlite:///candles.db --trades\n"
        "  ashi verify sqlite:///candles.db --trades --recording binance=monday.txt.gz\n"
        "  ashi verify sqlite:///candles.db --klines BTCUSDT-1m-2026-11-01.zip\n"
        "  ashi verify postgresql://ashi@db/market --klines binance --from 2026-11-01 --to 2026-11-02\n\n"
        "Exit status: 0 when all is equal or the difference is explained, 1 when not (docs/verify.md).",
    )
    parser.add_argument(
        "store",
        metavar="STORE_URL",
        nargs="?",
        type=_url,
        help="such as sqlite:////absolute/path.db (default: ASHI_STORAGE)",
    )
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument(
        "--trades",
        metavar="LAKE_URL",
        nargs="?",
        const="topic",
        type=_trades,
        help="with the trades of topic trades, or with those kept in a lake",
    )
    against.add_argument(
        "--klines",
        metavar="FILE|VENUE",
        help="with a file of klines of Binance, or over REST: binance, binance-usdm, gmo",
    )
    parser.add_argument(
        "--recording",
        metavar="VENUE=PATH",
        type=_recording,
        action="append",
        default=[],
        help="with --trades: those of this recording instead of the topic's; repeatable, in order",
    )
    _add_range(parser, required=False)
    parser.add_argument(
        "--timeframe", metavar="TIMEFRAME", type=_timeframe, action="append", default=[], help="only this; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="each difference as a line of JSON, then a summary")
    parser.set_defaults(run=commands.verify)


def _add_range(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--from",
        dest="begin_at",
        metavar="TIME",
        type=_time,
        required=required,
        default=0,
        help="only windows that begin then or later (ISO 8601, UTC)",
    )
    parser.add_argument(
        "--to", dest="end_at", metavar="TIME", type=_time, required=required, help="only windows that begin before that"
    )
    parser.add_argument("--symbol", metavar="SYMBOL", action="append", default=[], help="only this; repeatable")


def _add_rebuild(group: _Group) -> None:
    parser = _add(
        group,
        "rebuild",
        "make candles again of all their trades, also of late ones, and publish those that differ",
        "  ashi rebuild --from 2026-11-01 --to 2026-11-02 --dry-run\n"
        "  ashi rebuild --from 2026-11-01 --to 2026-11-02 --symbol bitflyer:BTC_JPY\n\n"
        "Only windows that no live correction can change any more. The workers may run (docs/verify.md).",
    )
    _add_range(parser, required=True)
    parser.add_argument(
        "--trades",
        metavar="topic|LAKE_URL",
        type=_trades,
        default="topic",
        help="where the trades are: in topic trades, or kept in a lake (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be published")
    parser.set_defaults(run=commands.rebuild)


def _add_lake(group: _Group) -> None:
    parser = _add(
        group,
        "lake",
        "upkeep of a lake, also while workers write to it",
        "  ashi lake compact --storage lake:////data/lake        each hour or day\n"
        "  ashi lake vacuum --storage lake:////data/lake         each day or week",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    compact = _add(actions, "compact", "merge the many small files of each partition, so that reading is fast")
    vacuum = _add(actions, "vacuum", "remove files that have been out of use for longer than the retention")
    vacuum.add_argument(
        "--retention",
        metavar="DURATION",
        type=_retention,
        default="7d",
        help="at least 1h; longer than any reader takes, and as far back as you want to travel (default: %(default)s)",
    )
    for action, run in ((compact, commands.lake_compact), (vacuum, commands.lake_vacuum)):
        _add_storage(action)
        action.set_defaults(run=run)


def _add_venue_sim(group: _Group) -> None:
    parser = _add(
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
    parser.add_argument("--rate", metavar="N", type=_positive, default=100, help="trades per second (default: 100)")
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
    parser.add_argument("--faults", metavar="N", type=_positive, default=0, help="so many random faults, one a second")
    parser.add_argument("--lifetime", metavar="S", type=float, help="close connections at this age, in seconds")
    parser.add_argument(
        "--start",
        choices=["at-once", "when-subscribed", "when-told"],
        default="at-once",
        help="when trading begins (default: at-once)",
    )
    parser.add_argument("--port", metavar="N", type=_port, default=0, help="port to serve on (default: any free one)")
    parser.set_defaults(run=commands.venue_sim)


def _retention(text: str) -> int:
    try:
        return duration_between("1h", "3650d")(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is wrong: {error}") from None


def _timeframe(text: str) -> str:
    try:
        return str(Timeframe.parse(text))
    except ContractError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _trades(text: str) -> str:
    if text != "topic" and not text.startswith(("lake:", "lake+s3:")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither `topic` nor the URL of a lake, such as lake:////data/lake"
        )
    return text


def _market(text: str) -> tuple[str, str]:
    venue, equals, market = text.partition("=")
    if not equals or not venue or not market:
        raise argparse.ArgumentTypeError(f"{text!r} is not VENUE=MARKET, such as bitflyer=BTC_JPY")
    return venue, market


def _shard(text: str) -> object:
    from ingest.live.shard import parse_shard

    try:
        return parse_shard(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _port(text: str) -> int:
    number = _positive(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: ports are from 1 to 65535")
    return number


def _timeframes(text: str) -> str:
    try:
        parse_timeframes(text)
    except ContractError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _time(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in ISO 8601, such as 2026-11-01T00:00:00Z") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def _url(text: str) -> str:
    from ashi.runtime.parsers import parse_url

    try:
        return parse_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _recording(text: str) -> tuple[str, Path]:
    venue, equals, path = text.partition("=")
    if not equals or not venue or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not VENUE=PATH, such as binance=monday.txt.gz")
    return venue, Path(path).expanduser()


if __name__ == "__main__":
    sys.exit(main())
