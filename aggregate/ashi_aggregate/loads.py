"""Which candles `ashi history load` has made of files. It stands in topic `ashi.meta`, beside the epochs and rebuilds.

The rule is written down in docs/decisions/0016-before-the-live-candles.md.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.candle import Candle, epoch_of
from ashi.contracts.errors import StateError
from ashi_aggregate.epoch import current_epoch, read_claims, write_meta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.runtime.settings import Settings
    from ashi_aggregate.epoch import Epoch

LOAD_KEY: Final = b"history"
"""What the keys of these records begin with."""


class Load(msgspec.Struct, frozen=True):
    """That candles of a symbol were made of files, or were about to be.

    Attributes:
        load: the number of the load, from 0, of that symbol: the version of its candles. It is that of no live candle
            of a window from before the live state, as there is none.
        symbol: whose.
        first: `traded_at` of the first trade in the files, µs; `last` that of the last one from before the live state.
        at: when, µs.
        joined: the live candles that got what the files have of their windows, as (timeframe, open time in µs).
        rebuild: the epoch in the versions of these; None where there are none.
        edge: of each timeframe the oldest live candle that no file has part in, where it is final: for when the topic
            has lost it. Loads of before 0.2.0 have none.

    """

    load: int
    symbol: str
    first: int
    last: int
    at: int
    joined: list[tuple[str, int]] = []
    rebuild: int | None = None
    edge: list[Candle] = []


class JoinedCandles:
    """The live candles that loads have joined with what files have of their windows."""

    def __init__(self, loads: Iterable[Load]) -> None:
        self._rebuilds: dict[tuple[str, str, int], set[int]] = {}
        for load in loads:
            if load.rebuild is not None:
                for timeframe, open_time in load.joined:
                    self._rebuilds.setdefault((load.symbol, timeframe, open_time), set()).add(load.rebuild)

    def __contains__(self, candle: object) -> bool:
        """Whether a candle, in this version, is one of them."""
        if not isinstance(candle, Candle):
            return False
        rebuilds = self._rebuilds.get((candle.symbol, candle.timeframe, candle.open_time))
        return rebuilds is not None and epoch_of(candle.version) in rebuilds


async def read_loads(settings: Settings) -> list[Load]:
    """All loads in the order of the log. Raises BrokerError, and StateError for one that cannot be read."""
    return [load for _, load in await _read(settings)]


async def claim_load(settings: Settings, epoch: Epoch, load: Load) -> None:
    """Take the number of a load, before anything of it is published.

    Raises StateError when another load of the symbol has taken it, or the state has been reconfigured since `epoch`.
    """
    key = LOAD_KEY + f"-{load.symbol}-{load.load}-{uuid.uuid4()}".encode()
    await write_meta(settings, key, load)
    # Of two at once both have written by now or will find the other's: the first in the log goes on.
    numbered = (other_key for other_key, other in await _read(settings) if _is_same(other, load))
    if next(numbered) != key:
        raise StateError(
            f"another `ashi history load` of {load.symbol} has begun since this one did: let it end, then run this "
            "again"
        )
    if await current_epoch(settings) != epoch:
        raise StateError("`ashi aggregate reconfigure` has begun a new state since this load began: run it again")


def _is_same(load: Load, other: Load) -> bool:
    return (load.symbol, load.load) == (other.symbol, other.load)


async def _read(settings: Settings) -> list[tuple[bytes, Load]]:
    return await read_claims(settings, LOAD_KEY, Load, "a load")
