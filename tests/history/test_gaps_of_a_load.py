"""What a load says of gaps, and how candles that it joined are known."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from ashi.contracts import Candle, Timeframe, Trade
from ashi.contracts.candle import make_version
from ashi.contracts.feed import FeedGap
from ashi.contracts.trade import EARLIEST_US
from ashi_aggregate.core.fold import fold_trades
from ashi_aggregate.loads import JoinedCandles, Load
from ashi_history.gaps import NOT_IN_FILES, gap_messages
from ashi_history.holes import FileSpan, HoleFinder, between_files
from ashi_history.merge import MergedWindow
from ashi_history.plan import LoadPlan
from ashi_history.reading import FileReader
from ashi_ingest.history.settled_gaps import Span
from samples.hypothesis_strategies import START

SYMBOL = "bitflyer:BTC_JPY"
NOW = START + 10**9
NOTHING_BEFORE = FeedGap(SYMBOL, EARLIEST_US, START + 900, "lost", 0, "not read before", 5)


def a_plan(*holes: Span, reaches_edge: bool = True) -> LoadPlan:
    edge = START + 1_000 if reaches_edge else START + 500
    return LoadPlan(first=START, last=START + 500, edge=edge, holes=list(holes), reaches_edge=reaches_edge)


def trade(at: int, number: int) -> Trade:
    return Trade(SYMBOL, str(number), Decimal(1), Decimal(1), "buy", at, at, number)


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


def test_what_cannot_be_read_within_a_file_is_a_hole_unless_another_file_has_it(tmp_path):
    rows = [
        f"BTC,BUY,1,{100 + place},2025-07-01 0{place // 60}:{place % 60:02}:30.000\n".encode() for place in range(240)
    ]
    at = [1_751_328_030_000_000 + place * 60_000_000 for place in range(240)]
    rows[100] = rows[101] = b"BTC,BUY,1,x,2025-07-01 01:40:30.000\n"
    rows[239] = b"BTC,BU"
    path = tmp_path / "20250701_BTC.csv"
    path.write_bytes(b"".join(rows))
    reader = FileReader(path, "gmo:BTC")
    assert sum(map(len, reader.batches())) == 237
    assert reader.unread == [(at[99], at[102]), (at[238], None)]
    (note,) = reader.notes
    assert note.startswith("3 rows of ")

    damaged = FileSpan(at[0], at[238], reader.unread)
    later = FileSpan(at[239] + 1_000_000, at[239] + 2_000_000)
    holes = [Span(at[99], at[102] + 1), Span(at[238], later.first + 1)]
    assert between_files([damaged, later], 10**12) == holes
    assert between_files([damaged, later, FileSpan(at[50], at[150])], 10**12) == holes[1:]
    assert between_files([damaged, later, FileSpan(at[100], at[150])], 10**12) == [Span(at[99], at[100] + 1), holes[1]]
    assert between_files([damaged, FileSpan(at[0], at[238], reader.unread)], 10**12) == holes[:1]

    garbage_first = FileSpan(later.first, later.last, [(0, later.first)])
    assert between_files([FileSpan(at[0], at[238]), garbage_first], 10**12) == holes[1:]


def test_a_hole_within_one_window_leaves_the_quiet_time_before_it_quiet():
    minute = Timeframe.parse("1m")

    def window(place: int) -> MergedWindow:
        at = START + place * 60_000_000
        return MergedWindow(fold_trades([trade(at, 1), trade(at + 50_000_000, 2)], minute.open_time(at), 0))

    start = minute.open_time(START)
    within = Span(start + 600_000_000, start + 620_000_000)
    across = Span(start + 610_000_000, start + 1_200_000_001)
    finder = HoleFinder(minute, [within], contiguous=False)
    assert [finder.look(window(place)) for place in (0, 10, 20)] == [False, False, False]
    finder = HoleFinder(minute, [across], contiguous=False)
    assert [finder.look(window(place)) for place in (0, 10, 20, 30)] == [False, False, True, False]
