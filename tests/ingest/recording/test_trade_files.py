"""Files of trades: as venues publish them they have the trades that the feed had, and what is wrong is told."""

from __future__ import annotations

import asyncio
import gzip
import random
import struct
import subprocess
import sys
import zipfile
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cramjam
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import ContractError, RecordingError, UsageError
from ashi.contracts.trade import Trade, check_trade, encode_trade
from ashi_ingest.publish.encoded_trades import MAX_RECORDS_BYTES, encode_trades
from ashi_ingest.recording import contents, parquet
from ashi_ingest.recording.check import check_recording
from ashi_ingest.recording.read_progress import ReadProgress
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.replay import ReplayResult, _Replay
from ashi_ingest.recording.sequence import RecordingSequence, check_recordings
from ashi_ingest.recording.trade_files import BadRow, FileOptions, TradeFileReader, check_trade_file, is_trade_file
from ashi_ingest.venues.gmo.messages import GmoParser, parse_timestamp
from ashi_ingest.venues.trade_file import read_times
from samples.published_files import (
    BITFLYER_HEADER,
    GMO_HEADER,
    SPOT_HEADER,
    USDM_HEADER,
    as_of_file,
    bitflyer,
    gmo,
    gmo_frame,
    recorded,
    spot,
    usdm,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ashi.runtime.kafka.producing.encoded_batches import EncodedBatch

ETHUSDT = as_of_file(recorded("binance"))
ROWS = spot(ETHUSDT[:40])
NAME = "ETHUSDT-trades-2024-08.csv"


def write(directory: Path, content: bytes, name: str = NAME) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def zipped(directory: Path, members: dict[str, bytes], name: str = "ETHUSDT-trades-2024-08.zip") -> Path:
    path = directory / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def read(venue: str, *paths: Path, options: FileOptions = FileOptions()) -> tuple[list[Trade], list[BadRow]]:  # noqa: B008
    reader = TradeFileReader(venue, options)
    trades: list[Trade] = []
    bad: list[BadRow] = []
    for path in paths:
        check_recording(venue, path, options)
        for batch in reader.read(path):
            assert batch.rows == len(batch.columns or ()) + len(batch.bad)
            if batch.columns is not None:
                trades += batch.columns.trades()
            bad += batch.bad
    return trades, bad


def refusal(path: Path, venue: str = "binance", options: FileOptions = FileOptions()) -> str:  # noqa: B008
    with pytest.raises(UsageError) as raised:
        check_recording(venue, path, options)
    assert str(path) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("header", [b"", SPOT_HEADER], ids=["bare", "header"])
@pytest.mark.parametrize("unit_us", [1_000, 1], ids=["ms", "µs"])
def test_spot_as_binance_publishes_it_has_the_trades_of_the_feed(tmp_path: Path, header: bytes, unit_us: int) -> None:
    path = zipped(tmp_path, {NAME: header + spot(ETHUSDT, unit_us=unit_us)})
    assert read("binance", path) == (ETHUSDT, [])


def test_what_is_finer_than_a_millisecond_is_floored_as_the_feed_tells_it(tmp_path: Path) -> None:
    row = b"7,1.5,2,3,1735689600123999,True,True\n"
    (trade,), _ = read("binance", write(tmp_path, row))
    assert trade.traded_at == trade.received_at == 1_735_689_600_123_000


@pytest.mark.parametrize("header", [b"", USDM_HEADER], ids=["bare", "header"])
def test_usdm_futures_as_binance_publishes_them(tmp_path: Path, header: bytes) -> None:
    trades, bad = read("binance-usdm", zipped(tmp_path, {NAME: header + usdm(ETHUSDT)}))
    assert not bad
    assert [encode_trade(trade).replace(b"-usdm:", b":", 1) for trade in trades] == [*map(encode_trade, ETHUSDT)]


@pytest.mark.parametrize("header", [b"", BITFLYER_HEADER], ids=["bare", "header"])
def test_executions_of_bitflyer_as_programs_keep_them(tmp_path: Path, header: bytes) -> None:
    expected = [trade for trade in as_of_file(recorded("bitflyer")) if trade.symbol == "bitflyer:FX_BTC_JPY"]
    assert len(expected) > 50
    path = write(tmp_path, gzip.compress(header + bitflyer(expected)), "bitflyer.execution.20211212.FX_BTC_JPY.csv.gz")
    assert read("bitflyer", path) == (expected, [])


def test_an_auction_of_bitflyer_has_no_side_and_blank_dates_are_told(tmp_path: Path) -> None:
    rows = b"8,,5860832.0,1e-08,2021-12-12 23:05:29.9692063+00:00\n9,BUY,5860832.0,0.01,\n"
    (trade,), (bad,) = read("bitflyer", write(tmp_path, rows, "x.csv"), options=FileOptions("BTC_JPY"))
    assert (trade.side, str(trade.size), trade.traded_at) == (None, "1E-8", 1_639_350_329_969_000)
    assert bad.place.endswith("x.csv:2")
    assert "the time is blank" in bad.reason


GMO_ROWS = [
    ("BUY", "0.0010", "15499938.000", 1_751_317_219_862),
    ("BUY", "0.0010", "15499938.000", 1_751_317_219_862),
    ("SELL", "0.0010", "15499938.000", 1_751_317_219_862),
    ("BUY", "0.0010", "15499938.000", 1_751_317_219_861),  # later, and stamped earlier
    ("BUY", "0.0010", "15499938.000", 1_751_317_219_862),
    ("SELL", "2.0000", "15499000.000", 1_751_317_220_000),
]


def test_executions_of_gmo_are_named_as_the_feed_names_them(tmp_path: Path) -> None:
    parser = GmoParser()
    live = [trade for row in GMO_ROWS for trade in parser.parse(*gmo_frame("BTC_JPY", row)).trades]
    path = write(tmp_path, gzip.compress(GMO_HEADER + gmo("BTC_JPY", GMO_ROWS)), "20250701_BTC_JPY.csv.gz")
    assert read("gmo", path) == (as_of_file(live), [])
    assert len({trade.trade_id for trade in live}) == len(live)


def test_a_millisecond_of_gmo_that_two_files_share_is_counted_on_and_a_file_given_twice_is_the_same(
    tmp_path: Path,
) -> None:
    whole = write(tmp_path, gmo("BTC_JPY", GMO_ROWS), "20250701_BTC_JPY.csv")
    parts = [
        write(tmp_path, gmo("BTC_JPY", GMO_ROWS[:1]), "20250702_BTC_JPY.csv"),
        write(tmp_path, gmo("BTC_JPY", GMO_ROWS[1:]), "20250703_BTC_JPY.csv"),
    ]
    expected, _ = read("gmo", whole)
    assert read("gmo", *parts) == (expected, [])
    assert read("gmo", whole, whole)[0] == expected * 2


def test_a_row_of_gmo_that_is_too_old_to_be_numbered_is_refused_and_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ashi_ingest.venues.gmo.files.KEPT", 10)
    monkeypatch.setattr(contents, "BLOCK", 100)
    monkeypatch.setattr("ashi_ingest.recording.format._CHUNK", 100)
    rows = [("BUY", "1", "2", 1_751_317_219_000 + n) for n in range(40)]
    path = write(tmp_path, gmo("BTC", [*rows, rows[35], rows[0]]), "20250701_BTC.csv")
    trades, (bad,) = read("gmo", path)
    assert [trade.trade_id[-2:] for trade in trades] == ["-0"] * 40 + ["-1"]
    assert bad.place.endswith(":42")
    assert "sort the file" in bad.reason


def test_a_file_of_gmo_that_stands_newest_first_is_refused_as_a_millisecond_would_be_turned_around(
    tmp_path: Path,
) -> None:
    rows = [("BUY", "1", str(price), 1_751_317_219_000 - price // 2) for price in range(1, 7)]
    path = write(tmp_path, gmo("BTC_JPY", rows), "20250701_BTC_JPY.csv")
    with pytest.raises(UsageError, match=r"its rows stand newest first: .* Turn the file around"):
        check_recording("gmo", path)


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, lambda data: bytes(cramjam.zstd.compress(data)), lambda data: b"\xef\xbb\xbf" + data],
    ids=["plain", "gzip", "zstd", "byte order mark"],
)
def test_however_a_file_is_packed(tmp_path: Path, pack: object) -> None:
    path = write(tmp_path, pack(SPOT_HEADER + ROWS))  # type: ignore[operator]
    assert read("binance", path) == (ETHUSDT[:40], [])


def test_a_recording_of_frames_may_be_packed_by_zstd_too(tmp_path: Path) -> None:
    frame = b'1723161254340863867 {"e":"trade","s":"ETHUSDT","t":7,"p":"1.5","q":"2","T":1723161254340,"m":false}\n'
    path = write(tmp_path, bytes(cramjam.zstd.compress(frame)), "frames.zst")
    assert not is_trade_file(path)
    assert [trade.trade_id for _, trade in RecordingSequence([("binance", path)]).trades(print)] == ["7"]


def test_windows_line_ends_blank_lines_quotes_and_blanks_around_cells(tmp_path: Path) -> None:
    lines = ROWS.splitlines()
    lines[3] = b",".join(b'"%b"' % cell for cell in lines[3].split(b","))
    lines[5] = lines[5].replace(b",", b" , ")
    path = write(tmp_path, SPOT_HEADER.replace(b"\n", b"\r\n") + b"\r\n\r\n".join(lines))
    assert read("binance", path) == (ETHUSDT[:40], [])


def test_members_of_a_zip_are_read_in_the_order_of_their_names_each_with_its_header(tmp_path: Path) -> None:
    path = zipped(
        tmp_path,
        {
            "days/ETHUSDT-trades-2024-08-09.csv": SPOT_HEADER + spot(ETHUSDT[6106:]),
            "__MACOSX/days/._ETHUSDT-trades-2024-08-09.csv": b"\0\5\x16\7",
            "days/ETHUSDT-trades-2024-08-08.csv": spot(ETHUSDT[:6106]),
        },
        "days.zip",
    )
    assert read("binance", path) == (ETHUSDT, [])


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_day_without_trades_is_no_error_and_a_download_that_brought_nothing_is(tmp_path: Path, pack: object) -> None:
    days = [
        write(tmp_path, pack(GMO_HEADER + gmo("BTC", GMO_ROWS)), "20240401_BTC.csv.gz"),  # type: ignore[operator]
        write(tmp_path, gzip.compress(b""), "20240402_BTC.csv.gz"),
        write(tmp_path, pack(GMO_HEADER), "20240403_BTC.csv.gz"),  # type: ignore[operator]
    ]
    trades, bad = read("gmo", *days)
    assert (len(trades), bad) == (len(GMO_ROWS), [])
    assert "empty" in refusal(write(tmp_path, b"", "20240404_BTC.csv.gz"), "gmo")


def test_unsorted_rows_stand_as_they_stand(tmp_path: Path) -> None:
    shuffled = random.Random(7).sample(ETHUSDT, 500)
    assert read("binance", write(tmp_path, spot(shuffled))) == (shuffled, [])


def test_bad_rows_are_told_with_file_and_line_and_the_others_are_read(tmp_path: Path) -> None:
    lines = ROWS.splitlines()
    good = b"1,2.5,3,7.5,1723161254340,True,True"
    bad = {
        3: (b"garbage", "1 columns"),
        5: (good.replace(b"2.5", b"NaN"), "price 'NaN'"),
        6: (good.replace(b",3,", b",-3,"), "size -3 is negative"),
        7: (good.replace(b"1723161254340", b"1723161254"), "looks like seconds"),
        8: (good.replace(b"True", b"maybe", 1), "side 'maybe'"),
        9: (good.replace(b"1,", b"6.95E+09,", 1), "is not a whole number"),
        10: (b"\xff" + good, "not UTF-8"),
        11: (good + b",more", "8 columns"),
        12: (good.rpartition(b",")[0], "6 columns"),
        13: (good.replace(b"2.5", b"2" * 39), "39 digits"),
        14: (good + b"\r" + good, "carriage return within the row"),
        15: (b"1" * 200_000 + good, "taken apart into cells"),
        16: (b"\0" * 80, "NUL bytes: the file is damaged there"),
    }
    for number, (row, _) in bad.items():
        lines.insert(number - 1, row)
    path = zipped(tmp_path, {NAME: b"\n".join(lines)})
    trades, told = read("binance", path)
    assert trades == ETHUSDT[:40]
    assert [row.place for row in told] == [f"{path}!{NAME}:{number}" for number in bad]
    assert [row.row for row in told] == [row for row, _ in bad.values()]
    for rejected, (_, said) in zip(told, bad.values(), strict=True):
        assert said in rejected.reason


def test_a_row_that_takes_a_cell_of_the_next_does_not_pass(tmp_path: Path) -> None:
    lines = ROWS.splitlines()
    lines[7] += b",1"
    lines[8] = lines[8].partition(b",")[2]
    _, told = read("binance", write(tmp_path, b"\n".join(lines)))
    assert [row.place.rpartition(":")[2] for row in told] == ["8", "9"]


@pytest.mark.parametrize(
    ("name", "content", "venue", "said"),
    [
        ("ETHUSDT-aggTrades-2024-08.csv", b"1,2.5,3,4,5,1723161254340,True,True\n", "binance", "aggregated trades"),
        ("x.csv", b"1,2.5,3,4,5,1723161254340,true\n", "binance-usdm", "<market>-trades-"),
        (
            "x.csv",
            b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n",
            "binance-usdm",
            "aggregated trades",
        ),
        (NAME, USDM_HEADER + b"1,2.5,3,4,1723161254340,true\n", "binance", "binance-usdm: name that venue"),
        (NAME, b"1,2.5,3,4,1723161254340,true\n", "binance", "binance-usdm: name that venue"),
        (NAME, SPOT_HEADER + ROWS, "binance-usdm", "columns of binance: name that venue"),
        (NAME, ROWS, "binance-usdm", "columns of binance: name that venue"),
        (
            "BTCUSD_PERP-trades-2024-08.csv",
            b"id,price,qty,base_qty,time,is_buyer_maker\n1,2,3,4,1723161254340,true\n",
            "binance-usdm",
            "COIN-M",
        ),
        ("ETHUSDT-1m-2024-08.csv", b"1,2,3,4,5,6,7,8,9,10,11,0\n", "binance", "verify --klines"),
        ("mine.csv", ROWS, "binance", "say so with --market"),
        ("ethusdt-trades-2024-08.csv", ROWS, "binance", "lower case"),
        (NAME, b"a,b,c,d,e\n1,2,3,4,5\n", "binance", "5 columns"),
        (NAME, b"id,price,qty,when,maker\n1,2,3,4,5\n", "binance", "--columns"),
        (NAME, ROWS.replace(b"True", b"x"), "binance", "no trades of binance in its first 40 rows"),
        (NAME, (SPOT_HEADER + ROWS).decode().encode("utf-16"), "binance", "iconv"),
        (NAME, (SPOT_HEADER + ROWS).decode().encode("utf-16-be"), "binance", "iconv"),
        (NAME, (SPOT_HEADER + ROWS).replace(b"\n", b"\r"), "binance", "tr '\\r' '\\n'"),
        (NAME, (ROWS * 400).replace(b"\n", b"\r"), "binance", "tr '\\r' '\\n'"),
        (NAME, ROWS.replace(b",", b";"), "binance", "Cells are separated by commas"),
        (NAME, b"sep=,\n" + ROWS, "binance", "nothing stands before the header or the first row"),
        (f"{NAME}.gz", gzip.compress(gzip.compress(ROWS)), "binance", "unpack the outer one"),
        ("20250701_ETH.csv", GMO_HEADER + gmo("BTC", GMO_ROWS), "gmo", "another market: the file's name says ETH"),
        ("20250701_BTC.csv", ROWS, "gmo", "7 columns"),
    ],
)
def test_what_is_something_else_is_refused_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, venue: str, said: str
) -> None:
    assert said in refusal(write(tmp_path, content, name), venue)


