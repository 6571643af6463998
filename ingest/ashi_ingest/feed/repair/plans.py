"""Which plan asks a venue for what a feed has missed: by the trades before it, or, where there are none, by time. Pure.

A plan by trades goes on until REST lists the first trade that came over the connection. One by time asks for what there
is (`Venue.history`), so whether REST knew of that trade is seen here by what it lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi_ingest.venues.base import Missing, RepairEnd, Request

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import Answer, FetchPlan, Venue


def plan_since(venue: Venue, market: str, since: Sequence[Trade], since_us: int, until: Trade | None) -> FetchPlan:
    """Plan how to get what happened after `since`, or, where that is empty, from `since_us` on, before `until`."""
    if since:
        return venue.repair(market, since, until)
    return _plan_by_time(venue, market, since_us, until)


def _plan_by_time(
    venue: Venue, market: str, since_us: int, until: Trade | None
) -> Generator[Request | list[Trade] | Missing, Answer | None, RepairEnd]:
    until_us = None if until is None else until.traded_at + round(venue.limits.disorder_s * 1e6) + 1
    plan = venue.history(market, since_us, until_us)
    answer: Answer | None = None
    is_reached = until is None
    while True:
        try:
            wanted = plan.send(answer)
        except StopIteration as stop:
            end: RepairEnd = stop.value
            break
        if isinstance(wanted, Request):
            answer = yield wanted
            continue
        answer = None
        if isinstance(wanted, Missing):
            yield wanted
            continue
        is_reached = is_reached or any(_is_as_new(venue, trade, until) for trade in wanted)
        if within := [trade for trade in wanted if trade.traded_at >= since_us]:
            yield within
    if until is None or is_reached:
        return end
    lagging = f"REST does not list trade {until.trade_id} of {market} yet, which came live"
    return end._replace(reason=end.reason or lagging, is_told=False)


def _is_as_new(venue: Venue, trade: Trade, until: Trade | None) -> bool:
    if until is None or trade.trade_id == until.trade_id:
        return True
    if venue.ordered_ids:
        return trade.sequence > until.sequence
    return trade.traded_at > until.traded_at
