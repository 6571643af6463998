"""`ashi demo`."""

from __future__ import annotations

from typing import Final

from ashi_cli.declaration import Command
from ashi_cli.onemachine.options import DemoOptions


def demo(options: DemoOptions) -> int:
    """Run the whole flow on this machine; gives the exit status."""
    from ashi_cli.onemachine.demo import run_demo

    return run_demo(options)


DEMO: Final = Command(
    name="demo",
    text="recordings in, stored candles out: a broker and all stages on this machine, stopped at the end",
    run=demo,
    options=DemoOptions,
    epilog="""\
examples:
  ashi demo
  ashi demo --workers 3 --timeframes 1s,1m
  ashi demo --live --market bitflyer:FX_BTC_JPY --timeframes 1s,1m
  ashi demo --recording binance=monday.txt.gz --recording binance=tuesday.txt.gz --storage sqlite:////data/week.db

The log begins empty and windows close by the trades' own times, so the candles do not depend on how fast it ran.
ASHI_… variables reach every stage, except those about another Kafka (ASHI_KAFKA_…, ASHI_REPLICATION) and the metrics'
port. Exit status: 0, also when some frames could not be read (they are reported); 1 when a stage failed; 2 for wrong
usage; 3 when a recording could be read only in part (what was read is stored).""",
)
