"""`ashi verify --klines`: files as Binance publishes them, and REST of a server on this machine."""

from __future__ import annotations

import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from verifying import ETH, as_json, change, live, recorded, store

from ashi.contracts import Timeframe, Trade
from ashi.contracts.errors import ContractError
from ashi.contracts.feed import FeedGap, GapState
from ashi.contracts.late_gaps import LATE_REASON
from ashi_cli.main import main
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.venues.base import Klines
from ashi_ingest.venues.registry import KLINE_FILE, VENUES
from servers.kline_server import MINUTE, binance_answer, gmo_answer, rows_of, serving

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


@pytest.fixture(scope="module")
def trades() -> list[Trade]:
    return recorded("binance", BUNDLED["binance"])


def write(path: Path, rows: list[list[Any]], *, header: bool = False) -> Path:
    lines = [HEADER] * header + [",".join(map(str, row)) for row in rows]
    content = "\n".join(lines) + "\n"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{path.stem}.csv", content)
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize("name", ["ETHUSDT-1m-2024-08-08.csv", "ETHUSDT-1m-2024-08-08.zip"])
@pytest.mark.parametrize(("unit", "header"), [(1_000, False), (1, True)])
def test_files_as_published_are_equal_whatever_their_unit_and_form(tmp_path, capsys, trades, name, unit, header):
    url = store(tmp_path, live(trades))
    path = write(tmp_path / name, rows_of(trades, unit=unit), header=header)
    assert main(["verify", url, "--klines", str(path), "--json"]) == 0
    rows, summary = as_json(capsys.readouterr().out)
    assert summary["compared"] == 11
    # The recording begins at 23:54:15, and both are made of it.
    assert rows == []


@pytest.mark.parametrize("timeframe", ["5m", "1h"])
def test_the_length_of_the_klines_tells_the_timeframe(tmp_path, capsys, trades, timeframe):
    later = [
        msgspec.structs.replace(t, trade_id=f"x{t.trade_id}", traded_at=t.traded_at + 7_200_000_000) for t in trades
    ]
    trades = [*trades, *(msgspec.structs.replace(t, received_at=t.traded_at) for t in later)]
    url = store(tmp_path, live(trades))
    path = write(tmp_path / "ETHUSDT.csv", rows_of(trades, timeframe))
    assert main(["verify", url, "--klines", str(path)]) == 0
    assert " 0 differ, 0 differ as explained" in capsys.readouterr().out


def test_a_row_that_is_wrong_is_named_with_what_may_be_the_reason(tmp_path, capsys, trades):
    url = store(tmp_path, candles := live(trades))
    wrong = [candle for candle in candles if candle.timeframe == "1m"][4]
    change(url, f"UPDATE candles SET trade_count = 3, high = '1' WHERE open_time = {wrong.open_time}")
    path = write(tmp_path / "ETHUSDT-1m-2024-08.csv", rows_of(trades))
    assert main(["verify", url, "--klines", str(path), "--json"]) == 1
    rows, _ = as_json(capsys.readouterr().out)
    assert {(row["field"], row["stored"]) for row in rows} == {("high", "1"), ("trade_count", "3")}
    assert all("not received, or came too late" in row["why"] for row in rows)


def test_rounded_products_are_explained_and_rounded_prices_are_not(tmp_path, capsys, trades):
    url = store(tmp_path, live(trades))
    exact = rows_of(trades)
    rounded = rows_of(trades, places=2)
    some = [[*row[:7], short[7], *row[8:10], short[10], "0"] for row, short in zip(exact, rounded, strict=True)]
    path = write(tmp_path / "ETHUSDT.csv", some)
    assert main(["verify", url, "--klines", str(path), "--json"]) == 0
    rows, _ = as_json(capsys.readouterr().out)
    assert {row["field"] for row in rows} == {"quote_volume", "taker_buy_quote_volume"}
    assert all(row["explained"] and "rounded" in row["why"] for row in rows)
    some[4][2] = str(int(float(some[4][2])) + 100)
    assert main(["verify", url, "--klines", str(write(path, some)), "--json"]) == 1
    rows, _ = as_json(capsys.readouterr().out)
    assert [row["field"] for row in rows if not row["explained"]] == ["high"]


