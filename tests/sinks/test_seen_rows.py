from __future__ import annotations

from ashi_sinks.seen_rows import MOST, SeenRows


def seen(*keys):
    rows = SeenRows()
    rows.wrote(keys, all_changed=False)
    assert rows.look(rows.keys)
    return rows


def test_rows_that_the_store_says_it_has_changed_are_missed_before_anybody_has_looked():
    rows = SeenRows()
    rows.wrote([("a", "1m", 1)], all_changed=True)
    assert not rows.look([])


def test_a_table_is_emptied_when_nothing_that_was_seen_is_there_any_more():
    assert not seen(("a", "1m", 1), ("b", "1m", 1)).look([])


def test_one_row_that_is_still_there_is_enough():
    assert seen(("a", "1m", 1), ("b", "1m", 1)).look([("b", "1m", 1)])


def test_it_is_said_once_and_what_is_written_afterwards_is_seen_anew():
    rows = seen(("a", "1m", 1))
    assert not rows.look([])
    assert rows.keys == []
    assert rows.look([])
    rows.wrote([("a", "1m", 2)], all_changed=False)
    assert rows.look([("a", "1m", 2)])
    assert not rows.look([])


def test_a_row_that_was_written_and_never_seen_is_not_missed():
    rows = SeenRows()
    rows.wrote([("a", "1m", 1)], all_changed=False)
    assert rows.look([])  # a trigger has dropped it
    assert rows.look([])


def test_a_row_written_after_the_loss_does_not_hide_it():
    rows = seen(("a", "1m", 1))
    rows.wrote([("b", "1m", 1)], all_changed=False)
    assert not rows.look([("b", "1m", 1)])


def test_of_a_series_the_latest_row_is_kept_and_the_one_seen_until_it_is_found():
    rows = seen(("a", "1m", 2))
    rows.wrote([("a", "1m", 5), ("a", "1m", 3)], all_changed=False)
    assert rows.keys == [("a", "1m", 2), ("a", "1m", 5)]
    assert rows.look([("a", "1m", 2), ("a", "1m", 5)])
    assert rows.keys == [("a", "1m", 5)]


def test_keys_of_one_field_are_series_of_their_own():
    assert seen(("a",), ("b",)).keys == [("a",), ("b",)]


def test_only_so_many_are_looked_up():
    rows = seen(*((f"s{number}", "1m", 1) for number in range(100)))
    rows.wrote(((f"t{number}", "1m", 1) for number in range(100)), all_changed=False)
    assert len(rows.keys) == 2 * MOST
    assert rows.look(rows.keys)
    assert rows.keys == [(f"t{number}", "1m", 1) for number in range(100 - MOST, 100)]


def test_rows_found_at_the_start_count_until_there_are_own_ones():
    rows = SeenRows()
    rows.found([("a", "1m", 1), ("z", "1m", 1)])
    assert rows.look([("z", "1m", 1)])
    rows.wrote([("m", "1m", 1)], all_changed=True)
    assert not rows.look([("z", "1m", 1)])  # which its own worker has stored again
    assert rows.look([])


def test_rows_found_at_the_start_are_missed_when_nothing_else_is_known():
    rows = SeenRows()
    rows.found([("a", "1m", 1)])
    assert not rows.look([])


def test_of_a_table_that_was_rewritten_each_own_row_must_be_there():
    rows = seen(("a", "1m", 1), ("b", "1m", 1))
    assert rows.look(rows.keys, rewritten=True)
    assert not rows.look([("b", "1m", 1)], rewritten=True)


def test_of_a_table_that_was_rewritten_rows_found_at_the_start_tell_nothing():
    rows = SeenRows()
    assert rows.look([], rewritten=True)  # nothing to miss
    rows.found([("a", "1m", 1)])
    assert not rows.look(rows.keys, rewritten=True)
