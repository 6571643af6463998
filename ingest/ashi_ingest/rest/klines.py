"""Klines of a venue over REST, page after page, each asked for until there is an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.errors import ContractError, VenueError
from ashi.runtime.retry import retry
from ashi_ingest.rest.client import RestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ashi.contracts.timeframe import Timeframe
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import Kline, KlinePage, Klines


class KlineFetch:
    """Asks one venue for klines."""

    def __init__(
        self, venue: str, klines: Klines, rest: Asks, *, patience_s: float, tell: Callable[[Exception], None]
    ) -> None:
        """`patience_s`: for so long an answer is waited for; `tell` is told of the first failure of each request."""
        self._venue = venue
        self._klines = klines
        self._rest = rest
        self._patience_s = patience_s
        self._tell = tell

    async def page(self, page: KlinePage, timeframe: Timeframe) -> list[Kline]:
        """The klines that begin in the time of a page, oldest first.

        Raises VenueError for an answer that cannot be read, RestError when there is none.
        """
        is_told = False

        async def attempt() -> list[Kline]:
            try:
                return self._klines.read(timeframe, (await self._rest.get(page.request)).body)
            except ContractError as error:
                raise VenueError(f"{self._venue}: {error}") from None

        def on_wait(error: Exception, _wait_s: float) -> None:
            nonlocal is_told
            if not is_told:
                self._tell(error)
            is_told = True

        found = await retry(attempt, least_wait_s=_least_wait_s, patience_s=self._patience_s, on_wait=on_wait)
        return [kline for kline in found if page.start <= kline.open_time < page.end]


def _least_wait_s(error: Exception) -> float | None:
    return error.retry_after_s if isinstance(error, RestError) else None
