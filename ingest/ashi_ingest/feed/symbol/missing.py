"""What REST lists of a market and no connection has brought, and where it lies between what has come. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.symbol.checked import CheckedSymbol


class UnreceivedTrades(NamedTuple):
    """Trades of a market that REST lists and no connection has brought.

    Attributes:
        trades: in the venue's order, at least one.
        since_us: when the last one before them that had come happened, or the first of them: a gap begins here, µs.
        until_us: when the first one after them that REST lists happened, or the last of them, if that is later or REST
            lists none; None: none has come since.
        is_all: REST has listed all it knows, so where ids are contiguous, those that it leaves out are of no trade.

    """

    trades: list[Trade]
    since_us: int
    until_us: int | None
    is_all: bool = True


def find_missing(
    listed: Sequence[Trade], unknown: Sequence[Trade], checked: CheckedSymbol, *, is_all: bool = True
) -> UnreceivedTrades:
    """Where what is missing lies. `listed`: by REST, in the venue's order; `unknown`: those that are missing.

    `is_all`: see `UnreceivedTrades`.
    """
    ids = {trade.trade_id for trade in unknown}
    first = next(index for index, trade in enumerate(listed) if trade.trade_id in ids)
    before = [listed[first - 1]] if first else checked.since[-1:]
    since_us = min(trade.traded_at for trade in (*before, *unknown))
    newest = max(map(checked.age, unknown))
    last = max(index for index, trade in enumerate(listed) if trade.trade_id in ids)
    # What came after REST was asked is no end: more may be missing before it that REST did not list yet.
    after = listed[last + 1 :]
    if not after and all(checked.age(trade) <= newest for trade in checked.recent):
        return UnreceivedTrades(list(unknown), since_us, None, is_all)
    until_us = max(trade.traded_at + 1 for trade in unknown)
    if after:
        until_us = max(until_us, min(after, key=checked.age).traded_at)
    return UnreceivedTrades(list(unknown), since_us, until_us, is_all)
