"""Commands about what is stored: print, verify, rebuild, and the upkeep of a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi_cli import commands
from ashi_cli.arguments import types
from ashi_cli.arguments.base import add_command, add_range, add_storage
from ashi_ingest.venues.registry import KLINE_FILE, KLINE_VENUES

if TYPE_CHECKING:
    from ashi_cli.arguments.base import Group


def add_candles(group: Group) -> None:
    """`ashi candles`."""
    parser = add_command(
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
    add_storage(parser)
    parser.add_argument("--csv", action="store_true", help="all fields, as in the message, separated by commas")
    parser.add_argument(
        "--limit", metavar="N", type=types.positive, help="only the latest N (default: 200 as a table, all as CSV)"
    )
    parser.set_defaults(run=commands.candles)


def add_verify(group: Group) -> None:
    """`ashi verify`."""
    parser = add_command(
        group,
        "verify",
        "compare stored candles with their trades, or with the exchange's own",
        "  ashi verify sqlite:///candles.db --trades\n"
        "  ashi verify sqlite:///candles.db --trades --recording binance=monday.txt.gz\n"
        "  ashi verify sqlite:///candles.db --klines BTCUSDT-1m-2026-11-01.zip\n"
        "  ashi verify postgresql://ashi@db/market --klines binance --from 2026-11-01 --to 2026-11-02\n\n"
        "Exit status: 0 when all is equal or the difference is explained, 1 when not, 2 when nothing could be\n"
        "compared (docs/verify.md).",
    )
    parser.add_argument(
        "store",
        metavar="STORE_URL",
        nargs="?",
        type=types.url,
        help="such as sqlite:////absolute/path.db (default: ASHI_STORAGE)",
    )
    parser.add_argument("--storage", dest="store_option", metavar="URL", type=types.url, help="the same, as elsewhere")
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument(
        "--trades",
        metavar="LAKE_URL",
        nargs="?",
        const="topic",
        type=types.trades,
        help="with the trades of topic trades, or with those kept in a lake",
    )
    against.add_argument(
        "--klines",
        metavar="FILE|VENUE",
        help=f"with a file of klines of {KLINE_FILE.publisher}, or over REST: {', '.join(KLINE_VENUES)}",
    )
    parser.add_argument(
        "--recording",
        metavar="VENUE=PATH",
        type=types.recording,
        action="append",
        default=[],
        help="with --trades: those of this recording instead of the topic's; repeatable, in order",
    )
    add_range(parser, required=False)
    parser.add_argument(
        "--timeframe",
        metavar="TIMEFRAME",
        type=types.timeframe,
        action="append",
        default=[],
        help="only this; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="each difference as a line of JSON, then a summary")
    parser.set_defaults(run=commands.verify)


def add_rebuild(group: Group) -> None:
    """`ashi rebuild`."""
    parser = add_command(
        group,
        "rebuild",
        "make candles again of all their trades, also of late ones, and publish those that differ",
        "  ashi rebuild --from 2026-11-01 --to 2026-11-02 --dry-run\n"
        "  ashi rebuild --from 2026-11-01 --to 2026-11-02 --symbol bitflyer:BTC_JPY\n\n"
        "Only windows that no live correction can change any more. The workers may run (docs/verify.md).",
    )
    add_range(parser, required=True)
    parser.add_argument(
        "--trades",
        metavar="topic|LAKE_URL",
        type=types.trades,
        default="topic",
        help="where the trades are: in topic trades, or kept in a lake (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be published")
    parser.set_defaults(run=commands.rebuild)


def add_lake(group: Group) -> None:
    """`ashi lake`."""
    parser = add_command(
        group,
        "lake",
        "upkeep of a lake, also while workers write to it",
        "  ashi lake compact --storage lake:////data/lake        each hour or day\n"
        "  ashi lake vacuum --storage lake:////data/lake         each day or week",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    compact = add_command(actions, "compact", "merge the many small files of each partition, so that reading is fast")
    vacuum = add_command(actions, "vacuum", "remove files that have been out of use for longer than the retention")
    vacuum.add_argument(
        "--retention",
        metavar="DURATION",
        type=types.retention,
        default="7d",
        help="at least 1h; longer than any reader takes, and as far back as you want to travel (default: %(default)s)",
    )
    for action, run in ((compact, commands.lake_compact), (vacuum, commands.lake_vacuum)):
        add_storage(action)
        action.set_defaults(run=run)
