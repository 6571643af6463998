"""The fold: what a set of trades of one window adds up to. Partial folds merge in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from itertools import compress
from operator import mul

import msgspec

from ashi.contracts.decimals import EXACT
from ashi.contracts.trade import Trade

_ZERO = Decimal(0)

Rank = tuple[int, int, str, Decimal]
"""(traded_at, sequence, trade_id, price): the order of a symbol's trades. The id and the price only part trades that
a venue gave the same time and sequence, so that no tie is ever broken by arrival."""


class Fold(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """The sums over some trades of one symbol and one window.

    Attributes:
        symbol: whose trades; empty inside a row, which has it once.
        open_time: start of the window, µs.
        first: rank of the least trade, whose price is the open; `last` of the greatest, whose price is the close.
        volume: base currency; `quote_volume` in quote currency, the sum of price * size.
        offset: greatest offset in the log among the trades folded in.

    """

    open_time: int
    first: Rank
    last: Rank
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    offset: int
    symbol: str = ""

    def merge(self, other: Fold) -> None:
        """Add the trades of `other`, which must be others than those already folded in."""
        add = EXACT.add
        # Comparisons, as `min` and `max` take three times as long, and of thousands of symbols this is much of a trade.
        if other.first < self.first:  # noqa: PLR1730
            self.first = other.first
        if other.last > self.last:  # noqa: PLR1730
            self.last = other.last
        if other.high > self.high:  # noqa: PLR1730
            self.high = other.high
        if other.low < self.low:  # noqa: PLR1730
            self.low = other.low
        self.volume = add(self.volume, other.volume)
        self.quote_volume = add(self.quote_volume, other.quote_volume)
        self.trade_count += other.trade_count
        self.taker_buy_volume = add(self.taker_buy_volume, other.taker_buy_volume)
        self.taker_buy_quote_volume = add(self.taker_buy_quote_volume, other.taker_buy_quote_volume)
        if other.offset > self.offset:  # noqa: PLR1730
            self.offset = other.offset


def fold_trades(trades: Sequence[Trade], open_time: int, offset: int) -> Fold:
    """Fold trades of one symbol and one window (at least one); `offset` is the greatest of theirs.

    Columns rather than a loop: the sums, minima and maxima then run in C, which halves the cost of a trade. But one by
    itself, of a symbol among thousands, is cheaper without.
    """
    if len(trades) == 1:
        return _fold_trade(trades[0], open_time, offset)
    prices = [trade.price for trade in trades]
    sizes = [trade.size for trade in trades]
    taker_buys = [trade.side == "buy" for trade in trades]
    ranks = [(trade.traded_at, trade.sequence, trade.trade_id, trade.price) for trade in trades]
    with localcontext(EXACT):
        quotes = list(map(mul, prices, sizes))
        return Fold(
            open_time=open_time,
            first=min(ranks),
            last=max(ranks),
            high=max(prices),
            low=min(prices),
            volume=sum(sizes, _ZERO),
            quote_volume=sum(quotes, _ZERO),
            trade_count=len(trades),
            taker_buy_volume=sum(compress(sizes, taker_buys), _ZERO),
            taker_buy_quote_volume=sum(compress(quotes, taker_buys), _ZERO),
            offset=offset,
            symbol=trades[0].symbol,
        )


def fold_coarser(folds: Iterable[Fold], length_us: int) -> list[Fold]:
    """What folds of finer windows, oldest first, add up to in windows of a timeframe of that length, without symbol."""
    coarser: list[Fold] = []
    for fold in folds:
        open_time = fold.open_time - fold.open_time % length_us
        if coarser and coarser[-1].open_time == open_time:
            coarser[-1].merge(fold)
        else:
            coarser.append(msgspec.structs.replace(fold, open_time=open_time, symbol=""))
    return coarser


def _fold_trade(trade: Trade, open_time: int, offset: int) -> Fold:
    rank = (trade.traded_at, trade.sequence, trade.trade_id, trade.price)
    size = EXACT.add(trade.size, _ZERO)  # as sums are: without a positive exponent
    quote = EXACT.add(EXACT.multiply(trade.price, trade.size), _ZERO)
    is_taker_buy = trade.side == "buy"
    return Fold(
        open_time=open_time,
        first=rank,
        last=rank,
        high=trade.price,
        low=trade.price,
        volume=size,
        quote_volume=quote,
        trade_count=1,
        taker_buy_volume=size if is_taker_buy else _ZERO,
        taker_buy_quote_volume=quote if is_taker_buy else _ZERO,
        offset=offset,
        symbol=trade.symbol,
    )
