"""What a venue states of all its markets at once: the id of the last trade of each, see `venues.base.Statement`.

One request instead of one for each market: whether a quiet market has missed something is told by it. So it is asked
for from time to time, and soon after markets have come back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import ContractError
from ashi.runtime.first_of import first_of
from ashi.runtime.outage_log import OutageLog
from ashi_ingest.rest.budget import Priority, Urgency
from ashi_ingest.rest.client import RestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import Venue

SOON_S: Final = 2.0
"""A statement that is asked for soon waits so long: for more who want it, and for what REST does not know at once."""
APART_S: Final = 5.0
"""Statements are no closer to each other: each is as heavy as several requests."""
FRESH: Final = 3
"""After so many intervals without one the last statement says nothing any more."""


class Stated(NamedTuple):
    """The last id that a venue states of a market, and since when it has stated just that, µs by our clock."""

    last: int
    since_us: int


class LastIds:
    """The statements of one venue; of one that states nothing there are none."""

    def __init__(
        self,
        venue: Venue,
        *,
        rest: Asks,
        interval_s: float,
        now_us: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        """`interval_s`: how often it is asked for when nobody wants it soon."""
        self._venue = venue
        self._rest = rest
        self._interval_s = interval_s
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._wanted = asyncio.Event()
        self._asked_s: float | None = None
        self._ids: Mapping[str, Stated] = {}
        self._outages = OutageLog(
            "the venue does not state the last ids of its markets",
            "the venue states the last ids of its markets again",
            monotonic_s,
        )

    @property
    def is_fresh(self) -> bool:
        """Whether the venue has stated them not long ago."""
        return self._asked_s is not None and self._monotonic_s() - self._asked_s < FRESH * self._interval_s

    def ask_soon(self) -> None:
        """Somebody wants to know: markets have come back."""
        self._wanted.set()

    def newer_than(self, market: str, known: int, since_s: float) -> bool | None:
        """Whether more is stated of a market than the id that is known of it; None: nothing was stated since then."""
        if self._asked_s is None or self._asked_s < since_s or not self.is_fresh or market not in self._ids:
            return None
        return self._ids[market].last > known

    def last(self, market: str) -> Stated | None:
        """What was stated last of a market; None when nothing was."""
        return self._ids.get(market)

    async def run(self, on_stated: Callable[[Mapping[str, Stated], int], None]) -> None:
        """Ask for ever. `on_stated` is told by market what the venue says, and when it was asked, µs."""
        statement = self._venue.statement
        while statement is not None:
            await first_of(self._until_wanted(), asyncio.sleep(self._interval_s))
            self._wanted.clear()
            asked_us, asked_s = self._now_us(), self._monotonic_s()
            try:
                answer = await self._rest.get(statement.request, Urgency(Priority.SUSPICION))
                ids = statement.read(answer.body)
            except (RestError, ContractError) as error:
                self._outages.failed(str(error))
                await asyncio.sleep(APART_S)
                continue
            self._outages.worked()
            self._asked_s = asked_s
            self._ids = {market: self._stated(market, last, asked_us) for market, last in ids.items()}
            on_stated(self._ids, asked_us)

    def _stated(self, market: str, last: int, asked_us: int) -> Stated:
        before = self._ids.get(market)
        return before if before is not None and before.last == last else Stated(last, asked_us)

    async def _until_wanted(self) -> None:
        if self._asked_s is not None:
            await asyncio.sleep(self._asked_s + APART_S - self._monotonic_s())
        await self._wanted.wait()
        await asyncio.sleep(SOON_S)
