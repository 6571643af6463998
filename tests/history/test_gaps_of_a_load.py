"""What a load says of gaps, and how candles that it joined are known."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from ashi.contracts import Candle
from ashi.contracts.candle import make_version
from ashi.contracts.feed import FeedGap
from ashi.contracts.trade import EARLIEST_US
from ashi_aggregate.loads import JoinedCandles, Load
from ashi_history.gaps import NOT_IN_FILES, gap_messages
from ashi_history.plan import LoadPlan
from ashi_ingest.history.settled_gaps import Span
from strategies import START

SYMBOL = "bitflyer:BTC_JPY"
NOW = START + 10**9
NOTHING_BEFORE = FeedGap(SYMBOL, EARLIEST_US, START + 900, "lost", 0, "not read before", 5)


def a_plan(*holes: Span, reaches_edge: bool = True) -> LoadPlan:
    edge = START + 1_000 if reaches_edge else START + 500
    return LoadPlan(first=START, last=START + 500, edge=edge, holes=list(holes), reaches_edge=reaches_edge)


def newest(*messages: FeedGap) -> list[tuple[int, int | None, str, bool]]:
    found: dict[int, FeedGap] = {}
    for gap in messages:
        if gap.from_time not in found or gap.updated_at > found[gap.from_time].updated_at:
            found[gap.from_time] = gap
    return [(gap.from_time, gap.to_time, gap.state, gap.final) for _, gap in sorted(found.items())]


def test_the_time_before_the_first_read_now_ends_where_the_files_begin():
    lost, settled = gap_messages(SYMBOL, a_plan(), [NOTHING_BEFORE], NOW)
    assert lost == []
    assert newest(NOTHING_BEFORE, *settled) == [(EARLIEST_US, START + 1, "lost", False)]


def test_a_hole_within_it_stays_lost_and_no_feed_asks_for_it():
    hole = Span(START + 100, START + 201)
    lost, settled = gap_messages(SYMBOL, a_plan(hole), [NOTHING_BEFORE], NOW)
    assert lost == []
    after = [NOTHING_BEFORE, *settled]
    assert newest(*after) == [(EARLIEST_US, START + 1, "lost", False), (*hole, "lost", True)]
    assert {gap.reason for gap in settled} == {"not read before", NOT_IN_FILES}
    # Given again, there is nothing more to say; and better files end it.
    kept = [gap for gap in settled if gap.state == "lost"]
    assert gap_messages(SYMBOL, a_plan(hole), kept, NOW + 1) == ([], [])
    _, settled = gap_messages(SYMBOL, a_plan(), kept, NOW + 2)
    assert newest(*after, *settled)[1][2:] == ("repaired", False)


def test_a_hole_that_nothing_tells_of_is_told_before_any_candle():
    hole, rest = Span(START + 100, START + 201), Span(START + 500, START + 60_000)
    lost, settled = gap_messages(SYMBOL, a_plan(hole, rest, reaches_edge=False), [], NOW)
    assert newest(*lost) == [(*hole, "lost", True), (*rest, "lost", True)]
    assert settled == []
    assert gap_messages(SYMBOL, a_plan(hole, rest, reaches_edge=False), lost, NOW + 1) == ([], [])


def test_what_a_feed_has_lost_since_is_left_alone():
    own = FeedGap(SYMBOL, START + 2_000, START + 3_000, "lost", 0, "down", 5)
    still_open = FeedGap(SYMBOL, START + 4_000, None, "open", 0, "down", 5)
    assert gap_messages(SYMBOL, a_plan(), [own, still_open], NOW) == ([], [])


def test_a_joined_candle_is_known_by_its_window_and_the_number_of_its_rebuild():
    one = Decimal(1)
    candle = Candle(
        SYMBOL, "1m", START, START + 60_000_000, one, one, one, one, one, one, 1, one, one, "1", "1", make_version(3, 7)
    )
    joined = JoinedCandles([Load(0, SYMBOL, 1, 2, 3), Load(1, SYMBOL, 1, 2, 3, [("1m", START)], 3)])
    assert candle in joined
    assert msgspec.structs.replace(candle, version=make_version(4, 7)) not in joined
    assert candle not in JoinedCandles([Load(1, SYMBOL, 1, 2, 3, [("5m", START)], 3)])
