"""Looking into a store: `ashi symbols`, and `ashi candles` of a time or as they come."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from ashi.contracts.candle import Candle
from ashi.contracts.feed import STALE_AFTER_US, FeedStatus
from ashi_cli.main import main
from ashi_cli.printing import series as printing
from ashi_cli.printing.series import SeriesRequest
from ashi_sinks.registry import make_sink

if TYPE_CHECKING:
    from pathlib import Path

    from ashi_sinks.protocol import Sink

MINUTE = 60_000_000
START = 1_723_161_240_000_000  # 2024-08-08 23:54 UTC
ETH = "binance:ETHUSDT"


def candle(number: int, *, symbol: str = ETH, timeframe: str = "1m", version: int = 1, close: str = "7") -> Candle:
    at, one = START + number * MINUTE, Decimal(1)
    values = (one, Decimal(9), one, Decimal(close), one, one, number, one, one)
    return Candle(symbol, timeframe, at, at + MINUTE, *values, "1", "2", version)


async def open_sink(url: str) -> Sink:
    sink = make_sink(url)
    await sink.open()
    return sink


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """Ten minutes of one symbol, in two timeframes; and of another, of whose feed something was said just now."""
    url = f"sqlite:///{tmp_path}/candles.db"
    now_us = time.time_ns() // 1000

    async def fill() -> None:
        sink = await open_sink(url)
        five = candle(1, timeframe="5m")
        await sink.write(
            [*map(candle, range(10)), five, candle(3, symbol="bitflyer:BTC_JPY"), candle(0, symbol="gmo:BTC")]
        )
        said = FeedStatus("gmo:BTC", "silent", START, None, "7", START, now_us - STALE_AFTER_US - 10**6)
        await sink.write_statuses([said, FeedStatus(ETH, "connected", START, None, "7", START, now_us, now_us)])
        await sink.close()

    asyncio.run(fill())
    return url


def test_a_store_is_listed_by_its_symbols(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["symbols", "--storage", storage]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "symbol"
    assert [row.split() for row in rows[:2]] == [
        [ETH, "1m,5m", "2024-08-08", "23:54:00", "2024-08-09", "00:03:00", "connected"],
        ["bitflyer:BTC_JPY", "1m", "2024-08-08", "23:57:00", "2024-08-08", "23:57:00", "-"],
    ]
    assert rows[2].startswith("gmo:BTC ")
    assert "unknown since 20" in rows[2]
    assert rows[2].endswith(", was silent")


def test_a_store_without_candles_says_what_fills_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    asyncio.run(open_sink(url))
    assert main(["symbols", "--storage", url]) == 2
    assert "run `ashi sink`" in capsys.readouterr().err


def minutes(out: str) -> list[str]:
    return [line[11:16] for line in out.splitlines()[1:]]


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [
        (["--from", "2024-08-09T00:01"], ["00:01", "00:02", "00:03"]),
        (["--to", "2024-08-08T23:56"], ["23:54", "23:55"]),
        (["--from", "2024-08-08T23:55", "--to", "2024-08-08T23:58", "--limit", "2"], ["23:56", "23:57"]),
        (["--from", "2025-01-01"], []),
    ],
)
def test_a_time_is_chosen_by_the_open_times(
    storage: str, capsys: pytest.CaptureFixture[str], bounds: list[str], shown: list[str]
) -> None:
    assert main(["candles", ETH, "1m", "--storage", storage, *bounds]) == 0
    assert minutes(capsys.readouterr().out) == shown
    assert main(["candles", ETH, "1m", "--storage", storage, "--csv", *bounds]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(shown)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "2024-08-09", "--to", "2024-08-09"], "--from must be before --to"),
        (["--follow", "--to", "2024-08-09"], "leave out --to"),
    ],
)
def test_a_time_that_cannot_be_is_refused(
    storage: str, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["candles", ETH, "1m", "--storage", storage, *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("as_csv", [False, True])
def test_candles_are_followed_as_they_are_stored_and_corrected(
    storage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_csv: bool
) -> None:
    monkeypatch.setattr(printing, "FOLLOW_INTERVAL_S", 0.01)
    monkeypatch.setattr(printing, "FOLLOWED_ROWS", 3)
    out = ""

    async def until(lines: int) -> None:
        nonlocal out
        while len(out.splitlines()) < lines:
            await asyncio.sleep(0.01)
            out += capsys.readouterr().out

    async def test() -> None:
        wanted = SeriesRequest(ETH, "1m", limit=4)
        following = asyncio.create_task(printing._candles(storage, wanted, source="trades", as_csv=as_csv, follow=True))
        sink = await open_sink(storage)
        async with asyncio.timeout(20):
            await until(5)
            await sink.write([candle(10), candle(11)])
            await until(7)
            await sink.write([candle(11, version=2, close="8"), candle(6, version=2), candle(12)])
            await until(9)
        await asyncio.sleep(0.1)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await sink.close()

    asyncio.run(test())
    rows = (out + capsys.readouterr().out).splitlines()
    numbers = [11, *range(6, 12), 11, 12]
    if as_csv:
        assert [int(row.split(",")[2]) for row in rows[1:]] == [START + number * MINUTE for number in numbers[1:]]
    else:
        assert [row.split()[7] for row in rows[1:]] == [str(number) for number in numbers[1:]]
        assert [row.split()[5] for row in rows[-3:]] == ["7", "8", "7"]


def test_a_symbol_of_very_many_is_not_answered_with_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/many.db"

    async def fill() -> None:
        sink = await open_sink(url)
        await sink.write([candle(0, symbol=f"binance:S{number}USDT") for number in range(30)])
        await sink.close()

    asyncio.run(fill())
    assert main(["candles", "binance:s7usdt", "1m", "--storage", url]) == 2
    said = "there are no candles of 'binance:s7usdt'; `ashi symbols` lists all there are; did you mean binance:S7USDT?"
    assert said in capsys.readouterr().err
