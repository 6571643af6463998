"""Chunks are larger where symbols are many."""

from __future__ import annotations

from ashi_aggregate.faust.chunk_size import MANY_SYMBOLS, ChunkSize

USUAL = 1_000


def test_chunks_of_many_symbols_are_twice_as_large_until_symbols_are_few():
    size = ChunkSize()
    assert size.most(USUAL) == USUAL
    size.saw(USUAL, MANY_SYMBOLS, USUAL)
    assert size.most(USUAL) == 2 * USUAL
    size.saw(USUAL, MANY_SYMBOLS - 1, USUAL)
    assert size.most(USUAL) == USUAL


def test_the_few_symbols_of_a_fetchs_last_records_change_nothing():
    size = ChunkSize()
    size.saw(2 * USUAL, MANY_SYMBOLS, USUAL)
    size.saw(USUAL // 2 - 1, 1, USUAL)
    assert size.most(USUAL) == 2 * USUAL
