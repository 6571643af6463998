"""What somebody who may write to a topic, and writes what is no message, can do to whoever reads it."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts.trade import Trade, encode_trade
from ashi.runtime.kafka.connections.clients import partition_of
from ashi_aggregate.chunk import Chunk, ChunkDecoder

SYMBOL = "binance:BTCUSDT"
AT_US = 1_723_161_255_342_000
SOUND = encode_trade(Trade(SYMBOL, "1", Decimal(5), Decimal(1), "buy", AT_US, AT_US, 1))
HOME = partition_of(SYMBOL.encode(), 4)


def read(values: list[bytes], *, together: bool) -> list[tuple[int, str | None]]:
    """Of each record its offset, and the id of the trade that it was taken for; None where it was refused."""
    records: list[Any] = [
        SimpleNamespace(
            offset=at, key=SYMBOL.encode(), value=value, headers=(), timestamp=AT_US // 1000, timestamp_type=1
        )
        for at, value in enumerate(values)
    ]
    decoder = ChunkDecoder(4)
    found: dict[int, str | None] = {}
    for part in [records] if together else [[record] for record in records]:
        by_symbol, rejected = decoder.decode(Chunk(HOME, part[0].offset, part[-1].offset + 1, part))
        for group in by_symbol.values():
            found |= {offset: trade.trade_id for offset, trade in zip(group.offsets, group.trades, strict=True)}
        found |= {each.record.offset: None for each in rejected}
    return sorted(found.items())


@pytest.mark.parametrize(
    "values",
    [
        [SOUND + b',{"junk":[{}', b"{}]," + SOUND[1:]],
        [SOUND + b',{"trade_id":"x', b'{","' + SOUND[2:]],
        [SOUND + b"," + SOUND, b""],
        [SOUND + b"," + SOUND],
        [SOUND, SOUND + b" ", b" " + SOUND, b"\n"],
        [SOUND[:-1] + b',"\xff":1}', SOUND[:-1] + b',"\xff":"a b"}'],
    ],
    ids=["half-a-list", "half-a-text", "two-and-none", "two-in-one", "spaces", "a-name-that-is-no-utf-8"],
)
def test_what_a_record_counts_as_does_not_depend_on_those_that_it_is_read_with(values: list[bytes]) -> None:
    values = [SOUND, *values, SOUND]
    together = read(values, together=True)
    assert together == read(values, together=False)
    assert [offset for offset, _ in together] == list(range(len(values)))
    assert together[0] == (0, "1")
    assert together[-1] == (len(values) - 1, "1")


@pytest.mark.parametrize("half", [SOUND + b',{"junk":[{}', SOUND + b',{"trade_id":"x'])
def test_a_record_of_two_objects_is_refused(half: bytes) -> None:
    assert read([half, b"{}]," + SOUND[1:]], together=True) == [(0, None), (1, None)]
