"""By which plan a venue is asked: by the trades before, or by time, and then whether REST knew of the live trade."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts.trade import Trade
from ashi_ingest.feed.repair.plans import plan_since
from ashi_ingest.venues.base import Answer, RepairEnd, Request

T = 1_700_000_000_000_000
S = 1_000_000


def trade(number: int, at_s: float, name: str | None = None) -> Trade:
    at_us = T + round(at_s * S)
    return Trade("toy:A", name or str(number), Decimal(1), Decimal(1), "buy", at_us, at_us, number)


class Venue:
    """Lists what it is told to, by time or by trades, and ends as it is told to."""

    limits = SimpleNamespace(disorder_s=2.0)

    def __init__(self, *listed: list[Trade], end: RepairEnd = RepairEnd(), ordered_ids: bool = True) -> None:  # noqa: B008
        self.listed = listed
        self.end = end
        self.ordered_ids = ordered_ids
        self.asked: list[Any] = []

    def repair(self, market: str, since: Any, until: Trade | None) -> Any:
        self.asked.append(("repair", since, until))
        return self._plan()

    def history(self, market: str, since_us: int, until_us: int | None) -> Any:
        self.asked.append(("history", since_us, until_us))
        return self._plan()

    def _plan(self) -> Any:
        for page in self.listed:
            answer = yield Request("/trades", {})
            assert isinstance(answer, Answer)
            yield page
        return self.end


def carry_out(venue: Venue, since: list[Trade], until: Trade | None, since_us: int = T) -> tuple[list[str], RepairEnd]:
    asked: Any = venue
    plan = plan_since(asked, "A", since, since_us, until)
    answer: Answer | None = None
    found: list[str] = []
    while True:
        try:
            wanted = plan.send(answer)
        except StopIteration as stop:
            return found, stop.value
        answer = Answer(b"[]", T) if isinstance(wanted, Request) else None
        if isinstance(wanted, list):
            found += [each.trade_id for each in wanted]


def test_after_trades_it_is_asked_for_by_them() -> None:
    venue, since, until = Venue([trade(2, 2)]), [trade(1, 1)], trade(3, 3)
    assert carry_out(venue, since, until) == (["2"], RepairEnd())
    assert venue.asked == [("repair", since, until)]


def test_without_any_it_is_asked_for_by_time_and_what_is_older_is_left_out() -> None:
    venue = Venue([trade(1, -1), trade(2, 0)], [trade(3, 5)])
    assert carry_out(venue, [], None) == (["2", "3"], RepairEnd())
    assert venue.asked == [("history", T, None)]


@pytest.mark.parametrize(
    ("last", "ordered_ids"),
    [(trade(7, 9), True), (trade(8, 8.5), True), (trade(0, 9, "7"), False), (trade(0, 9.5, "later"), False)],
)
def test_rest_that_lists_the_live_trade_or_a_newer_one_has_shown_what_was_before(
    last: Trade, ordered_ids: bool
) -> None:
    venue = Venue([trade(6, 8, "6")], [last], ordered_ids=ordered_ids)
    assert carry_out(venue, [], trade(7, 9)) == (["6", last.trade_id], RepairEnd())
    assert venue.asked == [("history", T, T + 11 * S + 1)]


@pytest.mark.parametrize("ordered_ids", [True, False])
def test_rest_that_does_not_list_it_yet_has_shown_nothing(ordered_ids: bool) -> None:
    venue = Venue([trade(6, 8, "6")], ordered_ids=ordered_ids)
    found, end = carry_out(venue, [], trade(7, 9))
    assert found == ["6"]
    assert end.reason == "REST does not list trade 7 of A yet, which came live"
    assert not end.final
    assert not end.beyond_reach


def test_what_else_is_wrong_is_the_reason() -> None:
    end = RepairEnd("it goes back a month", beyond_reach=True)
    assert carry_out(Venue([trade(6, 8)], end=end), [], trade(7, 9)) == (["6"], end)
