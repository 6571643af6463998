"""What the `ashi` command takes: one parser, a module for each kind of command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi import __version__
from ashi_cli.arguments.base import Parser
from ashi_cli.arguments.local import add_broker, add_demo, add_venue_sim
from ashi_cli.arguments.stages import add_ingest, add_stages, add_topics
from ashi_cli.arguments.stored import add_candles, add_lake, add_rebuild, add_verify

if TYPE_CHECKING:
    import argparse

__all__ = ["make_parser"]


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; a namespace from it has the function to `run`."""
    parser = Parser(
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
    add_demo(group)
    add_broker(group)
    add_topics(group)
    add_ingest(group)
    add_stages(group)
    add_candles(group)
    add_verify(group)
    add_rebuild(group)
    add_lake(group)
    add_venue_sim(group)
    return parser
