"""Order and identity: what comes live, is repaired or comes again makes one sequence, each trade once."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import Trade
from ashi_ingest.feed.sequencer import KNOWN, TAIL, Mode, TradeSequencer

SYMBOL = "binance:BTCUSDT"


def trade(number: int, traded_at: int | None = None) -> Trade:
    at = 1_700_000_000_000_000 + number * 1_000 if traded_at is None else traded_at
    return Trade(SYMBOL, str(number), Decimal(1), Decimal(1), "buy", at, at, number)


def trades(*numbers: int) -> list[Trade]:
    return [trade(number) for number in numbers]


def ids(published: list[Trade]) -> list[int]:
    return [each.sequence for each in published]


def live_feed(*tail: int, contiguous: bool = True) -> TradeSequencer:
    feed = TradeSequencer(SYMBOL, contiguous=contiguous, tail=trades(*tail))
    feed.begin_repair()
    feed.end_repair(0.0)
    return feed


def test_a_feed_that_is_live_lets_trades_pass_and_leaves_out_those_that_come_again():
    feed = live_feed(1, 2)
    assert ids(feed.on_live(trades(2, 3, 3, 4), 0.0)) == [3, 4]
    assert feed.duplicates == 2


def test_live_trades_wait_for_the_repair_and_come_after_it():
    feed = TradeSequencer(SYMBOL, contiguous=True, tail=trades(1, 2))
    assert ids(feed.begin_repair()) == [1, 2]
    assert feed.on_live(trades(5, 6), 0.0) == []
    assert feed.first_held() == trade(5)
    assert ids(feed.on_repaired(trades(2, 3, 4, 5))) == [3, 4, 5]
    assert ids(feed.end_repair(0.0)) == [6]
    assert feed.mode is Mode.LIVE
    assert feed.held == 0


def test_trades_out_of_order_wait_for_each_other_where_ids_are_contiguous():
    feed = live_feed(1)
    assert feed.on_live(trades(3), 5.0) == []
    assert feed.hole is not None
    assert (feed.hole.first, feed.hole.last, feed.hole.found_s) == (2, 2, 5.0)
    assert ids(feed.on_live(trades(2), 6.0)) == [2, 3]
    assert feed.hole is None


def test_where_ids_are_shared_with_other_markets_a_jump_is_no_hole():
    feed = live_feed(1, contiguous=False)
    assert ids(feed.on_live(trades(70, 60), 0.0)) == [70, 60]
    assert feed.hole is None


def test_a_hole_that_the_venue_cannot_fill_is_passed_over():
    feed = live_feed(1)
    feed.on_live(trades(5, 9), 0.0)
    assert feed.missing() == 3
    feed.begin_repair()
    assert ids(feed.on_repaired(trades(3))) == [3]
    assert ids(feed.end_repair(7.0)) == [5]
    assert feed.hole is not None
    assert (feed.hole.first, feed.hole.last, feed.hole.found_s) == (6, 8, 7.0)


def test_a_trade_of_a_hole_that_was_given_up_still_passes_when_it_comes():
    feed = live_feed(1)
    feed.on_live(trades(3), 0.0)
    feed.begin_repair()
    assert ids(feed.end_repair(0.0)) == [3]
    assert ids(feed.on_live(trades(2, 2, 4), 0.0)) == [2, 4]
    assert feed.duplicates == 1


def test_what_is_held_when_the_connection_goes_is_left_to_the_next_repair():
    feed = TradeSequencer(SYMBOL, contiguous=False, tail=trades(1))
    feed.begin_repair()
    feed.on_live(trades(5), 0.0)
    feed.disconnected()
    assert (feed.held, feed.first_held(), feed.mode) == (0, None, Mode.DOWN)
    feed.begin_repair()
    feed.on_live(trades(8), 0.0)
    assert ids(feed.on_repaired(trades(3, 5))) == [3, 5]
    assert ids(feed.end_repair(0.0)) == [8]


def test_a_feed_that_has_published_nothing_begins_with_what_comes_first():
    feed = TradeSequencer(SYMBOL, contiguous=True)
    assert feed.begin_repair() == []
    feed.on_live(trades(41), 0.0)
    assert ids(feed.end_repair(0.0)) == [41]
    assert ids(feed.on_live(trades(42), 0.0)) == [42]


def test_what_is_older_than_the_tail_read_at_start_counts_as_published():
    feed = live_feed(10, 11)
    assert feed.on_live(trades(9, 10, 11), 0.0) == []
    assert feed.duplicates == 3


def test_without_ids_of_the_venue_the_millisecond_tells_age():
    at = 1_700_000_000_000_000
    tail = [trade(0, at), trade(0, at + 5_000)]
    feed = TradeSequencer("gmo:BTC", contiguous=False, ordered_ids=False, tail=[_named(each) for each in tail])
    feed.begin_repair()
    feed.end_repair(0.0)
    same_millisecond = _named(trade(1, at + 5_000))
    assert feed.on_live([_named(trade(7, at)), _named(tail[1]), same_millisecond], 0.0) == [same_millisecond]


def _named(each: Trade) -> Trade:
    return Trade(
        "gmo:BTC", f"{each.traded_at}-{each.sequence}", each.price, each.size, None, each.traded_at, each.traded_at,
        each.sequence,
    )  # fmt: skip


def test_memory_is_bounded_however_long_it_runs():
    feed = live_feed(1)
    for number in range(2, 5 * KNOWN):
        feed.on_live([trade(number)], 0.0)
    assert len(feed._known) < 2 * KNOWN
    assert len(feed.tail) == TAIL
    assert feed.on_live(trades(2, 5 * KNOWN - 1), 0.0) == []


@pytest.mark.parametrize("contiguous", [True, False])
@given(data=st.data())
def test_any_connections_losses_repeats_and_repairs_publish_each_trade_once_and_in_order(contiguous, data):
    """A venue with a history; connections deliver parts of it, also swapped and twice; repairs bring what is asked for.

    Restarts read the tail of what was published. At the end all trades since the first are published, each once.
    """
    truth = list(range(100, 100 + data.draw(st.integers(10, 60))))
    if not contiguous:
        truth = sorted(data.draw(st.sets(st.integers(100, 10_000), min_size=10, max_size=60)))
    published: list[Trade] = []
    feed = TradeSequencer(SYMBOL, contiguous=contiguous)
    place = 0

    def fetched(since: list[Trade], until: int) -> list[int]:
        after = max(ids(since)) if contiguous else min(ids(since))
        return [number for number in truth[:until] if number > after]

    while place < len(truth):
        if published and data.draw(st.booleans(), label="restart"):
            feed = TradeSequencer(SYMBOL, contiguous=contiguous, tail=published[-TAIL:])
        since = feed.begin_repair()
        if since:
            place += data.draw(st.integers(0, 5), label="happened while down")
        before = truth[place : place + data.draw(st.integers(0, 3), label="live before the repair")]
        published += feed.on_live(trades(*before), 0.0)
        place += len(before)
        if since:
            published += feed.on_repaired(trades(*fetched(since, place)))
        published += feed.end_repair(0.0)
        live = truth[place : place + data.draw(st.integers(1, 15), label="live")]
        place += len(live)
        frames = list(live)
        for number in data.draw(st.lists(st.sampled_from(live), max_size=4), label="again") if live else []:
            frames.insert(frames.index(number) + 1, number)
        if contiguous and len(live) > 2 and data.draw(st.booleans(), label="lost"):
            frames = [number for number in frames if number != live[1]]
        if contiguous:
            frames = data.draw(st.permutations(frames), label="disorder")
        published += feed.on_live(trades(*frames), 0.0)
        if feed.hole is not None and data.draw(st.booleans(), label="repair the hole"):
            since = feed.begin_repair()
            published += feed.on_repaired(trades(*fetched(since, place)))
            published += feed.end_repair(0.0)
        feed.disconnected()
    published += feed.on_repaired(trades(*fetched(feed.begin_repair(), len(truth))))
    published += feed.end_repair(0.0)
    got = ids(published)
    assert len(got) == len(set(got))
    # Whoever has published nothing begins with what comes first; in disorder, what is older comes after it.
    assert [number for number in got if number >= got[0]] == [number for number in truth if number >= got[0]]
