"""Carrying out a venue's plan of a repair: ask what it wants to know, publish what it has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import ContractError
from ashi.runtime.logs import get_weather_logger
from ashi.runtime.retry import Backoff, retry
from ashi_ingest.rest.budget import FIRST
from ashi_ingest.rest.client import RestError
from ashi_ingest.venues.base import Answer, Missing, RepairEnd, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ashi.contracts.trade import Trade
    from ashi_ingest.rest.budget import Urgency
    from ashi_ingest.rest.client import Asks
    from ashi_ingest.venues.base import FetchPlan

CAP_S: Final = 30.0
"""The longest wait between two attempts that the venue has not asked for."""
BASE_S: Final = 1.0
_SHOWN: Final = 60

_weather = get_weather_logger(__name__)


async def run_repair(
    rest: Asks,
    plan: FetchPlan,
    publish: Callable[[list[Trade]], Awaitable[None]],
    patience_s: float,
    *,
    urgency: Urgency = FIRST,
    on_answer: Callable[[], None] = lambda: None,
    on_missing: Callable[[Missing], None] = lambda _: None,
) -> RepairEnd:
    """Carry out `plan` and tell how it ended. What `publish` raises is raised; the plan is closed in any case.

    A request that fails is made again, until `patience_s` has passed since the first of several failures in a row, or
    would have passed at the next attempt; then the repair has ended, and says why. Waiting for its turn does not
    count: many symbols are repaired at once after an outage. It also ends when the venue refuses a request (HTTP 4xx),
    and when an answer cannot be read (a page of maintenance, say). None of that is final: it is weather, and a plan
    made anew later may succeed.
    """
    try:
        answer: Answer | None = None
        while True:
            try:
                wanted = plan.send(answer)
            except StopIteration as stop:
                end: RepairEnd = stop.value
                return end
            except ContractError as error:
                return RepairEnd(f"the venue's answer cannot be read: {error}")
            answer = None
            if isinstance(wanted, Missing):
                on_missing(wanted)
                continue
            if not isinstance(wanted, Request):
                await publish(wanted)
                continue
            try:
                answer = await _ask(rest, wanted, patience_s, urgency)
                on_answer()
            except RestError as error:
                return RepairEnd(str(error), retry_after_s=error.retry_after_s or 0.0)
    finally:
        plan.close()


async def _ask(rest: Asks, request: Request, patience_s: float, urgency: Urgency) -> Answer:
    """Ask until there is an answer. Raises the last RestError when it is fatal or patience has ended."""

    async def attempt() -> Answer:
        answer = await rest.get(request, urgency)
        begin = answer.body.lstrip()[:_SHOWN]
        if begin[:1] not in (b"[", b"{"):  # a page of maintenance, or nothing: the plan need not begin anew for that
            shown = begin.decode(errors="replace")
            raise RestError(f"the answer to {request.path} is not JSON of this venue; it begins {shown!r}", 0.0)
        return answer

    return await retry(
        attempt,
        least_wait_s=lambda error: error.retry_after_s if isinstance(error, RestError) else None,
        patience_s=patience_s,
        backoff=Backoff(BASE_S, CAP_S),
        on_wait=lambda error, wait_s: _weather.warning(
            "a repair has to wait", reason=str(error), wait_s=round(wait_s, 3)
        ),
    )
