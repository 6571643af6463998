"""Which of all strategies that run this one is: what Kafka knows it by."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_strategies.plan import Plan

PREFIX: Final = "ashi-strategy-"
_MOST_OF_NAME: Final = 60
_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Instance:
    """What one process runs: a strategy with its parameters, on its symbols and timeframes.

    Attributes:
        plans: of one strategy, for symbols that it does not want together one for each.

    """

    plans: Sequence[Plan]

    @property
    def name(self) -> str:
        """That of the strategy, with the parameters, for people: `ma_cross(fast=9,slow=21)`."""
        return ", ".join(dict.fromkeys(plan.identity for plan in self.plans))

    @property
    def strategies(self) -> list[str]:
        """The names that its signals have."""
        return list(dict.fromkeys(plan.identity for plan in self.plans))

    @property
    def symbols(self) -> list[str]:
        """Whose candles it gets."""
        return list(dict.fromkeys(symbol for plan in self.plans for symbol in plan.symbols))

    @property
    def timeframes(self) -> list[str]:
        """The lengths of candles that it gets."""
        return list(dict.fromkeys(timeframe for plan in self.plans for timeframe in plan.timeframes))

    @property
    def place(self) -> str:
        """Where the class of its strategy stands: `package.module:Class`."""
        strategy = self.plans[0].strategy
        return f"{strategy.__module__}:{strategy.__qualname__}"

    @property
    def id(self) -> str:
        """Its transactional id and its group: `ashi-strategy-ma_cross-5a1f0c9be210`.

        The same for the same strategy on the same series, in whatever order they were named, whenever it is started.
        """
        whole = sorted([plan.identity, sorted(plan.symbols), sorted(plan.timeframes)] for plan in self.plans)
        digest = hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:_DIGITS]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.plans[0].strategy.name)[:_MOST_OF_NAME]
        return f"{PREFIX}{name}-{digest}"
