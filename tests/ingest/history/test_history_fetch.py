"""Fetching a stretch of time from a venue whose plans are broken off: what is not to be had is known all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts.errors import ContractError
from ashi.contracts.trade import Trade
from ashi_ingest.history.fetch import HistoryFetch, Short
from ashi_ingest.history.progress import Progress
from ashi_ingest.venues.base import Missing, RepairEnd

BEGIN_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
NOW_US = BEGIN_US + 10_000 * SECOND_US
BEYOND = Missing("it goes back a month", beyond_reach=True)
BAD = Missing("a row is no trade")
BROKEN = ContractError("a page of maintenance")


def at(second: int) -> Trade:
    at_us = BEGIN_US + second * SECOND_US
    return Trade("s:M", str(second), Decimal(1), Decimal(1), None, at_us, at_us, second)


def trades(*seconds: int) -> list[Trade]:
    return [at(second) for second in seconds]


def whole(second: int, reason: str | None = None, **more: Any) -> RepairEnd:
    return RepairEnd(reason, BEGIN_US + second * SECOND_US, **more)


class Fetched:
    """A fetch of plans that are given; the order of what is told and what is published."""

    def __init__(self, *plans: Sequence[Any], until_s: int | None = 1000) -> None:
        self.order: list[Any] = []
        self.now_s = 0.0
        self.now_us = BEGIN_US
        self.until_us = None if until_s is None else BEGIN_US + until_s * SECOND_US
        self._plans = list(plans)
        venue: Any = SimpleNamespace(history=self._history, limits=SimpleNamespace(disorder_s=2.0))
        self.fetch = HistoryFetch(
            venue,
            "M",
            BEGIN_US,
            rest=SimpleNamespace(),  # type: ignore[arg-type]
            publish=self._publish,
            on_short=self._on_short,
            progress=Progress(BEGIN_US, NOW_US),
            now_us=lambda: self.now_us,
            monotonic_s=lambda: self.now_s,
            sleep=self._sleep,
        )

    def _history(self, _market: str, _since_us: int, _until_us: int | None) -> Any:
        for step in self._plans.pop(0) if len(self._plans) > 1 else self._plans[0]:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, RepairEnd):
                return step
            yield step
        raise AssertionError("a plan has an end")

    async def _publish(self, found: list[Trade]) -> None:
        self.order.append([int(trade.trade_id) for trade in found])

    async def _on_short(self, number: int, short: Short) -> None:
        assert self.fetch.shorts[number] == short
        self.order.append(short)

    async def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def run(self, patience_s: float | None = None) -> str | None:
        return asyncio.run(self.fetch.run(self.until_us, patience_s=patience_s))

    def lost(self) -> list[tuple[int, int, str]]:
        """In seconds from the beginning."""
        return [
            ((short.from_us - BEGIN_US) // SECOND_US, (short.to_us - BEGIN_US) // SECOND_US, short.reason)
            for short in self.fetch.shorts
        ]


def test_what_the_venue_does_not_have_is_known_though_the_plan_is_broken_off_before_its_end() -> None:
    fetched = Fetched([BEYOND, trades(300), trades(400), BROKEN], [trades(398, 400, 900), whole(1000)])
    assert fetched.run() is None
    assert fetched.lost() == [(0, 300, BEYOND.reason)]
    assert isinstance(fetched.order[0], Short), "before any trade that comes after it"


def test_it_is_known_as_well_when_it_is_told_to_stop_in_the_middle() -> None:
    fetched = Fetched([BEYOND, trades(300), asyncio.CancelledError(), whole(1000)])
    with pytest.raises(asyncio.CancelledError):
        fetched.run()
    assert fetched.lost() == [(0, 300, BEYOND.reason)]


def test_a_later_plan_that_does_not_go_back_so_far_tells_of_its_own_beginning() -> None:
    """The first was broken off for so long that the venue has forgotten what comes next."""
    fetched = Fetched([trades(0, 100), BROKEN], [BEYOND, trades(700), whole(1000, BEYOND.reason, beyond_reach=True)])
    assert fetched.run() is None
    assert fetched.lost() == [(96, 700, BEYOND.reason)]


def test_a_bad_row_costs_its_neighbourhood_and_not_the_whole_stretch() -> None:
    steps = [trades(0, 100), BAD, trades(101, 110), trades(111, 120), trades(121, 990), whole(1000, BAD.reason)]
    fetched = Fetched(steps)
    assert fetched.run() is None
    assert fetched.lost() == [(98, 122, BAD.reason)]
    first = next(place for place, each in enumerate(fetched.order) if isinstance(each, Short))
    assert first < fetched.order.index([101, 110])


def test_a_bad_row_at_the_end_reaches_up_to_what_is_known() -> None:
    fetched = Fetched([trades(0, 900), BAD, trades(901, 950), whole(1000, BAD.reason)])
    assert fetched.run() is None
    assert fetched.lost() == [(898, 1000, BAD.reason)]


def test_a_bad_row_is_known_though_the_plan_is_broken_off_right_after_it() -> None:
    fetched = Fetched([trades(0, 100), BAD, trades(101, 110), BROKEN], [trades(108, 900), whole(1000)])
    assert fetched.run() is None
    assert fetched.lost() == [(98, 112, BAD.reason)]


def test_what_is_listed_once_more_is_no_progress_so_patience_ends() -> None:
    fetched = Fetched([trades(100), BROKEN])
    reason = fetched.run(patience_s=300.0)
    assert reason is not None
    assert str(BROKEN) in reason
    assert 300 < fetched.now_s < 600


@pytest.mark.parametrize("less", [RepairEnd(), whole(500)])
def test_an_answer_that_says_less_than_is_known_has_shown_nothing(less: RepairEnd) -> None:
    fetched = Fetched([less], [trades(700), whole(1000)])
    fetched.fetch.known = trades(600, 900)
    fetched.now_us = BEGIN_US + 2000 * SECOND_US
    assert fetched.run() is None
    assert fetched.order == [[700]]
    assert fetched.fetch.known_until == BEGIN_US + 1940 * SECOND_US


def test_where_it_goes_on_saying_less_the_reason_names_what_is_known() -> None:
    fetched = Fetched([RepairEnd()])
    fetched.fetch.known = trades(600, 900)
    fetched.now_us = BEGIN_US + 2000 * SECOND_US
    assert "trade 900 is known" in (fetched.run(patience_s=300) or "")
    assert fetched.fetch.known_until == BEGIN_US
