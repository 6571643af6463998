"""Which faults there are in a run, and their order: all of it comes from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

ROUND = (
    "kill",
    "terminate",
    "zombie",
    "hiccup",
    "add",
    "remove",
    "kill sink",
    "terminate sink",
    "freeze sink",
    *("restart store",) * 3,
    "zombie",
    "kill all",
    "stop broker",
    "reconfigure",
)
"""The faults of one round, in an order that is drawn. Compaction is forced before the first."""
LONG_ROUND = (
    *ROUND,
    "kill broker",
    "kill",
    "kill",
    "zombie",
    "hiccup",
    "restart store",
    "restart store",
    "rolling restart",
)
"""A rolling restart takes some 20 s, which the short round does without."""
MANY_SYMBOLS_ROUND = (*ROUND, "rolling restart")


def round_of(*, is_long: bool, has_many_symbols: bool) -> tuple[str, ...]:
    """The faults of a round of such a run."""
    if is_long:
        return LONG_ROUND
    return MANY_SYMBOLS_ROUND if has_many_symbols else ROUND


class Fault(NamedTuple):
    """One fault: what, how long after the one before, to whom (0 to 1 of those that can be chosen), for how long.

    `settle`: the next one only once what was published up to now is aggregated, else whatever the state of things is.
    """

    kind: str
    gap_s: float
    pick: float
    length: float
    settle: bool


def schedule(rng: random.Random, faults: tuple[str, ...]) -> Iterator[Fault]:
    """Faults without end, round after round."""
    yield Fault("compact", 1.0, 0.0, 0.0, settle=False)
    while True:
        for kind in rng.sample(faults, len(faults)):
            yield Fault(kind, rng.uniform(0.5, 3.0), rng.random(), rng.random(), rng.random() < 0.4)