def test_a_gap_of_the_feed_explains_what_is_missing_until_it_is_repaired(tmp_path, capsys, trades):
    candles = live(trades)
    short = [candle for candle in candles if candle.timeframe == "1m"][4]
    path = write(tmp_path / "ETHUSDT.csv", rows_of(trades))
    cases: list[tuple[GapState, int]] = [("lost", 0), ("open", 0), ("repaired", 1)]
    for state, status in cases:
        folder = tmp_path / state
        folder.mkdir()
        url = store(
            folder, candles, [FeedGap(ETH, short.open_time + 5, short.close_time, state, 0, "x", short.close_time)]
        )
        change(url, f"UPDATE candles SET volume = '1' WHERE open_time = {short.open_time}")
        assert main(["verify", url, "--klines", str(path), "--json"]) == status
        rows, _ = as_json(capsys.readouterr().out)
        assert [("interrupted" in row["why"], row["explained"]) for row in rows] == [(not status, not status)]


def test_trades_that_came_too_late_explain_what_is_missing(tmp_path, capsys, trades):
    candles = live(trades)
    short = [candle for candle in candles if candle.timeframe == "1m"][4]
    path = write(tmp_path / "ETHUSDT.csv", rows_of(trades))
    gap = FeedGap(ETH, short.open_time + 1, short.close_time, "lost", 0, LATE_REASON, short.close_time, final=True)
    url = store(tmp_path, candles, [gap])
    change(url, f"UPDATE candles SET volume = '1' WHERE open_time = {short.open_time}")
    assert main(["verify", url, "--klines", str(path), "--json"]) == 0
    rows, _ = as_json(capsys.readouterr().out)
    assert {row["why"] for row in rows} == {"trades came too late for it: `ashi rebuild` takes them in"}


@pytest.mark.parametrize("checked", [False, True])
def test_what_the_feed_was_not_checked_up_to_yet_explains_what_is_missing(tmp_path, capsys, trades, checked):
    candles = live(trades)
    short = [candle for candle in candles if candle.timeframe == "1m"][4]
    url = store(tmp_path, candles)
    change(url, f"UPDATE candles SET volume = '1' WHERE open_time = {short.open_time}")
    until = short.close_time - (not checked)
    change(url, f"INSERT INTO feed_status VALUES ('{ETH}', 'connected', 1, NULL, NULL, NULL, {until}, {until})")
    path = write(tmp_path / "ETHUSDT.csv", rows_of(trades))
    assert main(["verify", url, "--klines", str(path), "--json"]) == int(checked)
    rows, _ = as_json(capsys.readouterr().out)
    assert [("has not been checked" in row["why"], row["explained"]) for row in rows] == [(not checked, not checked)]


def test_the_first_candle_of_the_store_may_lack_trades_from_before_the_feed(tmp_path, capsys, trades):
    url = store(tmp_path, live(trades[300:]))
    path = write(tmp_path / "ETHUSDT.csv", rows_of(trades))
    assert main(["verify", url, "--klines", str(path), "--json"]) == 0
    rows, summary = as_json(capsys.readouterr().out)
    assert {row["why"] for row in rows} == {
        "the first candle of the store: its trades are there only from some time in it on"
    }
    assert summary["explained"] == 1