def test_a_market_that_is_said_must_be_that_of_the_name(tmp_path: Path) -> None:
    options = FileOptions(market="BTCUSDT")
    assert "another market: --market says BTCUSDT" in refusal(write(tmp_path, ROWS), options=options)
    trades, _ = read("binance", write(tmp_path, ROWS, "mine.csv"), options=options)
    assert {trade.symbol for trade in trades} == {"binance:BTCUSDT"}


def test_a_row_of_another_market_in_the_midst_is_told(tmp_path: Path) -> None:
    rows = gmo("BTC", GMO_ROWS[:2]) + gmo("ETH", GMO_ROWS[2:3]) + gmo("BTC", GMO_ROWS[3:])
    trades, (bad,) = read("gmo", write(tmp_path, rows, "20250701_BTC.csv"))
    assert len(trades) == 5
    assert bad.place.endswith(":3")
    assert "'ETH'" in bad.reason


def test_what_is_said_of_a_recording_of_frames_is_refused(tmp_path: Path) -> None:
    frame = b'1723161254340863867 {"e":"trade","s":"ETHUSDT","t":7,"p":"1.5","q":"2","T":1723161254340,"m":false}\n'
    said = refusal(write(tmp_path, frame, "x"), options=FileOptions("ETHUSDT"))
    assert "leave out --market and --columns" in said


