"""`ashi up`."""

from __future__ import annotations

from typing import Final

from ashi_cli.declaration import Command
from ashi_cli.onemachine.options import UpOptions


def up(options: UpOptions) -> int:
    """Run the whole flow on this machine until it is told to stop; gives the exit status."""
    from ashi_cli.onemachine.up import run_up

    return run_up(options)


UP: Final = Command(
    name="up",
    text="live or simulated markets, their candles and the chart on this machine, until Ctrl-C; goes on where it was",
    run=up,
    options=UpOptions,
    epilog="""\
examples:
  ashi up bitflyer:BTC_JPY binance:BTCUSDT
  ashi up binance:BTCUSDT --since 2026-11-27      with what was traded since then
  ashi up                                         goes on with the same markets
  ashi up --simulate                              without any network

Ctrl-C ends all of it. The next start, in the same folder, goes on where it was, whatever ended it: trades of the time
between are fetched from the venues. A stage that ends is started again, later each time, and it is told why.
ASHI_… variables reach every stage, except those about another Kafka (ASHI_KAFKA_…, ASHI_REPLICATION) and the metrics'
port (docs/up.md). Exit status: 0 after Ctrl-C; 1 when a stage failed again and again; 2 for wrong usage.""",
)
