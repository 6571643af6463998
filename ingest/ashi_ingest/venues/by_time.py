"""Finding a time among trade ids that grow: where the venue is asked by id only, and the wanted id is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.base import Answer, Request

MARGIN: Final = 1.25
"""The first guess goes so much farther back than the rate of the newest trades says."""


class Probe(NamedTuple):
    """What the venue says of an id: the trade there or next to it, either side, and when it was traded, µs.

    `at` is None where the venue has nothing that old. `refused`: it says so by an error.
    """

    number: int
    at: int | None
    refused: bool = False


class Begin(NamedTuple):
    """Where to begin: every trade with an id up to `after` is older than the wanted time, or not to be had.

    `refused`: the venue has refused to go back so far, so what lies there is not known.
    """

    after: int
    refused: bool


def find_begin(
    ask: Callable[[int], Generator[Request, Answer | None, Probe]], newest: list[Trade], begin_us: int, near: int
) -> Generator[Request, Answer | None, Begin]:
    """Find the id from which on trades are not older than `begin_us`, by asking for some, to within `near` ids.

    `newest`: the newest trades, oldest first, at least one; the first of them is not older. `ask`: of an id that is
    smaller. The distance from the newest is guessed by their rate and doubled, then halved or interpolated in turns:
    some ten requests for any time of a market of steady trade, twice the logarithm of the ids for any other.
    """
    first, last = newest[0], newest[-1]
    high = Probe(first.sequence, first.traded_at)
    low = Probe(-1, None)
    refused = False
    per_us = (last.sequence - first.sequence + 1) / max(last.traded_at - first.traded_at, 1)
    back = max(round((first.traded_at - begin_us) * per_us * MARGIN), near, 1)
    interpolates = True
    while high.number - low.number - 1 > (0 if refused else near):  # what is refused must not be asked for again
        if low.number < 0 and back < high.number:
            number = high.number - back
            back *= 2
        else:
            number = _between(low, high, begin_us if interpolates else None)
            interpolates = not interpolates
        probe = yield from ask(number)
        if probe.at is None or probe.at < begin_us:
            low = Probe(max(number, probe.number), probe.at)
            refused = probe.refused
        else:
            high = Probe(min(number, probe.number), probe.at)
    return Begin(low.number, refused)


def _between(low: Probe, high: Probe, begin_us: int | None) -> int:
    """An id between both: where the time would be if trades came evenly, or, without a time, in the middle."""
    width = high.number - low.number
    share = 0.5
    if begin_us is not None and low.at is not None and high.at is not None and high.at > low.at:
        share = (begin_us - low.at) / (high.at - low.at)
    return min(max(low.number + round(width * share), low.number + 1), high.number - 1)