def test_a_truncated_zip_is_refused_before_anything_begins(tmp_path: Path) -> None:
    path = zipped(tmp_path, {NAME: spot(ETHUSDT)})
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut off or damaged" in refusal(path)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, {NAME: ROWS})
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.index(signature) + flags
        struct.pack_into("<H", data, at, 1)
    path.write_bytes(data)
    assert "is encrypted: unpack it" in refusal(path)


def test_a_packed_file_in_a_zip_is_told_from_a_text(tmp_path: Path) -> None:
    assert "unpack the outer one" in refusal(zipped(tmp_path, {f"{NAME}.gz": gzip.compress(ROWS)}), "binance")


def test_an_empty_zip_is_refused(tmp_path: Path) -> None:
    assert "no file in it" in refusal(zipped(tmp_path, {}))


PACKED = {
    "zip": lambda directory, content: zipped(directory, {NAME: content}),
    "gzip": lambda directory, content: write(directory, gzip.compress(content), f"{NAME}.gz"),
    "zstd": lambda directory, content: write(directory, bytes(cramjam.zstd.compress(content)), f"{NAME}.zst"),
}


@pytest.mark.parametrize(
    ("kind", "damage"), [("zip", "flipped"), ("gzip", "flipped"), ("gzip", "cut"), ("zstd", "cut")]
)
def test_a_damaged_file_is_read_up_to_there(tmp_path: Path, kind: str, damage: str) -> None:
    path = PACKED[kind](tmp_path, spot(ETHUSDT))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if damage == "cut":
        del data[middle:]
    else:
        data[middle] ^= 0xFF
    path.write_bytes(data)
    trades: list[Trade] = []
    bad: list[BadRow] = []
    batches = TradeFileReader("binance").read(path)

    def read_all() -> None:
        for batch in batches:
            trades.extend([] if batch.columns is None else batch.columns.trades())
            bad.extend(batch.bad)

    with pytest.raises(RecordingError, match="everything before was read") as raised:
        read_all()
    assert str(path) in str(raised.value)
    if damage == "cut":
        assert 1_000 < len(trades) < len(ETHUSDT)
        assert trades == ETHUSDT[: len(trades)]
        assert "not whole" in bad[-1].reason


