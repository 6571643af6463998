"""Which markets a worker reads: those that were named, or all that the venue lists; and of them, those of its shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import ContractError
from ashi.contracts.symbol import make_symbol
from ashi.runtime.logs import get_logger
from ashi.runtime.retry import Backoff, retry
from ashi_ingest.rest.client import RestError
from ashi_ingest.shard import Shard, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_ingest.rest.client import RestClient
    from ashi_ingest.venues.base import Venue

ATTEMPTS: Final = 3
"""So often the venue is asked for its markets before the worker goes on without having checked them."""
MAX_WAIT_S: Final = 10.0
"""And not again when the venue wants to be left alone for longer than this. Only without the list, for all of its
markets, the worker cannot go on."""

_log = get_logger(__name__)


class Markets(NamedTuple):
    """The markets of one worker, by the venue's own names.

    Attributes:
        present: what it is to read.
        absent: what was named, and the venue does not have.

    """

    present: list[str]
    absent: list[str]


async def choose_markets(rest: RestClient, venue: Venue, named: Sequence[str], shard: Shard | None) -> Markets:
    """The markets of a worker: `named`, or all of the venue if there are none, and of them those of its shard.

    Raises:
        RestError: no market is named, and the venue will never list its own.

    """
    if not named:
        # Never empty but for the shard.
        return Markets(_in_shard(venue, sorted(await _ask_for_all(rest, venue)), shard), [])
    listed = await _ask_a_few_times(rest, venue)
    wanted = _in_shard(venue, list(dict.fromkeys(named)), shard)
    absent = [market for market in wanted if listed is not None and market not in listed]
    return Markets([market for market in wanted if market not in absent], absent)


def _in_shard(venue: Venue, markets: list[str], shard: Shard | None) -> list[str]:
    if shard is None:
        return markets
    symbols = select([make_symbol(venue.name, market) for market in markets], shard)
    return [symbol.partition(":")[2] for symbol in symbols]


async def _ask(rest: RestClient, venue: Venue) -> set[str]:
    return set(venue.read_markets((await rest.get(venue.markets_request())).body))


async def _ask_for_all(rest: RestClient, venue: Venue) -> set[str]:
    """What the venue lists, asked for until it lists something. Raises RestError when it never will."""

    async def ask() -> set[str]:
        if listed := await _ask(rest, venue):
            return listed
        raise ContractError("it lists none")

    return await retry(ask, least_wait_s=_least_wait_s, backoff=Backoff(), on_wait=_log_wait)


async def _ask_a_few_times(rest: RestClient, venue: Venue) -> set[str] | None:
    """What the venue lists; None when it does not say so soon enough."""

    def least_wait_s(error: Exception) -> float | None:
        wait_s = _least_wait_s(error)
        return None if wait_s is None or wait_s > MAX_WAIT_S else wait_s

    try:
        return await retry(
            lambda: _ask(rest, venue),
            least_wait_s=least_wait_s,
            max_attempts=ATTEMPTS,
            backoff=Backoff(),
            on_wait=_log_wait,
        )
    except (RestError, ContractError) as error:
        _log.warning("the venue does not list its markets, going on unchecked", reason=str(error))
        return None


def _least_wait_s(error: Exception) -> float | None:
    if isinstance(error, RestError):
        return error.retry_after_s
    return 0.0 if isinstance(error, ContractError) else None  # in maintenance venues answer with something else


def _log_wait(error: Exception, wait_s: float) -> None:
    _log.warning("the venue does not list its markets, asking again", reason=str(error), wait_s=round(wait_s, 3))
