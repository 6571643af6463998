"""The strategies that there are, as a list for people."""

from __future__ import annotations

import inspect

from ashi_strategies import load_strategy
from ashi_strategies.plan import EXAMPLES, parameter_fields


def print_strategies() -> int:
    """Each with its timeframes, its parameters and what it says of itself; gives the exit status."""
    for name in EXAMPLES:
        strategy = load_strategy(name)
        parameters = [f"{key}={field.default}" for key, field in parameter_fields(strategy).items()]
        print(name)
        print(f"  {(inspect.getdoc(strategy) or '').splitlines()[0]}")
        print(f"  timeframes: {', '.join(strategy.timeframes)}")
        print(f"  parameters: {', '.join(parameters) or 'none'}")
    return 0
