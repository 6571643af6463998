"""What the actions of `ashi strategy` have in common: which strategy, of what, with which parameters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ashi_cli import values
from ashi_cli.declaration import Option, Positional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_strategies import Strategy

NAME: Final = Positional("ma_cross or another of `ashi strategy list`, or your own as package.module:Class")
SYMBOL: Final = Option("venue:MARKET; repeatable", metavar="SYMBOL")
TIMEFRAME: Final = Option(
    "such as 1m; repeatable (default: the strategy's own)", metavar="TIMEFRAME", parse=values.timeframe
)
PARAM: Final = Option("a parameter of the strategy; repeatable", metavar="NAME=VALUE", parse=values.parameter)
FAST: Final = Option("the same as --param fast=N", metavar="N")
SLOW: Final = Option("the same as --param slow=N", metavar="N")


def given_parameters(param: Sequence[tuple[str, str]], fast: str | None, slow: str | None) -> dict[str, str]:
    """The parameters that a command line gives. Raises UsageError for one that is given twice."""
    from ashi.contracts.errors import UsageError

    pairs = [*param, *((name, value) for name, value in (("fast", fast), ("slow", slow)) if value is not None)]
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise UsageError(f"a parameter is given twice among {', '.join(names)}")
    return dict(pairs)


def strategy_named(name: str) -> type[Strategy]:
    """The strategy of that name, or at that place: also in the current directory. Raises UsageError."""
    from ashi_strategies import load_strategy

    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # behind everything that is installed
    return load_strategy(name)
