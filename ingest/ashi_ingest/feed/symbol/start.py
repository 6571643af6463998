"""What a feed says when its process starts: what it was not there for is a gap, and what was left open is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.logs import get_logger
from ashi_ingest.feed.symbol.opening import is_cut_off, missed_since

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.feed import FeedStatus
    from ashi.contracts.trade import Trade
    from ashi_ingest.feed.reporting.status import FeedReporter

STARTED: Final = "the worker has been started"
ENDED: Final = "the worker that asked for it has ended"
NOTHING_BEFORE: Final = "nothing had been published before, so there is nothing to go on from"

_log = get_logger(__name__)


def tell_of_start(
    symbol: str,
    reporter: FeedReporter,
    resume_point: Sequence[Trade],
    status: FeedStatus | None,
    *,
    now_us: int,
    unlisted_us: int | None,
) -> int:
    """Tell of the time in which nobody read the symbol, and say since when trades of it may be missing, µs.

    `resume_point`: the trades published last. `status`: what was said last of the symbol. `unlisted_us`: the venue did
    not trade the market then, so all of it is asked for. The time before the first start of all is lost.
    """
    last = resume_point[-1] if resume_point else None
    if last is not None:
        reporter.on_trade(symbol, last)  # what was said last may be of a trade that Kafka never had
    reporter.set_state(symbol, "down", STARTED)
    if status is not None and is_cut_off(resume_point, status):
        _log.error(
            "a trade that Kafka had acknowledged is not in topic trades: it was cut or made anew; what is missing "
            "after the last one that stands there is a gap, to be fetched from the venue",
            symbol=symbol,
            trade_id=status.last_trade_id,
            traded_at=status.last_traded_at,
        )
    for gap in reporter.bounded_gaps(symbol):  # trades after it were published: no repair comes by it
        until_us = gap.to_time or gap.from_time
        reporter.end_gap(
            symbol, until_us, "lost", gap.trades_recovered, f"{ENDED}: {gap.reason}", from_time=gap.from_time
        )
    since_us = missed_since(resume_point, status, now_us)
    open_us = reporter.open_since(symbol)
    if since_us == EARLIEST_US and open_us is not None and open_us > EARLIEST_US:
        since_us = open_us  # all since then can be asked for, and what was before has been told
    elif since_us == EARLIEST_US:  # nothing is known of what was before, and from now on everything is to be
        since_us = now_us if unlisted_us is None else unlisted_us
        reporter.end_gap(symbol, since_us, "lost", 0, NOTHING_BEFORE, from_time=EARLIEST_US)
    reporter.open_gap(symbol, since_us, STARTED)
    return min(since_us, reporter.open_since(symbol) or since_us)  # gaps of the process before
