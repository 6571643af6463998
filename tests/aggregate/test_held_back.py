"""A transaction that is left open: told when it lasts, and when it is over."""

from __future__ import annotations

import pytest

from ashi.runtime.metrics.declare import REGISTRY
from ashi_aggregate.held_back import TELL_AFTER_S, HeldBack, KnownEnds


def look(held: HeldBack, now_s: float, **ends: tuple[int, int]) -> None:
    held.look({int(name[1:]): KnownEnds(*pair) for name, pair in ends.items()}, now_s)


def test_what_a_transaction_holds_back_is_told_once_when_it_lasts_and_once_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    held = HeldBack()
    look(held, 0, p0=(5, 5), p1=(7, 9))
    assert REGISTRY.get_sample_value("ashi_records_held_back", {"partition": "1"}) == 2
    # Another one each time is how somebody works.
    look(held, TELL_AFTER_S, p0=(5, 5), p1=(12, 13))
    look(held, 2 * TELL_AFTER_S - 1, p0=(5, 5), p1=(12, 30))
    assert not caplog.records
    for later in (2 * TELL_AFTER_S, 3 * TELL_AFTER_S):
        look(held, later, p0=(5, 5), p1=(12, 40))
    [told] = caplog.messages
    assert "left open" in told
    assert "offset=12 " in told
    assert "records=28" in told
    look(held, 3 * TELL_AFTER_S + 1, p0=(5, 5), p1=(41, 41))
    assert "the transaction has ended" in caplog.messages[-1]
    look(held, 9 * TELL_AFTER_S, p0=(5, 5), p1=(41, 41))
    assert len(caplog.messages) == 2
    assert REGISTRY.get_sample_value("ashi_records_held_back", {"partition": "1"}) == 0


def test_a_partition_that_was_given_away_is_of_no_concern(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldBack()
    look(held, 0, p1=(7, 9))
    look(held, 1)
    look(held, TELL_AFTER_S, p1=(7, 9))
    assert not caplog.records
    assert REGISTRY.get_sample_value("ashi_records_held_back", {"partition": "0"}) is None
