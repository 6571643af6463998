"""What becomes of gaps when a stretch of time has become known; and which trades are remembered, in little room."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.feed import FeedGap, is_complete
from ashi.contracts.trade import Trade
from ashi_ingest.history import known_trades
from ashi_ingest.history.known_trades import KnownTrades
from ashi_ingest.history.progress import Progress
from ashi_ingest.history.settled_gaps import Span, settle, without


def gap(from_time: int, to_time: int | None, state: str = "lost") -> FeedGap:
    return FeedGap("s:M", from_time, to_time, state, 0, "why", 5)  # type: ignore[arg-type]


def told(gaps: list[FeedGap], *known: tuple[int, int]) -> list[tuple[int, int | None, str]]:
    messages = settle(gaps, [Span(*span) for span in known], {}, now_us=10, reason="got")
    read = {each.from_time for each in gaps}
    assert all(message.updated_at == (6 if message.from_time in read else 10) for message in messages)
    return [(message.from_time, message.to_time, message.state) for message in messages]


def test_a_gap_that_is_known_wholly_is_repaired_and_one_that_is_not_touched_stays() -> None:
    assert told([gap(10, 20), gap(40, 50)], (10, 20)) == [(10, 20, "repaired")]
    assert told([gap(10, 20)], (0, 15), (15, 99)) == [(10, 20, "repaired")]
    assert told([gap(10, 20)], (20, 30)) == []
    assert told([gap(10, 20)], (15, 15)) == []


def test_one_that_is_known_in_part_is_split_and_the_new_pieces_are_told_first() -> None:
    assert told([gap(10, 20)], (0, 15)) == [(15, 20, "lost"), (10, 15, "repaired")]
    assert told([gap(10, 20)], (15, 30)) == [(10, 15, "lost")]
    assert told([gap(10, 20)], (12, 15)) == [(15, 20, "lost"), (10, 12, "lost")]


def test_what_a_worker_asks_for_is_repaired_wholly_or_left_alone() -> None:
    assert told([gap(10, 20, "open")], (0, 15)) == []
    assert told([gap(10, 20, "open")], (0, 25)) == [(10, 20, "repaired")]
    assert told([gap(10, None, "open")], (0, 99)) == []


@given(
    gaps=st.dictionaries(st.integers(0, 30), st.integers(1, 12), max_size=4),
    known=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)), max_size=3),
)
def test_what_is_called_complete_afterwards_is_known_or_was_complete_before(
    gaps: dict[int, int], known: list[tuple[int, int]]
) -> None:
    before = [gap(begun, begun + length) for begun, length in gaps.items()]
    spans = [Span(begun, begun + length) for begun, length in known]
    after = {each.from_time: each for each in before}
    messages = settle(before, spans, {}, now_us=10, reason="got")
    assert len({each.from_time for each in messages}) == len(messages)
    after |= {each.from_time: each for each in messages}
    for at in range(60):
        is_known = any(span.from_us <= at < span.to_us for span in spans)
        was, now = (is_complete(at, at + 1, 99, each) for each in (before, list(after.values())))
        assert now <= (was or is_known), at
        if is_known and at + 1 not in after:  # a piece may be named a moment earlier
            assert now, at


def test_a_span_is_taken_out_of_others() -> None:
    assert without([Span(0, 10), Span(20, 30)], Span(5, 25)) == [Span(0, 5), Span(25, 30)]
    assert without([Span(0, 10)], Span(0, 10)) == []


def trade(number: int) -> Trade:
    return Trade("s:M", str(number), Decimal(1), Decimal(1), None, 1_700_000_000_000_000, 1_700_000_000_000_000, number)


@pytest.mark.parametrize("contiguous", [True, False])
@given(numbers=st.lists(st.integers(0, 60), max_size=60))
def test_what_was_added_is_known_and_nothing_else(contiguous: bool, numbers: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_trades, "RUN", 7)
        known = KnownTrades(contiguous=contiguous)
        for number in numbers:
            known.add(trade(number))
        assert [number for number in range(62) if trade(number) in known] == sorted(set(numbers))


def test_a_hundred_thousand_ids_that_follow_each_other_are_two_numbers() -> None:
    known = KnownTrades(contiguous=True)
    for number in range(100_000):
        known.add(trade(number ^ 1))  # neighbours swapped
    assert (known._begins, known._ends) == ([0], [100_000])


def test_the_rest_is_estimated_by_what_was_fetched() -> None:
    hour_us = 3_600_000_000
    begin_us = 1_700_000_000_000_000
    progress = Progress(begin_us, begin_us + 10 * hour_us)
    assert "left" not in progress.in_words(0.0)
    for number in range(5):
        progress.on_request()
        at_us = begin_us + number * hour_us // 2
        progress.on_trades([Trade("s:M", "1", Decimal(1), Decimal(1), None, at_us, at_us, number)], float(number))
    assert progress.left_s(4.0) == pytest.approx(16.0)
    assert progress.requests_left() == 16
    assert progress.in_words(4.0) == (
        "20 % of 10 h 00 min, up to 2023-11-15T00:13:20Z: 5 trades, 0 of them new, by 5 requests; "
        "about 16 requests and 16 s are left"
    )
