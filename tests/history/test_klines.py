"""`ashi history klines`: the venue's own candles beside those of trades, marked, and for nobody who does not ask."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ashi.contracts import Trade
from ashi_cli.main import main
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.sequence import RecordingSequence
from servers.kline_server import MINUTE, binance_answer, gmo_answer, rows_of, serving

FROM, TO = "2024-08-08T23:54", "2024-08-09T00:06"
COMMAND = ["history", "klines", "binance", "ETHUSDT", "--from", FROM, "--to", TO]


@pytest.fixture(scope="module")
def trades() -> list[Trade]:
    recorded = [("binance", path) for path in BUNDLED["binance"]]
    return [trade for _, trade in RecordingSequence(recorded).trades(pytest.fail)][::20]


@pytest.fixture(scope="module")
def answered(trades: list[Trade]) -> Any:
    return binance_answer(trades, "1m", "5m")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("ASHI_STORAGE", url)
    return url


def rows(url: str, statement: str) -> list[Any]:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        return db.execute(statement).fetchall()


def only_klines(seen: list[tuple[str, dict[str, str]]]) -> list[dict[str, str]]:
    return [query for path, query in seen if path.endswith("klines")]


def test_they_are_stored_with_their_source_and_what_is_stored_is_not_asked_for_again(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trades: list[Trade], answered: Any
) -> None:
    with serving(answered) as (address, seen):
        monkeypatch.setenv("ASHI_REST_URL", address)
        assert main([*COMMAND, "--timeframe", "1m", "--timeframe", "5m"]) == 0
        out = capsys.readouterr().out
        assert "binance:ETHUSDT 1m: all of it is there: 12 candles by 1 requests, 12 of them new" in out
        asked = len(only_klines(seen))
        assert main([*COMMAND, "--timeframe", "1m"]) == 0
        assert len(only_klines(seen)) == asked, "all windows are there"
    fields = "open, high, low, close, volume, trade_count, quote_volume, taker_buy_volume, source"
    stored = rows(url, f"SELECT open_time, {fields} FROM venue_candles WHERE timeframe = '1m' ORDER BY open_time")
    assert [row[0] // 1_000 for row in stored] == [row[0] for row in rows_of(trades)]
    assert [str(row[6]) for row in stored] == [str(row[8]) for row in rows_of(trades)]
    assert {row[-1] for row in stored} == {"venue"}
    assert rows(url, "SELECT count(*) FROM venue_candles WHERE timeframe = '5m'") == [(3,)]
    assert rows(url, "SELECT count(*) FROM candles") == [(0,)]


def test_killed_in_the_middle_it_goes_on_with_the_pages_that_are_lacking(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answered: Any
) -> None:
    monkeypatch.setattr("ashi_ingest.venues.binance.klines.ROWS", 3)
    monkeypatch.setattr("ashi_history.kline_series.WRITTEN_AT_ONCE", 1)
    good, left = answered, [2]

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path.endswith("klines"):
            left[0] -= 1
            if left[0] < 0:
                return 400, {}
        return good(path, query)

    with serving(answer) as (address, seen):
        monkeypatch.setenv("ASHI_REST_URL", address)
        assert main(COMMAND) == 1
        assert "not all of it is there" in capsys.readouterr().out
        assert rows(url, "SELECT count(*) FROM venue_candles") == [(6,)]
        left[0] = 99
        seen.clear()
        assert main(COMMAND) == 0
        assert len(only_klines(seen)) == 2, "of four pages"
    assert "the store had the rest (2 requests)" in capsys.readouterr().out
    assert rows(url, "SELECT count(*) FROM venue_candles") == [(12,)]


def test_what_a_venue_does_not_tell_stays_unknown(
    url: str, monkeypatch: pytest.MonkeyPatch, trades: list[Trade]
) -> None:
    moved = [
        msgspec.structs.replace(each, symbol="gmo:ETH_JPY", traded_at=each.traded_at - 180 * MINUTE) for each in trades
    ]
    answer = gmo_answer(moved)
    with serving(lambda path, query: answer(path, query) if path.endswith("klines") else (404, {})) as (address, _):
        monkeypatch.setenv("ASHI_REST_URL", address)
        assert (
            main(["history", "klines", "gmo", "ETH_JPY", "--from", "2024-08-08T20:00", "--to", "2024-08-08T22:00"]) == 0
        )
    stored = rows(
        url, "SELECT volume, trade_count, quote_volume, taker_buy_volume, taker_buy_quote_volume FROM venue_candles"
    )
    assert len(stored) == len(rows_of(moved))
    assert {row[1:] for row in stored} == {(None, None, None, None)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bitflyer", "BTC_JPY", "--from", FROM], "bitFlyer publishes no klines, but binance, binance-usdm, gmo do"),
        (["mtgox", "BTC", "--from", FROM], "there is no venue 'mtgox'"),
        (
            ["gmo", "BTC", "--from", FROM, "--timeframe", "4h"],
            "same windows as 4h: there are 1m, 5m, 10m, 15m, 30m, 1h",
        ),
        (["gmo", "BTC", "--from", TO, "--to", FROM], "--from must be before --to"),
        (["gmo", "BTC", "--from", FROM, "--to", "2100-01-01"], "must be at least a minute ago"),
    ],
)
def test_what_cannot_be_had_is_said(
    url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["history", "klines", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path(url.removeprefix("sqlite:///")).exists(), "and no store was made"


@pytest.mark.slow
def test_only_who_asks_gets_them_and_is_told_what_they_are(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answered: Any
) -> None:
    with serving(answered) as (address, _):
        monkeypatch.setenv("ASHI_REST_URL", address)
        assert main(COMMAND) == 0
    capsys.readouterr()
    series = ["candles", "binance:ETHUSDT", "1m"]
    backtest = ["strategy", "backtest", "ma_cross", "--symbol", "binance:ETHUSDT", "--timeframe", "1m"]
    backtest += ["--fast", "2", "--slow", "3", "--no-checks"]

    assert main(series) == 2
    assert "of this series the store has only the venue's own candles, from 2024-08-08 23:54" in capsys.readouterr().err
    assert main(backtest) == 2
    assert "there are only the venue's own candles" in capsys.readouterr().err
    assert main([*backtest, "--venue-candles"]) == 0
    assert "the venue's own candles take part" in capsys.readouterr().out

    assert main([*series, "--source", "any", "--csv"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.endswith("version,feed_gap,source")
    assert len(lines) == 12
    assert all(line.endswith(",-1,,venue") for line in lines)
    assert main([*series, "--source", "venue"]) == 0
    assert capsys.readouterr().out.count(" venue\n") == 12
