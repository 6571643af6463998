"""Order and identity: what comes live, is repaired or comes again makes one sequence, each trade once."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import Trade
from ashi_ingest.feed.symbol.sequencer import REMEMBERED_IDS, RESUME_TRADES, Mode, TradeSequencer

SYMBOL = "binance:BTCUSDT"


def trade(number: int, traded_at: int | None = None) -> Trade:
    at = 1_700_000_000_000_000 + number * 1_000 if traded_at is None else traded_at
    return Trade(SYMBOL, str(number), Decimal(1), Decimal(1), "buy", at, at, number)


def trades(*numbers: int) -> list[Trade]:
    return [trade(number) for number in numbers]


def ids(published: list[Trade]) -> list[int]:
    return [each.sequence for each in published]


def live_sequencer(*resume_point: int, contiguous: bool = True) -> TradeSequencer:
    sequencer = TradeSequencer(SYMBOL, contiguous=contiguous, resume_point=trades(*resume_point))
    sequencer.begin_repair()
    sequencer.end_repair(0.0)
    return sequencer


def test_a_feed_that_is_live_lets_trades_pass_and_leaves_out_those_that_come_again():
    sequencer = live_sequencer(1, 2)
    assert ids(sequencer.on_live(trades(2, 3, 3, 4), 0.0)) == [3, 4]
    assert sequencer.duplicates == 2


def test_live_trades_wait_for_the_repair_and_come_after_it():
    sequencer = TradeSequencer(SYMBOL, contiguous=True, resume_point=trades(1, 2))
    assert ids(sequencer.begin_repair()) == [1, 2]
    assert sequencer.on_live(trades(5, 6), 0.0) == []
    assert sequencer.first_held() == trade(5)
    assert ids(sequencer.on_repaired(trades(2, 3, 4, 5))) == [3, 4, 5]
    assert ids(sequencer.end_repair(0.0)) == [6]
    assert sequencer.mode is Mode.LIVE
    assert sequencer.held == 0


def test_trades_out_of_order_wait_for_each_other_where_ids_are_contiguous():
    sequencer = live_sequencer(1)
    assert sequencer.on_live(trades(3), 5.0) == []
    assert sequencer.hole is not None
    assert (sequencer.hole.first, sequencer.hole.last, sequencer.hole.found_s) == (2, 2, 5.0)
    assert ids(sequencer.on_live(trades(2), 6.0)) == [2, 3]
    assert sequencer.hole is None


def test_a_hole_that_a_repair_fills_while_the_feed_is_live_is_none_any_more():
    """Else it would be waited for until the next trade, and a quiet market could not be compared."""
    sequencer = live_sequencer(1)
    assert sequencer.release() == []
    sequencer.on_live(trades(4, 7), 5.0)
    assert ids(sequencer.on_repaired(trades(2, 3))) == [2, 3]
    assert ids(sequencer.release()) == [4]
    assert sequencer.hole is not None
    assert (sequencer.hole.first, sequencer.hole.last, sequencer.hole.found_s) == (5, 6, 5.0)
    assert ids(sequencer.on_repaired(trades(5, 6, 7, 8))) == [5, 6, 7, 8]
    assert sequencer.release() == []
    assert sequencer.hole is None
    sequencer.on_live(trades(10), 6.0)
    assert ids(sequencer.on_repaired(trades(11))) == [11]
    assert ids(sequencer.release()) == [10], "the venue brought it, and REST had left it out"
    assert (sequencer.hole, sequencer.held) == (None, 0)


def test_what_came_late_is_known_and_nothing_goes_on_after_it():
    sequencer = live_sequencer(1, 2, 9)
    sequencer.learn_late(trades(5))
    assert ids(sequencer.resume_point) == [1, 2, 9]
    assert ids(sequencer.on_live(trades(5, 10), 0.0)) == [10]


def test_where_ids_are_shared_with_other_markets_a_jump_is_no_hole():
    sequencer = live_sequencer(1, contiguous=False)
    assert ids(sequencer.on_live(trades(70, 60), 0.0)) == [70, 60]
    assert sequencer.hole is None


def test_a_hole_that_the_venue_cannot_fill_is_passed_over():
    sequencer = live_sequencer(1)
    sequencer.on_live(trades(5, 9), 0.0)
    assert sequencer.missing() == 3
    sequencer.begin_repair()
    assert ids(sequencer.on_repaired(trades(3))) == [3]
    assert ids(sequencer.end_repair(7.0)) == [5]
    assert sequencer.hole is not None
    assert (sequencer.hole.first, sequencer.hole.last, sequencer.hole.found_s) == (6, 8, 7.0)


def test_a_trade_of_a_hole_that_was_given_up_still_passes_when_it_comes():
    sequencer = live_sequencer(1)
    sequencer.on_live(trades(3), 0.0)
    sequencer.begin_repair()
    assert ids(sequencer.end_repair(0.0)) == [3]
    assert ids(sequencer.on_live(trades(2, 2, 4), 0.0)) == [2, 4]
    assert sequencer.duplicates == 1


def test_what_is_held_when_the_connection_goes_is_left_to_the_next_repair():
    sequencer = TradeSequencer(SYMBOL, contiguous=False, resume_point=trades(1))
    sequencer.begin_repair()
    sequencer.on_live(trades(5), 0.0)
    sequencer.disconnected()
    assert (sequencer.held, sequencer.first_held(), sequencer.mode) == (0, None, Mode.DOWN)
    sequencer.begin_repair()
    sequencer.on_live(trades(8), 0.0)
    assert ids(sequencer.on_repaired(trades(3, 5))) == [3, 5]
    assert ids(sequencer.end_repair(0.0)) == [8]


def test_a_feed_that_has_published_nothing_begins_with_what_comes_first():
    sequencer = TradeSequencer(SYMBOL, contiguous=True)
    assert sequencer.begin_repair() == []
    sequencer.on_live(trades(41), 0.0)
    assert ids(sequencer.end_repair(0.0)) == [41]
    assert ids(sequencer.on_live(trades(42), 0.0)) == [42]


def test_what_is_older_than_the_resume_point_read_at_start_counts_as_published():
    sequencer = live_sequencer(10, 11)
    assert sequencer.on_live(trades(9, 10, 11), 0.0) == []
    assert sequencer.duplicates == 3


def test_without_ids_of_the_venue_only_those_it_has_published_are_known_as_its_clock_may_step():
    at = 1_700_000_000_000_000
    resume_point = [_named(trade(0, at)), _named(trade(0, at + 5_000))]
    sequencer = TradeSequencer("gmo:BTC", contiguous=False, ordered_ids=False, resume_point=resume_point)
    sequencer.begin_repair()
    sequencer.end_repair(0.0)
    same_millisecond, set_back = _named(trade(1, at + 5_000)), _named(trade(0, at - 50_000_000))
    assert sequencer.on_live([*resume_point, same_millisecond, set_back], 0.0) == [same_millisecond, set_back]


@pytest.mark.parametrize("offset_us", [50_000_000, -50_000_000])
def test_without_ids_no_trade_is_taken_for_known_because_the_clock_has_been_off(offset_us):
    at = 1_700_000_000_000_000
    sequencer = TradeSequencer("gmo:BTC", contiguous=False, ordered_ids=False)
    sequencer.begin_repair()
    sequencer.end_repair(0.0)
    for number in range(0, 16 * REMEMBERED_IDS, 100):
        ahead_us = offset_us * (number // (4 * REMEMBERED_IDS) % 2)
        live = [_named(trade(0, at + (number + each) * 1_000 + ahead_us)) for each in range(100)]
        assert sequencer.on_live(live, 0.0) == live
        sequencer.compared(live)
    assert sequencer.remembered <= 2 * REMEMBERED_IDS + 100


def _named(each: Trade) -> Trade:
    return Trade(
        "gmo:BTC", f"{each.traded_at}-{each.sequence}", each.price, each.size, None, each.traded_at, each.traded_at,
        each.sequence,
    )  # fmt: skip


def test_memory_is_bounded_however_long_it_runs():
    sequencer = live_sequencer(1)
    for number in range(2, 5 * REMEMBERED_IDS):
        sequencer.on_live([trade(number)], 0.0)
    assert len(sequencer._known) < 2 * REMEMBERED_IDS
    assert len(sequencer.resume_point) == RESUME_TRADES
    assert sequencer.on_live(trades(2, 5 * REMEMBERED_IDS - 1), 0.0) == []


@pytest.mark.parametrize("contiguous", [True, False])
@given(data=st.data())
def test_any_connections_losses_repeats_and_repairs_publish_each_trade_once_and_in_order(contiguous, data):
    """A venue with a history; connections deliver parts of it, also swapped and twice; repairs bring what is asked for.

    Restarts read the end of what was published. At the end all trades since the first are published, each once.
    """
    truth = list(range(100, 100 + data.draw(st.integers(10, 60))))
    if not contiguous:
        truth = sorted(data.draw(st.sets(st.integers(100, 10_000), min_size=10, max_size=60)))
    published: list[Trade] = []
    sequencer = TradeSequencer(SYMBOL, contiguous=contiguous)
    place = 0

    def fetched(since: list[Trade], until: int) -> list[int]:
        after = max(ids(since)) if contiguous else min(ids(since))
        return [number for number in truth[:until] if number > after]

    while place < len(truth):
        if published and data.draw(st.booleans(), label="restart"):
            sequencer = TradeSequencer(SYMBOL, contiguous=contiguous, resume_point=published[-RESUME_TRADES:])
        since = sequencer.begin_repair()
        if since:
            place += data.draw(st.integers(0, 5), label="happened while down")
        before = truth[place : place + data.draw(st.integers(0, 3), label="live before the repair")]
        published += sequencer.on_live(trades(*before), 0.0)
        place += len(before)
        if since:
            published += sequencer.on_repaired(trades(*fetched(since, place)))
        published += sequencer.end_repair(0.0)
        live = truth[place : place + data.draw(st.integers(1, 15), label="live")]
        place += len(live)
        frames = list(live)
        for number in data.draw(st.lists(st.sampled_from(live), max_size=4), label="again") if live else []:
            frames.insert(frames.index(number) + 1, number)
        if contiguous and len(live) > 2 and data.draw(st.booleans(), label="lost"):
            frames = [number for number in frames if number != live[1]]
        if contiguous:
            frames = data.draw(st.permutations(frames), label="disorder")
        published += sequencer.on_live(trades(*frames), 0.0)
        if sequencer.hole is not None and data.draw(st.booleans(), label="repair the hole"):
            since = sequencer.begin_repair()
            published += sequencer.on_repaired(trades(*fetched(since, place)))
            published += sequencer.end_repair(0.0)
        sequencer.disconnected()
    published += sequencer.on_repaired(trades(*fetched(sequencer.begin_repair(), len(truth))))
    published += sequencer.end_repair(0.0)
    got = ids(published)
    assert len(got) == len(set(got))
    # Whoever has published nothing begins with what comes first; in disorder, what is older comes after it.
    assert [number for number in got if number >= got[0]] == [number for number in truth if number >= got[0]]


def test_where_ids_are_not_contiguous_those_not_compared_yet_are_kept_however_many():
    sequencer = live_sequencer(1, contiguous=False)
    sequencer.compared(trades(1))
    for number in range(2, 5 * REMEMBERED_IDS):
        sequencer.on_live(trades(number), 0.0)
    assert sequencer.remembered == 5 * REMEMBERED_IDS - 1
    unknown = Trade(SYMBOL, "other", Decimal(1), Decimal(1), "buy", 0, 0, 2)
    assert not sequencer.knows(unknown), "it would be a trade that is missing"
    sequencer.compared(trades(4 * REMEMBERED_IDS, 4 * REMEMBERED_IDS + 500))
    for number in range(5 * REMEMBERED_IDS, 6 * REMEMBERED_IDS + 10):
        sequencer.on_live(trades(number), 0.0)
    assert sequencer.remembered < 3 * REMEMBERED_IDS + 10
    assert sequencer.knows(unknown), "it is older than what was compared"
    assert sequencer.knows(trade(4 * REMEMBERED_IDS + 1))
    between = Trade(SYMBOL, "other", Decimal(1), Decimal(1), "buy", 0, 0, 4 * REMEMBERED_IDS + 1)
    assert not sequencer.knows(between), "what was compared last is compared once more, for what comes late"
