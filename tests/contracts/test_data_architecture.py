"""docs/data-architecture.md: its tables and bytes are what the code makes, and its words fit them."""

from __future__ import annotations

import asyncio
import json
import re
from functools import cache

import pytest
from data_architecture import (
    COMMAND,
    JAPANESE_PAGE,
    PAGE,
    ROOT,
    Way,
    blocks,
    follow_trade,
    in_japanese,
    page_with,
)

from ashi.contracts.candle import candle_fields, decode_candle
from ashi.contracts.trade import decode_trade
from ashi_aggregate.core.codec import decode_marker, decode_row

TEXT = PAGE.read_text(encoding="utf-8")


@cache
def way() -> Way:
    return asyncio.run(follow_trade())


@cache
def made() -> dict[str, list[str]]:
    return blocks(way())


def test_the_page_is_as_it_is_made() -> None:
    assert page_with(TEXT, made()) == TEXT, f"run: PYTHONPATH=tests .venv/bin/python {COMMAND}"


def test_the_page_in_japanese_is_as_it_is_made() -> None:
    text = JAPANESE_PAGE.read_text(encoding="utf-8")
    japanese = {name: in_japanese(lines) for name, lines in made().items()}
    assert page_with(text, japanese) == text, f"run: PYTHONPATH=tests .venv/bin/python {COMMAND}"
    # What a block says in words is said in Japanese: of code, names and numbers nothing is left to translate.
    words = [re.sub(r"`[^`]*`|[\d:. -]+", "", line) for lines in japanese.values() for line in in_prose(lines)]
    assert {word for line in words for word in re.findall(r"\b[a-z]{2,} [a-z]{2,} [a-z]{2,}", line)} == set()


def in_prose(lines: list[str]) -> list[str]:
    """Those outside of blocks of code."""
    return re.sub(r"^```.*?^```$", "", "\n".join(lines), flags=re.DOTALL | re.MULTILINE).splitlines()


def test_nothing_on_the_page_says_that_it_is_made_and_is_not() -> None:
    assert re.findall(rf"<!-- (.+): made by {COMMAND} -->", TEXT) == list(made())


def test_a_change_of_a_format_would_be_told() -> None:
    stale = TEXT.replace('"price":"2677.71"', '"price":"2677.710"')
    assert stale != TEXT
    assert page_with(stale, made()) == TEXT


def test_the_trade_is_in_all_that_is_made_of_it() -> None:
    trade, candle = way().trade, way().candle
    live = decode_candle(way().live[1] or b"")
    assert decode_trade(way().record.value or b"") == trade
    assert trade.traded_at - trade.received_at > 1_000_000, "the clocks are said to differ by more than a second"
    assert candle.first_trade_id == live.first_trade_id == live.last_trade_id == trade.trade_id
    assert candle.open == live.open == live.close == trade.price
    assert way().record.offset == live.version < candle.version


def test_row_and_marker_can_be_gone_on_from() -> None:
    offset = way().record.offset
    row, marker = decode_row(way().row[1] or b""), decode_marker(way().marker[1] or b"")
    assert (row.symbol, row.applied_offset, marker.durable_offset) == (way().trade.symbol, offset, offset)
    states = [window.emitted for window in row.windows.values()]
    assert len(states) == 3, "which windows there are is said in words"
    assert [emitted >= 0 for emitted in states] == [True, False, False]


def test_the_candle_is_that_of_the_readme() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## A candle\n")[2]
    told, _ = json.JSONDecoder().raw_decode(section[section.index("{") :])
    assert told == candle_fields(way().candle)


def test_the_native_fold_writes_the_same_bytes() -> None:
    native = asyncio.run(follow_trade(native=True))
    for name in ("row", "marker", "symbols", "live", "closed"):
        assert getattr(native, name) == getattr(way(), name), name


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)\s]+)\)", TEXT))))
def test_links_lead_somewhere(target: str) -> None:
    path, _, anchor = target.partition("#")
    page = (PAGE.parent / path).resolve() if path else PAGE
    assert page.exists()
    if anchor:
        heads = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
        assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
