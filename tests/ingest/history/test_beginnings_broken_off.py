"""A symbol that begins in the past, when something fails on the way, without a worker around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts.trade import Trade
from ashi_ingest.history.beginnings import Beginnings
from ashi_ingest.venues.base import Missing, RepairEnd, Request

SINCE_US = 1_700_000_000_000_000
FIRST_US = SINCE_US + 86_400_000_000


class Told:
    """A reporter."""

    def __init__(self) -> None:
        self.ended: list[tuple[int | None, int, str]] = []
        self.flushed = 0

    def end_gap(self, _symbol: str, to_time: int, state: str, *_: Any, from_time: int | None = None, **__: Any) -> None:
        self.ended.append((from_time, to_time, state))

    def lost_gap(self, *_: Any) -> None:
        return None

    def open_gap(self, *_: Any) -> None: ...
    def set_state(self, *_: Any) -> None: ...
    def on_trade(self, *_: Any) -> None: ...

    async def flush(self) -> None:
        self.flushed += 1


def beginning(
    plan: Callable[..., Any],
    told: Told,
    *,
    put: Callable[..., None] = lambda *_, **__: None,
    hand_over: Callable[..., None] = lambda *_: None,
) -> Beginnings:
    limits = SimpleNamespace(disorder_s=1.0)
    venue: Any = SimpleNamespace(
        name="gmo", limits=limits, history=plan, contiguous=lambda _market: False, ordered_ids=True
    )

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    async def room() -> None: ...

    parts: Any = SimpleNamespace(get=never, put=put, room_to_repair=room)
    reporter: Any = told
    return Beginnings(
        venue,
        SINCE_US,
        rest=parts,
        publish_buffer=parts,
        backpressure=parts,
        reporter=reporter,
        hand_over=hand_over,
        now_us=lambda: FIRST_US + 3_600_000_000,
    )


def test_what_the_venue_does_not_have_is_told_before_its_first_trade_is_published() -> None:
    """So a worker that is killed right after it does not leave it to one that does not know."""
    told, published = Told(), asyncio.Event()

    def plan(*_: Any) -> Any:
        yield Missing("it goes back a month", beyond_reach=True)
        yield [Trade("gmo:BTC", "1", Decimal(1), Decimal(1), None, FIRST_US, FIRST_US, 1)]
        yield Request("/trades", {})
        raise AssertionError("it is never answered")

    def put(*_: Any, **__: Any) -> None:
        assert told.ended[-1] == (SINCE_US + 1, FIRST_US, "lost")
        assert told.flushed
        published.set()

    async def run() -> None:
        beginnings = beginning(plan, told, put=put)
        beginnings.add("BTC", [])
        await asyncio.wait_for(published.wait(), 60)
        await beginnings.stop("killed")

    asyncio.run(run())


def test_what_the_hand_over_fails_of_is_raised() -> None:
    def plan(*_: Any) -> Any:
        yield from ()
        return RepairEnd(None, FIRST_US)

    def hand_over(*_: Any) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        beginnings = beginning(plan, Told(), hand_over=hand_over)
        beginnings.add("BTC", [])
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(beginnings.run(), 60)

    asyncio.run(run())
