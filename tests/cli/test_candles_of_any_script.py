"""`ashi candles` with a market whose name is not of ASCII, out of a store of each kind that needs no server."""

from __future__ import annotations

import asyncio
import csv
import io
from decimal import Decimal
from pathlib import Path

import pytest

from ashi.contracts.candle import Candle
from ashi_cli.main import main
from ashi_sinks.registry import make_sink

SYMBOL = "binance:币安人生USDT"
OPEN_US = 1_640_995_200_000_000


def a_candle(symbol: str, price: str) -> Candle:
    value, volume, quote = Decimal(price), Decimal("1.5"), Decimal(150)
    times = (OPEN_US, OPEN_US + 60_000_000)
    return Candle(symbol, "1m", *times, value, value, value, value, volume, quote, 2, volume, quote, "7", "8", 1)


@pytest.mark.parametrize("kind", ["sqlite", "lake"])
def test_a_series_is_printed_and_written_by_the_very_name(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{kind}:///{tmp_path}/candles"

    async def fill() -> None:
        sink = make_sink(url)
        await sink.open()
        try:
            await sink.write([a_candle(SYMBOL, "100"), a_candle("binance:币安USDT", "7")])
        finally:
            await sink.close()

    asyncio.run(fill())
    assert main(["candles", SYMBOL, "1m", "--storage", url]) == 0
    assert "100" in capsys.readouterr().out
    assert main(["candles", SYMBOL, "1m", "--storage", url, "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["symbol"], row["open"]) == (SYMBOL, "100")
    assert main(["candles", "binance:币", "1m", "--storage", url]) != 0
    assert "binance:币" in capsys.readouterr().err
    assert main(["candles", "binance:币\u3000安", "1m", "--storage", url]) != 0
    assert r"'binance:币\u3000安'" in capsys.readouterr().err, "what cannot be seen is shown"
