"""What `follow` is told is wrong before it connects, and what waits for whoever asks slowly."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from series_samples import BTC, ETH, a_candle

from ashi.client import Position
from ashi.contracts.errors import ContractError, UsageError
from ashi_series import Closed, InProgress, follow

if TYPE_CHECKING:
    from ashi_series import Event

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"symbols": BTC}, "is no collection"),
        ({"symbols": []}, "is no collection"),
        ({"symbols": ["BTC_JPY"]}, "has no venue"),
        ({"timeframes": ["7m"]}, "does not divide a day"),
        ({"timeframes": "1m"}, r"write \['1m'\]"),
        ({"timeframes": []}, "without timeframes"),
        ({"limit": 0}, "at least 1"),
        ({"history": "mysql://x"}, "store 'mysql': there is sqlite, postgres, lake"),
        ({"history": "yesterday"}, "storage without a scheme"),
        ({"history": datetime(2026, 11, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"history": Position("feed.gaps", {0: 1})}, "a position in topic feed.gaps"),
        ({"since": datetime(2026, 11, 1)}, "has no time zone"),  # noqa: DTZ001
    ],
)
def test_what_is_wrong_is_told_before_anything_is_connected(wrong: dict[str, Any], told: str) -> None:
    right: dict[str, Any] = {"symbols": [BTC], "timeframes": ["1m"]}
    with pytest.raises((UsageError, ContractError), match=told):
        follow(NOWHERE, **right | wrong)


def test_series_that_are_not_followed_have_no_events() -> None:
    async def ask() -> Event:
        return await anext(follow(NOWHERE, symbols=[BTC], timeframes=["1m"]))

    with pytest.raises(UsageError, match="enter them with `async with`"):
        asyncio.run(ask())


class _Reader:
    position = Position("candles", {0: 7})


def test_who_asks_slowly_gets_each_candle_that_closed_and_of_those_in_progress_the_last_update() -> None:
    async def main() -> list[Event]:
        following = follow(NOWHERE, symbols=[BTC, ETH], timeframes=["1m"])
        following._reader = _Reader()  # type: ignore[assignment]
        for version in range(1, 5):
            following._put_update(a_candle(1, version))
            following._put(a_candle(version, version, ETH))
        following._put_update(a_candle(2, 9))
        events = [await anext(following) for _ in range(5)]
        assert following._updates == {}
        return events

    closed = [Closed(a_candle(version, version, ETH)) for version in range(1, 5)]
    assert asyncio.run(main()) == [InProgress(a_candle(2, 9)), *closed]


def test_a_position_is_that_of_what_has_been_handed_out_not_of_what_has_been_read() -> None:
    async def main() -> None:
        following = follow(NOWHERE, symbols=[BTC], timeframes=["1m"])
        following._reader = _Reader()  # type: ignore[assignment]
        following._position = following._taken_to = Position("candles", {0: 4})
        for version in range(1, 4):
            following._put(a_candle(version, version))
        for _ in range(3):
            await anext(following)
            assert following.position.offsets == {0: 4}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(following)
        assert following.position.offsets == {0: 7}

    asyncio.run(main())


def test_a_store_whose_library_is_not_installed_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "deltalake" or "ashi_sinks.lake" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deltalake", None)  # type: ignore[arg-type]  # as if it were not there

    async def main() -> None:
        async with follow(NOWHERE, symbols=[BTC], timeframes=["1m"], history=f"lake://{tmp_path}"):
            pass

    with pytest.raises(UsageError, match=r"pip install 'ashi-candles\[lake\]'"):
        asyncio.run(main())
