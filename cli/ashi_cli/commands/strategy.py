"""`ashi strategy`: strategies, over past candles and at work."""

from __future__ import annotations

from typing import Final

from ashi_cli.commands.strategy_backtest import BACKTEST
from ashi_cli.commands.strategy_run import LIST, RUN
from ashi_cli.declaration import Command

STRATEGY: Final = Command(
    name="strategy",
    text="strategies: over past candles, and at work",
    actions=(BACKTEST, RUN, LIST),
)