def test_a_last_line_without_an_end_counts(tmp_path: Path) -> None:
    assert read("binance", write(tmp_path, ROWS[:-1])) == (ETHUSDT[:40], [])


def test_columns_of_other_names_in_a_csv(tmp_path: Path) -> None:
    content = b"when,px,amount,id,taker\n1723161254340,1.5,2,7,buy\n"
    options = FileOptions("ETHUSDT", {"time": "when", "price": "px", "size": "amount", "side": "taker"})
    (trade,), _ = read("binance", write(tmp_path, content, "x.csv"), options=options)
    assert (trade.trade_id, trade.side, str(trade.price), str(trade.size)) == ("7", "buy", "1.5", "2")
    assert "no column 'px'" in refusal(write(tmp_path, ROWS), options=FileOptions(None, {"price": "px"}))


def frame_of(trades: Sequence[Trade]) -> polars.DataFrame:
    return polars.DataFrame(
        {
            "trade": [int(trade.trade_id) for trade in trades],
            "px": [float(trade.price) for trade in trades],
            "qty": [str(trade.size) for trade in trades],
            "maker": [trade.side == "sell" for trade in trades],
            "at": [trade.traded_at for trade in trades],
            "venue": ["binance"] * len(trades),
        }
    ).with_columns(polars.col("at").cast(polars.Datetime("us", "UTC")))


