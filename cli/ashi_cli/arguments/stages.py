"""Commands of the stages: topics, ingest, aggregate, sinks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ashi_cli import commands
from ashi_cli.arguments import types
from ashi_cli.arguments.base import LIVE_VENUES, add_command, add_storage

if TYPE_CHECKING:
    from ashi_cli.arguments.base import Group


def add_topics(group: Group) -> None:
    """`ashi topics`."""
    parser = add_command(
        group, "topics", "make the topics, or check that they are as they must be", "  ashi topics create"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    create = add_command(actions, "create", "make the topics that are missing")
    create.set_defaults(run=commands.topics_create)
    check = add_command(
        actions, "check", "print what is not as it must be, and what to do; exit status 1 if anything is"
    )
    check.set_defaults(run=commands.topics_check)


def add_ingest(group: Group) -> None:
    """`ashi ingest`."""
    parser = add_command(group, "ingest", "trades of a venue into topic trades")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    replay = add_command(
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


def _add_live(actions: Group, venue: str, title: str, market: str) -> None:
    live = add_command(
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
        type=types.shard,
        help="only the markets that fall to worker N of M, counted from 0; every worker gets the same markets",
    )
    live.add_argument(
        "--record", metavar="DIR", type=Path, help="write every frame to files in DIR, as `ashi ingest replay` reads"
    )
    live.set_defaults(run=commands.ingest_live, venue=venue)


def add_stages(group: Group) -> None:
    """`ashi aggregate` and `ashi sink`."""
    aggregate = add_command(group, "aggregate", "run an aggregate worker: topic trades into topic candles")
    aggregate.set_defaults(run=commands.aggregate)
    actions = aggregate.add_subparsers(metavar="ACTION")
    reconfigure = add_command(
        actions,
        "reconfigure",
        "let the workers build their state anew, with the settings of this environment",
        "  ASHI_TIMEFRAMES=1m,5m,15m,1h ashi aggregate reconfigure\n"
        "  ashi aggregate reconfigure --from 2026-11-01T00:00:00Z\n\n"
        "Stop all aggregate workers first. They then read the log again from where it begins, or from the given time, "
        "and\nsend their candles anew, with greater versions. Windows that began before the first record are left out.",
    )
    reconfigure.add_argument(
        "--from",
        dest="begin_at",
        metavar="TIME",
        type=types.time,
        help="read trades appended from then on (ISO 8601, UTC)",
    )
    reconfigure.set_defaults(run=commands.reconfigure)
    sink = add_command(
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
    add_storage(sink)
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
