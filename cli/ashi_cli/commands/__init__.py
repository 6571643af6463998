"""The commands of `ashi`, a module for each: what it takes, and what it calls.

Heavy libraries are imported by the function that needs them, so that help is quick.
"""

from __future__ import annotations

from typing import Final

from ashi_cli.commands.aggregate import AGGREGATE
from ashi_cli.commands.broker import BROKER
from ashi_cli.commands.candles import CANDLES
from ashi_cli.commands.chart import CHART
from ashi_cli.commands.demo import DEMO
from ashi_cli.commands.doctor import DOCTOR
from ashi_cli.commands.history import HISTORY
from ashi_cli.commands.ingest import INGEST
from ashi_cli.commands.lake import LAKE
from ashi_cli.commands.rebuild import REBUILD
from ashi_cli.commands.sink import SINK
from ashi_cli.commands.status import STATUS
from ashi_cli.commands.strategy import STRATEGY
from ashi_cli.commands.symbols import SYMBOLS
from ashi_cli.commands.topics import TOPICS
from ashi_cli.commands.up import UP
from ashi_cli.commands.venue_sim import VENUE_SIM
from ashi_cli.commands.verify import VERIFY
from ashi_cli.declaration import Command

ASHI: Final = Command(
    name="ashi",
    text="exchange trades into candles",
    about="Exchange trades into candles over Apache Kafka.",
    actions=(
        DEMO,
        UP,
        BROKER,
        TOPICS,
        INGEST,
        AGGREGATE,
        SINK,
        STRATEGY,
        STATUS,
        DOCTOR,
        SYMBOLS,
        CANDLES,
        CHART,
        VERIFY,
        REBUILD,
        HISTORY,
        LAKE,
        VENUE_SIM,
    ),
    metavar="COMMAND",
    epilog="""\
begin with:
  ashi demo                      the whole flow on this machine, with real recordings
  ashi up                        the same with live markets and a chart, kept from one start to the next

each part by itself (settings: ASHI_… environment variables, see docs/settings.md):
  eval "$(ashi broker start)"    a broker for this directory; sets ASHI_KAFKA_BOOTSTRAP
  ashi topics create
  ashi aggregate &
  ashi sink sqlite --storage sqlite:///candles.db &
  ashi ingest replay --venue binance recording.txt.gz
  ashi candles binance:ETHUSDT 1m --storage sqlite:///candles.db
  ashi broker stop""",
)
"""The whole command line."""