PARQUET = FileOptions("ETHUSDT", {"id": "trade", "price": "px", "size": "qty", "side": "maker", "time": "at"})


def test_parquet_with_a_mapping_of_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS", 1_000)
    path = tmp_path / "mine.parquet"
    frame_of(ETHUSDT).write_parquet(path)
    assert read("binance", path, options=PARQUET) == (ETHUSDT, [])
    assert "no column size" in refusal(path, options=FileOptions("ETHUSDT", {**PARQUET.columns, "size": "size"}))
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a whole Parquet file" in refusal(path, options=PARQUET)


def test_a_parquet_file_that_is_damaged_within_is_told_and_its_name_is_no_pattern(tmp_path: Path) -> None:
    """Where the library comes upon what its authors thought impossible, it raises what is no Exception."""
    path = tmp_path / "mine[1].parquet"
    frame_of(ETHUSDT).write_parquet(path, compression="uncompressed")
    assert read("binance", path, options=PARQUET) == (ETHUSDT, [])
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + whole[len(whole) // 3 :])  # what its end says of places is true no more
    with pytest.raises((RecordingError, UsageError), match="reading failed after row 0"):
        read("binance", path, options=PARQUET)


def test_parquet_without_the_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.parquet"
    frame_of(ETHUSDT[:3]).write_parquet(path)
    monkeypatch.setattr(parquet.importlib.util, "find_spec", lambda _: None)
    assert "pip install 'ashi-candles[parquet]'" in refusal(path, options=PARQUET)


def test_a_member_whose_name_tells_nothing_is_of_the_market_of_the_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"data.csv": ROWS}, "BTCUSDT-trades-2024-08.zip")
    assert {trade.symbol for trade in read("binance", path)[0]} == {"binance:BTCUSDT"}


