"""The strategies that there are, as a list for people."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from ashi_strategies import load_strategy
from ashi_strategies.plan import EXAMPLES

_GIVEN_APART = ("symbols", "timeframes")


def print_strategies() -> int:
    """Each with its timeframes, its parameters and what it says of itself; gives the exit status."""
    for name in EXAMPLES:
        strategy = load_strategy(name)
        fields: dict[str, Any] = {field.name: field for field in dataclasses.fields(strategy)}
        parameters = [f"{key}={field.default}" for key, field in fields.items() if key not in _GIVEN_APART]
        print(name)
        print(f"  {(inspect.getdoc(strategy) or '').splitlines()[0]}")
        print(f"  timeframes: {', '.join(fields['timeframes'].default)}")
        print(f"  parameters: {', '.join(parameters) or 'none'}")
    return 0
