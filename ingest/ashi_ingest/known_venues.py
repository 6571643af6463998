"""The venue that somebody has named, or what is said of a name that none has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.errors import UsageError
from ashi.runtime.spelling import did_you_mean
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi_ingest.venues.base import VenueDescription


def venue_named(name: str, option: str = "", *, among: Iterable[str] = VENUES) -> VenueDescription:
    """The venue. `option`: how the message begins, as `--symbol: `; `among`: the venues that the message lists.

    Raises UsageError that lists them, and guesses which one was meant, for a name that no venue has.
    """
    if name not in VENUES:
        listed = list(among)
        raise UsageError(
            f"{option}there is no venue {name!r}: write one of {', '.join(listed)}{did_you_mean(name, listed)}"
        )
    return VENUES[name]
