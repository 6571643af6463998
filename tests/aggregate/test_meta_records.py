"""What stands in topic `ashi.meta`: whoever may write there can keep workers from starting, and never for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import ashi_aggregate.epoch as epoch_module
import ashi_aggregate.growth as growth_module
from ashi.contracts.candle import MAX_EPOCH
from ashi.contracts.errors import StateError
from ashi.contracts.feed import FeedStatus, encode_feed
from ashi.contracts.topics import FEED_STATUS, META
from ashi.runtime.settings import Settings
from ashi_aggregate.loads import read_loads
from ashi_aggregate.reconfigure import Growth, unfinished_growth

SETTINGS = Settings.from_environment({"ASHI_TIMEFRAMES": "1m"})
EPOCH = epoch_module.make_epoch(SETTINGS, 3)
AT_US = 1_800_000_000_000_000
GROWTH = Growth(epoch=3, before=4, partitions=8, begin={0: 5}, end={0: 9}, whole_from=0)


def holding(monkeypatch: pytest.MonkeyPatch, topic: str, *records: tuple[bytes | None, bytes | None]) -> None:
    """Nothing but these are in a topic, and nothing is in the others."""

    async def read_topic(_: object, name: str) -> AsyncIterator[Any]:
        for key, value in records if name == topic else ():
            yield SimpleNamespace(key=key, value=value, headers=(), topic=name, partition=0, offset=0)

    for module in (epoch_module, growth_module):
        monkeypatch.setattr(module, "read_topic", read_topic)


def written(**changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(EPOCH) | changes)


NO_EPOCH = {
    "no JSON": b"\xff",
    "deep": b"[" * 100_000,
    "one beyond the last": written(epoch=MAX_EPOCH + 1),
    "one before the first": written(epoch=-1),
    "no timeframes": written(timeframes=[]),
    "a timeframe that there is not": written(timeframes=["7m"]),
    "a lateness before its window": written(allowed_lateness_us=-1),
    "a partition of a negative offset": written(begin={"0": -5}),
}


@pytest.mark.parametrize("value", NO_EPOCH.values(), ids=NO_EPOCH)
def test_what_is_no_epoch_is_named_with_what_takes_it_away_and_then_all_is_as_before(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = (b"epoch-3-a", msgspec.json.encode(EPOCH)), (b"epoch-9-b", value)
    holding(monkeypatch, META, good, bad)
    with pytest.raises(StateError, match=r"^an epoch in topic ashi\.meta cannot be read .* key b'epoch-9-b'"):
        asyncio.run(epoch_module.agree_on_epoch(SETTINGS))
    holding(monkeypatch, META, good, bad, (b"epoch-9-b", None))
    assert asyncio.run(epoch_module.agree_on_epoch(SETTINGS)) == EPOCH


@pytest.mark.parametrize("value", [b"\xff", b"[" * 100_000, b'{"epoch":3}'], ids=["no JSON", "deep", "no fields"])
def test_other_records_that_are_none_are_named_likewise(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    holding(monkeypatch, META, (b"rebuild-1", value), (b"growth-3", value), (b"history-x", value))
    for what, read in (
        ("a rebuild", lambda: epoch_module.last_rebuild(SETTINGS)),
        ("a growth", lambda: unfinished_growth(SETTINGS, EPOCH)),
        ("a load", lambda: read_loads(SETTINGS)),
    ):
        with pytest.raises(StateError, match=rf"^{what} in topic ashi\.meta cannot be read"):
            asyncio.run(read())


def test_of_two_that_were_written_at_once_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    other = msgspec.structs.replace(GROWTH, begin={0: 7})
    later = msgspec.structs.replace(EPOCH, flat_candles=0)
    holding(
        monkeypatch,
        META,
        (None, b"of nobody"),
        (b"epoch-3-b", msgspec.json.encode(EPOCH)),
        (b"epoch-3-a", msgspec.json.encode(later)),
        (b"growth-2", msgspec.json.encode(msgspec.structs.replace(GROWTH, epoch=2))),
        (b"growth-3-b", msgspec.json.encode(GROWTH)),
        (b"growth-3-a", msgspec.json.encode(other)),
    )
    assert asyncio.run(epoch_module.current_epoch(SETTINGS)) == EPOCH
    assert asyncio.run(unfinished_growth(SETTINGS, EPOCH)) == GROWTH
    assert asyncio.run(unfinished_growth(SETTINGS, None)) is None


def test_a_status_that_is_none_keeps_no_topic_from_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a market that is gone is taken out of a compacted topic: by a record without a value."""
    status = FeedStatus("binance:BTCUSDT", "down", AT_US, None, None, None, AT_US)
    key = status.symbol.encode()
    holding(monkeypatch, FEED_STATUS, (b"gmo:BTC", None), (key, encode_feed(status)), (key, b"garbage"))
    assert asyncio.run(growth_module._statuses(SETTINGS)) == {status.symbol: status}
