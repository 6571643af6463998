"""Executions of GMO Coin as files, as it publishes them, a day each.

Source: https://api.coin.z.com/data/trades/ (`BTC_JPY/2025/07/20250701_BTC_JPY.csv.gz`), and files.

    symbol,side,size,price,timestamp
    BTC_JPY,BUY,0.0010,15499938.000,2025-06-30 21:00:19.862

- Times are UTC, though nothing says so. The day turns at 06:00 JST: that file begins at 21:00 of the day before.
- An execution stands there once, with the taker's side, unlike in the REST interface.
- There are no ids. An execution gets the id that the feed and REST make of the same content (`messages.py`): so it is
  the same trade whichever way it comes, and two that happened never are.
"""

from __future__ import annotations

import re
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import ContractError
from ashi_ingest.venues.trade_columns import BUY, SELL
from ashi_ingest.venues.trade_file import TAKER_SIDES, NewestFirstError, TradeFileFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

KEPT: Final = 20_000
"""So many milliseconds with executions are counted, the latest. A row that is older than all of them is refused: it
might get the id of another one."""
LEAST_ORDERED: Final = 3
"""So many rows tell an order, if they have one."""

_NAME: Final = re.compile(r"[0-9]{8}_(?P<market>[A-Z0-9]+(?:_[A-Z]+)?)")
_COLUMNS: Final[Mapping[str, int]] = MappingProxyType({"market": 0, "side": 1, "size": 2, "price": 3, "time": 4})


_NAMES: Final[Mapping[bytes, bytes]] = MappingProxyType({BUY: b"BUY", SELL: b"SELL"})
"""How a side stands in an id."""


def market_in(name: str) -> str | None:
    """`BTC_JPY` of `20250701_BTC_JPY.csv.gz`."""
    match = _NAME.search(name)
    return None if match is None else match["market"]


class FileNumbering:
    """Counts the executions of one market as `Ordinals` does, over files that follow each other."""

    def __init__(self) -> None:
        self._of_all: dict[bytes, int] = {}
        """Of each millisecond, how many there were."""
        self._of_equals: dict[bytes, int] = {}
        """Likewise of each content, which begins with its millisecond."""
        self._forgotten = b""
        self._last = b""
        self._begins = False

    def begin(self) -> None:
        """Another file begins. Its first millisecond goes on where it is the last of the file before."""
        self._begins = True

    def number(
        self, traded_ms: Sequence[bytes], prices: Sequence[bytes], sizes: Sequence[bytes], sides: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """The ids and sequences of the next executions: see `Numbering.number`."""
        if self._begins:
            self._begin(traded_ms[0])
        if min(traded_ms) <= self._forgotten:
            raise ContractError(
                f"the row is older than {KEPT:,} milliseconds with executions before it: rows are numbered as they "
                "stand, so sort the file by time"
            )
        is_turned = len(traded_ms) >= LEAST_ORDERED and traded_ms[0] > traded_ms[-1]
        if is_turned and all(at >= after for at, after in pairwise(traded_ms)):
            raise NewestFirstError(
                "its rows stand newest first: of one millisecond the first would be taken for the last. Turn the file "
                "around, oldest first, as with `tac`"
            )
        ids: list[bytes] = []
        sequences: list[bytes] = []
        of_all, of_equals = self._of_all, self._of_equals
        contents = map(b"-".join, zip(traded_ms, prices, sizes, map(_NAMES.__getitem__, sides), strict=True))
        for at, content in zip(traded_ms, contents, strict=True):
            ordinal = of_equals.get(content, 0)
            of_equals[content] = ordinal + 1
            ids.append(b"%b-%d" % (content, ordinal))
            place = of_all.get(at, 0)
            of_all[at] = place + 1
            sequences.append(b"%d" % place)
        self._last = traded_ms[-1]
        if len(of_all) >= 2 * KEPT:
            self._forget()
        return ids, sequences

    def _begin(self, first: bytes) -> None:
        self._begins = False
        self._forgotten = b""
        self._keep({first} if first == self._last else set())

    def _forget(self) -> None:
        times = sorted(self._of_all)
        self._forgotten = times[-KEPT - 1]
        self._keep({*times[-KEPT:]})

    def _keep(self, times: Set[bytes]) -> None:
        self._of_all = {at: count for at, count in self._of_all.items() if at in times}
        self._of_equals = {
            content: count for content, count in self._of_equals.items() if content.partition(b"-")[0] in times
        }


TRADE_FILE: Final = TradeFileFormat(
    described="executions as GMO Coin publishes them have 5 there (docs/trade-files.md)",
    market_in=market_in,
    names=MappingProxyType(
        {"price": ("price",), "size": ("size",), "side": ("side",), "time": ("timestamp",), "market": ("symbol",)}
    ),
    without_header=MappingProxyType({5: _COLUMNS}),
    sides=TAKER_SIDES,
    numbering=FileNumbering,
)