def test_files_and_recordings_make_one_sequence_and_bad_rows_are_told(tmp_path: Path) -> None:
    files = [write(tmp_path, ROWS), write(tmp_path, ROWS + b"garbage,,,,\n", "ETHUSDT-trades-2024-09.csv")]
    recordings = [("binance", path) for path in files]
    check_recordings(recordings)
    notes: list[str] = []
    trades = [trade for _, trade in RecordingSequence(recordings).trades(notes.append)]
    assert trades == ETHUSDT[:40] * 2
    (note,) = notes
    assert note.startswith(f"1 row of {files[1]} cannot be read as binance, the first in {files[1]}:41 (")


numbers = st.decimals(0, 10**12, allow_nan=False, allow_infinity=False, places=8)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2**63 - 1), numbers, numbers, st.integers(10**12, 9 * 10**12), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_stands_in_rows_is_what_one_by_one_would_have_made_of_it(
    rows: list[tuple[int, object, object, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = [f"{number},{price},{size},0,{ms},{maker},True\n" for number, price, size, ms, maker in rows]
    path = write(tmp_path_factory.mktemp("rows"), "".join(lines).encode())
    check_trade_file("binance", path)
    (batch,) = TradeFileReader("binance").read(path)
    columns = batch.columns
    assert columns is not None
    trades = columns.trades()
    for trade, (number, price, size, ms, maker) in zip(trades, rows, strict=True):
        check_trade(trade)
        assert (trade.sequence, trade.price, trade.size) == (number, price, size)
        assert (trade.traded_at, trade.side) == (ms * 1_000, "sell" if maker else "buy")
    assert columns.messages() == [encode_trade(trade) for trade in trades]


@pytest.mark.processes
def test_a_great_zip_takes_little_memory(tmp_path: Path) -> None:
    """A third of what stands in it is more than is held at any time, with the allocator's slack."""
    row = b"%d,61837.63000000,0.02000000,1236.75260000,1723161254342,True,True\n"
    path = tmp_path / "BTCUSDT-trades-2024-08.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("BTCUSDT-trades-2024-08.csv", "w") as file,
    ):
        for begin in range(0, 600_000, 50_000):
            file.write(b"".join(row % number for number in range(begin, begin + 50_000)))
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from ashi_ingest.recording.trade_files import TradeFileReader\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most()\n"
        "rows = sum(batch.rows for batch in TradeFileReader('binance').read(Path(sys.argv[1])))\n"
        "print(rows, (most() - before) * (1 if sys.platform == 'darwin' else 1024))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == 600_000
    assert grown < 14 * 1024 * 1024


def test_progress_is_told_in_bytes_of_the_file(tmp_path: Path) -> None:
    told: list[int] = []
    for path in (write(tmp_path, spot(ETHUSDT)), zipped(tmp_path, {NAME: spot(ETHUSDT)})):
        told.clear()
        for _ in TradeFileReader("binance").read(path, told.append):
            pass
        assert sum(told) == pytest.approx(path.stat().st_size, rel=0.01)


class Publisher:
    """Counts what it is given."""

    def __init__(self) -> None:
        self.published = self.dead = 0

    def partition_of(self, symbol: str) -> int:
        assert symbol == "binance:ETHUSDT"
        return 3

    async def publish_encoded(self, partition: int, batch: EncodedBatch) -> None:
        assert partition == 3
        self.published += batch.record_count()


def test_a_replay_that_is_stopped_in_a_file_says_so_and_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "BLOCK", 1_000)
    monkeypatch.setattr("ashi_ingest.recording.format._CHUNK", 1_000)
    path = write(tmp_path, spot(ETHUSDT[:500]))
    stopping = asyncio.Event()

    def stop_at_100(result: ReplayResult) -> None:
        if result.frames >= 100:
            stopping.set()

    publisher: Any = Publisher()
    run = _Replay(RecordingReader("binance"), publisher, stopping, stop_at_100)
    assert asyncio.run(run.read(path)) is False
    result = run.result()
    assert 100 <= result.frames == result.trades_published < 150
    assert result.partial == f"{path}: stopped by a signal; give the file again to have all of it"


@pytest.mark.parametrize("count", [1, 2_000, len(ETHUSDT)])
def test_batches_are_within_what_a_broker_takes_and_about_equal(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "BLOCK", 10**7)
    (batch,) = TradeFileReader("binance").read(write(tmp_path, usdm(ETHUSDT[:count]).replace(b"\n", b",True\n")))
    assert batch.columns is not None
    encoded = list(encode_trades(batch.columns, None))
    counts = [each.record_count() for each in encoded]
    assert sum(counts) == count
    assert max(counts) - min(counts) <= len(counts)
    assert max(each.size() for each in encoded) <= MAX_RECORDS_BYTES + 61
    assert len(counts) <= 1 + sum(each.size() for each in encoded) // (MAX_RECORDS_BYTES * 3 // 4)


instants = st.datetimes(datetime(2001, 9, 10), datetime(2150, 1, 1))  # noqa: DTZ001


@given(st.lists(st.tuples(instants, st.integers(0, 7), st.sampled_from("T ")), min_size=1, max_size=5))
def test_dates_together_are_read_as_each_by_itself(dates: list[tuple[datetime, int, str]]) -> None:
    texts = [f"{at:%Y-%m-%dT%H:%M:%S}" + f".{at.microsecond:06}0"[: digits and digits + 1] for at, digits, _ in dates]
    cells = [text.replace("T", between).encode() for text, (_, _, between) in zip(texts, dates, strict=True)]
    assert [int(ms) * 1_000 for ms in read_times(cells)] == [parse_timestamp(f"{text}Z") for text in texts]


@pytest.mark.parametrize("cell", [b"2025-02-30 00:00:00.000", b"2025-06-30 25:00:00.000", b"1999-12-31 00:00:00.000"])
def test_a_date_that_is_none_among_those_that_are(cell: bytes) -> None:
    with pytest.raises(ContractError, match=cell.decode()):
        read_times([b"2025-06-30 21:00:19.862", cell])


def test_how_far_it_is_and_how_long_the_rest_takes() -> None:
    progress = ReadProgress(1_000, began_s=100.0)
    assert progress.told(100.0) == {"percent": 0}
    progress.add(100)
    assert progress.told(100.5) == {"percent": 10}, "too early to say"
    assert progress.told(110.0) == {"percent": 10, "left_s": 90}
    progress.add(901)
    assert progress.told(120.0) == {"percent": 100, "left_s": 0}
    assert ReadProgress(0, began_s=100.0).told(200.0) == {"percent": 0}


def test_names_tell_markets() -> None:
    from ashi_ingest.venues.registry import VENUES

    told: dict[str, dict[str, str | None]] = {
        "binance": {
            "币安人生USDT-trades-2025-11-01 (1).zip": "币安人生USDT",
            "ETHUSDT-trades-2024-08.csv.gz": "ETHUSDT",
            "copy of ETHUSDT-trades-2024-08.csv": "ETHUSDT",
        },
        "binance-usdm": {"BTCUSDT_240628-trades-2024-05.zip": "BTCUSDT_240628", "BTCUSDT.csv": None},
        "gmo": {"20250701_BTC_JPY.csv.gz": "BTC_JPY", "20250701_BTC.csv.gz": "BTC", "BTC.csv": None},
        "bitflyer": {
            "bitflyer.execution.20170801.FX_BTC_JPY.csv.gz": "FX_BTC_JPY",
            "executions-ETH_BTC-2021.csv": "ETH_BTC",
            "executions.csv": None,
        },
    }
    for venue, names in told.items():
        file_format = VENUES[venue].trade_file
        assert file_format is not None
        assert {name: file_format.market_in(name) for name in names} == names


def test_the_recorded_trades_are_in_order_of_their_ids() -> None:
    assert all(first.sequence < second.sequence for first, second in pairwise(ETHUSDT))
