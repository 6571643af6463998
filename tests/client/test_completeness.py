"""Joining status and gaps: whatever order they come in, the last word of each counts."""

from __future__ import annotations

import itertools

import msgspec
from client_samples import BTC, ETH, FIRST_US, MINUTE_US, a_candle

from ashi.client import Completeness, FeedGap, FeedStatus


def a_status(complete_until: int | None, updated: int, symbol: str = BTC) -> FeedStatus:
    return FeedStatus(symbol, "connected", FIRST_US, None, "7", FIRST_US, FIRST_US + updated, complete_until)


def test_a_candle_is_complete_once_it_was_checked_and_while_no_gap_overlaps_it() -> None:
    known = Completeness()
    first, second = a_candle(0), a_candle(1)
    assert known.complete_until(BTC) is None
    assert not known.is_complete(first)
    known.update(a_status(None, 1))
    assert not known.is_complete(first)
    known.update(a_status(FIRST_US + MINUTE_US, 2))
    assert (known.is_complete(first), known.is_complete(second)) == (True, False)
    assert not known.is_complete(a_candle(0, symbol=ETH))
    known.update(FeedGap(ETH, FIRST_US, None, "open", 0, "silent", FIRST_US))
    assert known.is_complete(first)
    gap = FeedGap(BTC, FIRST_US + MINUTE_US - 1, None, "open", 0, "silent", FIRST_US)
    assert known.update(gap) is True
    assert known.update(gap) is False, "that is known"
    assert not known.is_complete(first)
    assert (known.gaps_in(first), known.gaps_in(a_candle(0, symbol="gmo:BTC"))) == ([gap], [])
    known.update(msgspec.structs.replace(gap, to_time=FIRST_US + MINUTE_US, state="repaired", updated_at=FIRST_US + 1))
    assert known.is_complete(first)
    assert known.gaps_in(first) == []
    assert known.update(a_status(FIRST_US, 1)) is False, "one that is newer is known"


def test_the_order_of_messages_does_not_matter() -> None:
    gap = FeedGap(BTC, FIRST_US, FIRST_US + 1, "open", 0, "silent", FIRST_US)
    messages: list[FeedGap | FeedStatus] = [
        gap,
        msgspec.structs.replace(gap, state="repaired", updated_at=FIRST_US + 2),
        msgspec.structs.replace(gap, from_time=FIRST_US + MINUTE_US, to_time=None, state="lost"),
        a_status(FIRST_US, 1),
        a_status(FIRST_US + 9 * MINUTE_US, 2),
    ]
    for order in itertools.permutations(messages):
        known = Completeness()
        for message in order:
            known.update(message)
        assert [known.is_complete(a_candle(minute)) for minute in range(3)] == [True, False, False]
        assert known.complete_until(BTC) == FIRST_US + 9 * MINUTE_US
