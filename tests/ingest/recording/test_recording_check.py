"""What is taken for a recording, or for one of this venue, and is not: each kind is told, and what to do."""

from __future__ import annotations

import gzip
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import RecordingError, UsageError
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.check import UNREADABLE_LINES, check_recording
from ashi_ingest.recording.format import read_recording
from ashi_ingest.recording.own_lines import repaired_lines
from ashi_ingest.recording.reader import RecordingReader

if TYPE_CHECKING:
    from pathlib import Path

NS = 1_723_161_254_340_863_867


def event(kind: str = "trade", **fields: Any) -> dict[str, Any]:
    common = {"e": kind, "s": "ETHUSDT", "t": 7, "p": "1.5", "q": "2", "T": NS // 10**6, "m": False}
    return common | fields


def on_stream(data: dict[str, Any], stream: str = "ethusdt@trade") -> dict[str, Any]:
    return {"stream": stream, "data": data}


def lines(*frames: dict[str, Any] | bytes) -> bytes:
    written = [frame if isinstance(frame, bytes) else json.dumps(frame).encode() for frame in frames]
    return b"".join(b"%d %b\n" % (NS + number, frame) for number, frame in enumerate(written))


GOOD = lines(on_stream(event()), on_stream(event(t=8)))
BOOK = on_stream({"e": "depthUpdate"}, "ethusdt@depth")
SUM = on_stream(event("aggTrade", a=7, M=True), "ethusdt@aggTrade")


def write(directory: Path, content: bytes, *, packed: bool = False) -> Path:
    path = directory / "recording"
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def refusal(path: Path, venue: str = "binance") -> str:
    with pytest.raises(UsageError) as raised:
        check_recording(venue, path)
    assert str(path) in str(raised.value)
    return str(raised.value)


def trades(path: Path) -> list[str]:
    reader = RecordingReader("binance")
    return [trade.trade_id for line in read_recording(path) for trade in reader.read(line).trades]


@pytest.mark.parametrize("venue", sorted(BUNDLED))
def test_the_recordings_that_come_with_ashi_are_in_order(venue: str) -> None:
    for path in BUNDLED[venue]:
        check_recording(venue, path)


@pytest.mark.parametrize("packed", [False, True])
def test_windows_line_ends_lose_no_line(tmp_path: Path, packed: bool) -> None:
    path = write(tmp_path, GOOD.replace(b"\n", b"\r\n"), packed=packed)
    check_recording("binance", path)
    assert trades(path) == ["7", "8"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbf" + GOOD, "byte order mark"),
        (GOOD.decode().encode("utf-16"), "byte order mark"),
        (b"", "is empty"),
        (b"\r\n", "is empty"),
    ],
)
def test_what_stands_at_the_beginning_is_told_and_where(
    tmp_path: Path, content: bytes, said: str, packed: bool
) -> None:
    assert said in refusal(write(tmp_path, content, packed=packed))


@pytest.mark.processes
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_converted_by_the_command_that_is_shown(tmp_path: Path, encoding: str, packed: bool) -> None:
    content = GOOD.decode().encode(encoding)
    command = refusal(write(tmp_path, content, packed=packed)).split("`")[1].split()
    converted = tmp_path / "converted"
    converted.write_bytes(subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout)
    assert trades(converted) == ["7", "8"]


def test_a_directory_is_refused_and_what_it_holds_is_named_as_what_to_give(tmp_path: Path) -> None:
    assert f"name the recordings in it, such as {tmp_path}/*.gz" in refusal(tmp_path)


def test_a_recording_of_aggregated_trades_only_is_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, lines(BOOK, SUM, SUM)))
    assert "has no trades: in line 2 stands an aggTrade" in message
    assert "record the streams <market>@trade" in message
    assert "aggTrade" in refusal(write(tmp_path, lines(event("aggTrade"))))
    check_recording("binance", write(tmp_path, lines(BOOK, SUM, on_stream(event()))))


def test_a_recording_without_any_trade_or_sum_is_one_of_a_quiet_market(tmp_path: Path) -> None:
    check_recording("binance", write(tmp_path, lines(BOOK, {"result": None, "id": 1})))


@pytest.mark.parametrize("stream", ["ETHUSDT@TRADE", "ETHUSDT@trade", "ethusdt@Trade"])
def test_a_stream_in_another_case_is_one_of_trades(tmp_path: Path, stream: str) -> None:
    path = write(tmp_path, lines(on_stream(event(), stream)))
    check_recording("binance", path)
    assert trades(path) == ["7"]


def test_markets_in_lower_case_are_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, lines(BOOK, on_stream(event(s="ethusdt")))))
    assert "line 2: market 'ethusdt' is in lower case, and Binance spot sends 'ETHUSDT'" in message
    check_recording("binance", write(tmp_path, lines(on_stream(event(s="ßUSDT")))))


@pytest.mark.parametrize(
    ("venue", "other", "key"), [("binance", "binance-usdm", "X"), ("binance-usdm", "binance", "M")]
)
def test_spot_and_futures_are_not_taken_for_each_other(tmp_path: Path, venue: str, other: str, key: str) -> None:
    traded = event() | {key: "MARKET" if key == "X" else True}
    for frame in (traded, on_stream(traded)):
        path = write(tmp_path, lines(BOOK, frame))
        said = f"in line 2 stands a trade with the key {key}, which only {other} has: name that venue"
        assert said in refusal(path, venue)
        check_recording(other, path)
    check_recording(venue, write(tmp_path, lines(event(X="MARKET", M=True))))  # then the keys tell nothing
    check_recording(venue, write(tmp_path, GOOD))  # older recordings have neither key


def test_a_recording_of_another_venue_is_refused_and_the_venue_named(tmp_path: Path) -> None:
    assert "but of bitflyer: name that venue" in refusal(BUNDLED["bitflyer"][0], "gmo")
    assert "but of bitflyer: name that venue" in refusal(BUNDLED["bitflyer"][0], "binance"), "it has keys of Binance's"
    assert "but of binance or binance-usdm" in refusal(BUNDLED["binance"][0], "bitflyer")
    bitflyer = RecordingReader("bitflyer")
    given = [trade for line in read_recording(BUNDLED["bitflyer"][0]) for trade in bitflyer.read(line).trades]
    own = write(tmp_path, lines(*(line for _, line in repaired_lines(given))))
    assert "but of bitflyer: name that venue" in refusal(own, "gmo")
    check_recording("bitflyer", own)


def test_a_few_lines_that_cannot_be_read_are_dead_letters_and_no_reason_to_refuse(tmp_path: Path) -> None:
    garbage = [b'{"what":1}'] * (UNREADABLE_LINES - 1)
    check_recording("binance", write(tmp_path, lines(*garbage) + GOOD))


def test_a_cut_recording_without_a_trade_before_the_cut_is_left_to_who_reads_on(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(lines(*[BOOK] * 5000))[:-50])
    check_recording("binance", path)
    with pytest.raises(RecordingError, match=r"cut\.gz: the compressed data after line [0-9]+ is cut off"):
        list(read_recording(path))
