"""Running a repair plan against a model of a venue's REST interface, for the tests of all venues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ashi.contracts.trade import Trade
from ashi_ingest.venues.base import Answer, FetchPlan, Missing, RepairEnd, Request

NOW = 1_800_000_000_000_000
"""When the first answer is received, µs; each later one comes half a second after the one before."""
MOST_REQUESTS = 3000


class Outcome(NamedTuple):
    yielded: list[Trade]
    end: RepairEnd
    requests: list[Request]
    missing: Sequence[tuple[int, Missing]] = ()
    """What is missing, and how many trades had been yielded when that was told."""

    @property
    def reason(self) -> str | None:
        return self.end.reason


def run_plan(
    plan: FetchPlan,
    answer: Callable[[Request], bytes],
    *,
    now_us: int = NOW,
    on_trades: Callable[[list[Trade]], None] = lambda _: None,
) -> Outcome:
    """Carry out a plan. `now_us`: when the first answer is received; `on_trades` is given what is yielded at a time."""
    yielded: list[Trade] = []
    requests: list[Request] = []
    missing: list[tuple[int, Missing]] = []
    to_send: Answer | None = None
    while True:
        try:
            step = plan.send(to_send)
        except StopIteration as end:
            return Outcome(yielded, end.value, requests, tuple(missing))
        if isinstance(step, Request):
            assert len(requests) < MOST_REQUESTS, "the plan does not end"
            to_send = Answer(answer(step), now_us + 500_000 * len(requests))
            requests.append(step)
        elif isinstance(step, Missing):
            missing.append((len(yielded), step))
            to_send = None
        else:
            assert step, "an empty list is no step"
            on_trades(step)
            yielded += step
            to_send = None


def bare(trades: Sequence[Trade]) -> list[tuple[object, ...]]:
    """All of each trade but `received_at`, which differs by the way it came."""
    return [
        (trade.symbol, trade.trade_id, trade.price, trade.size, trade.side, trade.traded_at, trade.sequence)
        for trade in trades
    ]


def new_ones(yielded: Sequence[Trade], since: Sequence[Trade]) -> list[Trade]:
    """What a runner that knows only `since` would publish. A trade is never yielded twice."""
    assert len({trade.trade_id for trade in yielded}) == len(yielded)
    known = {trade.trade_id for trade in since}
    return [trade for trade in yielded if trade.trade_id not in known]