def test_klines_that_do_not_begin_on_their_interval_are_one_line_of_explanation(tmp_path, capsys, trades):
    """As after an interruption in 2018: from some minute on each kline begins 13 s late, then all is well again."""
    url = store(tmp_path, live(trades))
    rows = rows_of(trades)
    shifted = rows[0][0] + 4 * 60_000 + 13_000
    odd = [
        [shifted + number * 60_000, *rows[4 + number][1:6], shifted + number * 60_000 + 59_999, *rows[4][7:]]
        for number in range(3)
    ]
    odd[-1][6] -= 13_000  # cut short, up to where the next one begins
    path = write(tmp_path / "ETHUSDT-1m-2024-08-08.csv", [*rows[:4], *odd, *rows[7:]])
    assert main(["verify", url, "--klines", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == "8 candles compared: 0 differ, 0 differ as explained\n"
    assert err == (
        "note: binance:ETHUSDT 1m: 3 klines do not begin on their interval, the first (2024-08-08 23:58:13): "
        "they are of no window, and 3 candles of their time not compared\n"
    )
    path = write(tmp_path / "ETHUSDT-1m-2024-08-09.csv", odd)  # the first is 60 s long, as most are
    assert main(["verify", url, "--klines", str(path)]) == 2, "nothing was compared"
    assert "3 klines do not begin on their interval" in capsys.readouterr().err


def test_a_candle_beside_such_a_kline_that_differs_is_explained_and_others_are_not(tmp_path, capsys, trades):
    candles = live(trades)
    rows = rows_of(trades)
    url = store(tmp_path, candles)
    odd = [rows[4][0] + 13_000, *rows[4][1:6], rows[4][0] + 72_999, *rows[4][7:]]
    for place in (4, 6):
        rows[place][5] = "1"
    path = write(tmp_path / "ETHUSDT-1m-2024-08-08.csv", [*rows[:5], odd, *rows[6:]])
    assert main(["verify", url, "--klines", str(path), "--json"]) == 1
    found, summary = as_json(capsys.readouterr().out)
    assert [(row["open_time"], row["explained"]) for row in found] == [
        (rows[4][0] * 1_000, True),
        (rows[6][0] * 1_000, False),
    ]
    assert (
        summary["compared"] == 10
    )  # not the one after it, of which the kline has a part and which has none of its own


def test_a_window_between_two_parts_of_a_long_file_is_compared(tmp_path, capsys, trades, monkeypatch):
    monkeypatch.setattr("ashi_audit.verify_klines.ROWS_AT_ONCE", 4)
    url = store(tmp_path, live(trades))
    rows = rows_of(trades)
    missing = rows.pop(4)
    path = write(tmp_path / "ETHUSDT-1m-2024-08-08.csv", rows)
    assert main(["verify", url, "--klines", str(path), "--json"]) == 1
    found, _ = as_json(capsys.readouterr().out)
    assert [row["open_time"] for row in found] == [missing[0] * 1_000]


def test_windows_that_only_one_of_the_two_has_are_named(tmp_path, capsys, trades):
    url = store(tmp_path, candles := live(trades))
    opened = sorted(candle.open_time for candle in candles if candle.timeframe == "1m")
    change(url, f"DELETE FROM candles WHERE timeframe = '1m' AND open_time = {opened[3]}")
    rows = [row for row in rows_of(trades) if row[0] * 1000 != opened[5]]
    assert main(["verify", url, "--klines", str(write(tmp_path / "ETHUSDT.csv", rows)), "--json"]) == 1
    found, _ = as_json(capsys.readouterr().out)
    assert [(row["open_time"], row["field"], row["explained"]) for row in found] == [
        (opened[3], "candle", False),
        (opened[5], "candle", False),
    ]
    assert found[1]["why"] == "the file has none of this time"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no klines"),
        ("1,2,3\n", "line 1: a kline of Binance has 12 columns, and this row has 3"),
        (HEADER + "\n1723161240,1,1,1,1,1,1723161299,1,1,1,1,0\n", "line 2: open_time 1723161240 looks like seconds"),
        ("1723161240000,1e5,1,1,1,1,1723161299999,1,1,1,1,0\n", "open '1e5' is not a number in plain notation"),
        ("1723161240000,1,1,1,1,1,1723161239999,1,1,1,1,0\n", "is not after open_time"),
        ("1722816000000,1,1,1,1,1,1723420799999,1,1,1,1,0\n", "604800 s long"),
        ("1723161240000,1,1,1,1,1,1723161239999,1,x,1,1,0\n", "is not after open_time"),
        ("1723161240000,1,1,1,1,1,1723161299999,1,x,1,1,0\n", "count 'x' is not a whole number"),
        ("1723161240000,1,1,1,1,1,1723161419999,1,1,1,1,0\n", "the store has no candles of 3m"),
        ("1423161240000,1,1,1,1,1,1423161299999,1,1,1,1,0\n", "nothing to compare"),
    ],
)
def test_a_file_that_cannot_be_compared_is_refused_with_the_line(tmp_path, capsys, trades, content, message):
    url = store(tmp_path, live(trades))
    path = tmp_path / "ETHUSDT-1m.csv"
    path.write_text(content)
    assert main(["verify", url, "--klines", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_file_whose_symbol_is_not_clear_asks_for_it(tmp_path, capsys, trades):
    both = [*live(trades), *live([msgspec.structs.replace(trade, symbol="binance-usdm:ETHUSDT") for trade in trades])]
    url = store(tmp_path, both)
    path = write(tmp_path / "ETHUSDT-1m-2024-08.csv", rows_of(trades))
    assert main(["verify", url, "--klines", str(path)]) == 2
    assert "--symbol" in capsys.readouterr().err
    assert main(["verify", url, "--klines", str(path), "--symbol", "binance-usdm:ETHUSDT"]) == 0
    assert main(["verify", url, "--klines", str(tmp_path / "none.csv"), "--symbol", ETH]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["verify", url, "--klines", str(path), "--symbol", ETH, "--timeframe", "5m"]) == 2
    assert f"{path} has klines of 1m" in capsys.readouterr().err


@pytest.mark.parametrize(("venue", "path"), [("binance", "/api/v3/klines"), ("binance-usdm", "/fapi/v1/klines")])
def test_rest_of_binance_is_asked_page_by_page(tmp_path, capsys, monkeypatch, trades, venue, path):
    trades = [msgspec.structs.replace(trade, symbol=f"{venue}:ETHUSDT") for trade in trades]
    far = [
        msgspec.structs.replace(t, trade_id=f"x{t.trade_id}", traded_at=t.traded_at + 1_400 * MINUTE)
        for t in trades[:3_000]
    ]
    trades = [*trades, *(msgspec.structs.replace(t, received_at=t.traded_at) for t in far)]
    url = store(tmp_path, live(trades))
    with serving(binance_answer(trades, "1m")) as (address, seen):
        monkeypatch.setenv("ASHI_REST_URL", address)
        assert main(["verify", url, "--klines", venue, "--timeframe", "1m", "--json"]) == 0
    rows, summary = as_json(capsys.readouterr().out)
    assert rows == []
    assert summary["compared"] > 1_400  # the flat ones between as well
    assert {of for of, _ in seen} == {path}
    assert len(seen) == 2
    assert {query["symbol"] for _, query in seen} == {"ETHUSDT"}


def test_rest_that_fails_for_a_moment_is_asked_again_and_an_error_is_told(tmp_path, capsys, monkeypatch, trades):
    url = store(tmp_path, live(trades))
    failures, rows = [503], rows_of(trades)

    def answer(_path: str, _query: dict[str, str]) -> tuple[int, Any]:
        return (failures.pop(), {}) if failures else (200, rows)

    with serving(answer) as (address, seen):
        monkeypatch.setenv("ASHI_REST_URL", address)
        assert main(["verify", url, "--klines", "binance", "--timeframe", "1m"]) == 0
        assert len(seen) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"binance does not answer (binance: GET {address}/api/v3/klines failed: HTTP 503")
        assert line.endswith("), trying again for up to 5m")
        failures.append(400)
        assert main(["verify", url, "--klines", "binance", "--timeframe", "1m"]) == 2, "nothing was compared"
    err = capsys.readouterr().err
    assert "GET http://127.0.0.1" in err
    assert "trying again" not in err


@pytest.mark.slow
def test_rest_of_gmo_turns_its_days_at_six_in_japan_and_may_count_both_sides(tmp_path, capsys, monkeypatch, trades):
    shift = -3 * 60 * MINUTE  # so that the recording's midnight is GMO's
    moved = [
        msgspec.structs.replace(t, symbol="gmo:ETH_JPY", traded_at=t.traded_at + shift, received_at=t.traded_at + shift)
        for t in trades
    ]
    url = store(tmp_path, live(moved))
    with serving(gmo_answer(moved)) as (address, seen):
        monkeypatch.setenv("ASHI_REST_URL", address)
        assert main(["verify", url, "--klines", "gmo", "--timeframe", "1m", "--json"]) == 0
    rows, summary = as_json(capsys.readouterr().out)
    assert (rows, summary["compared"]) == ([], 11)
    assert [query["date"] for _, query in seen] == ["20240808", "20240809"]
    with serving(gmo_answer(moved, doubled=True)) as (address, seen):
        monkeypatch.setenv("ASHI_REST_URL", address)
        assert main(["verify", url, "--klines", "gmo", "--timeframe", "1m", "--json"]) == 0
    rows, _ = as_json(capsys.readouterr().out)
    assert {row["field"] for row in rows} == {"volume"}
    assert all("GMO counts every execution twice" in row["why"] for row in rows)


def klines_of(venue: str) -> Klines:
    klines = VENUES[venue].klines
    assert klines is not None
    return klines


def test_what_has_no_klines_is_said(tmp_path, capsys, trades):
    url = store(tmp_path, live(trades))
    assert main(["verify", url, "--klines", "bitflyer"]) == 2
    assert "bitFlyer publishes no klines" in capsys.readouterr().err
    assert main(["verify", url, "--klines", "mtgox"]) == 2
    assert "neither a file nor a venue" in capsys.readouterr().err
    assert not klines_of("gmo").covers(Timeframe.parse("4h"))
    assert not klines_of("binance-usdm").covers(Timeframe.parse("1s"))


def test_the_examples_of_the_documentation_are_read():
    spot = (
        b'[[1499040000000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",1499644799999,'
        b'"2434.19055334",308,"1756.87402397","28.46694368","0"]]'
    )
    (kline,) = klines_of("binance").read(Timeframe.parse("1m"), spot)
    assert (kline.open_time, kline.length_us) == (1_499_040_000_000_000, 7 * 86_400_000_000)
    assert (kline.close, kline.trade_count) == (Decimal("0.01577100"), 308)
    assert kline.taker_buy_quote_volume == Decimal("28.46694368")
    gmo = (
        b'{"status":0,"data":[{"openTime":"1618588800000","open":"6418255","high":"6418255","low":"6399280",'
        b'"close":"6400000","volume":"0.2"}],"responsetime":"2021-04-17T00:00:00.000Z"}'
    )
    (kline,) = klines_of("gmo").read(Timeframe.parse("1m"), gmo)
    assert (kline.open_time, kline.volume, kline.quote_volume) == (1_618_588_800_000_000, Decimal("0.2"), None)
    refused = b'{"status":5,"messages":[{"message_code":"ERR-5201","message_string":"MAINTENANCE."}]}'
    with pytest.raises(ContractError, match="ERR-5201 MAINTENANCE"):
        klines_of("gmo").read(Timeframe.parse("1m"), refused)
    with pytest.raises(ContractError, match="12 columns"):
        KLINE_FILE.read_row(["1"])
