"""Replays against the real broker."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zipfile
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import BrokerError, UsageError
from ashi.contracts.trade import Trade, decode_trade
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.format import Line, read_recording
from ashi_ingest.recording.replay import EXIT_PARTIAL, ReplayResult, replay, run_replay
from ashi_ingest.venues.registry import VENUES
from samples.published_files import SPOT_HEADER, as_of_file, recorded, spot

if TYPE_CHECKING:
    from pathlib import Path


def topic(settings: Settings, name: str) -> list[Any]:
    async def read() -> list[Any]:
        return [record async for record in read_topic(settings, name)]

    return asyncio.run(read())


def expected_trades(venue: str, *paths: Path) -> dict[str, list[Trade]]:
    """By symbol, in the recording's order."""
    by_symbol = defaultdict(list)
    for path in paths:
        for line in read_recording(path):
            assert isinstance(line, Line)
            for trade in VENUES[venue].parser().parse(line.frame, line.received_at).trades:
                by_symbol[trade.symbol].append(trade)
    return by_symbol


def published_trades(settings: Settings) -> dict[str, list[Trade]]:
    by_symbol = defaultdict(list)
    for record in topic(settings, "trades"):
        trade = decode_trade(record.value)
        assert record.key == trade.symbol.encode()
        assert record.partition == partition_of(record.key, settings.partitions)
        assert dict(record.headers) == {"content-type": b"application/json", "schema": b"ashi.trade.v1"}
        by_symbol[trade.symbol].append(trade)
    return by_symbol


def lines(venue: str, count: int) -> list[bytes]:
    return gzip.decompress(BUNDLED[venue][0].read_bytes()).splitlines()[:count]


@pytest.mark.kafka
def test_every_bundled_recording_is_published_once_and_in_order(kafka_settings: Settings, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    for venue, frames, trades in (("bitflyer", 72, 162), ("binance", 14_515, 14_515)):
        assert run_replay(kafka_settings, venue, BUNDLED[venue], summary=summary) == 0
        written = json.loads(summary.read_text())
        assert written.pop("seconds") > 0
        assert written == {
            "frames": frames,
            "skipped": 0,
            "trades_published": trades,
            "trades_dead": 0,
            "partial": None,
        }
    expected = expected_trades("bitflyer", *BUNDLED["bitflyer"]) | expected_trades("binance", *BUNDLED["binance"])
    assert published_trades(kafka_settings) == expected
    assert topic(kafka_settings, "trades.dead") == []


@pytest.mark.kafka
def test_what_cannot_be_read_is_a_dead_letter_and_the_rest_goes_through(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    good = lines("binance", 4)
    bad = {
        2: good[0].replace(b'"2683.80000000"', b'"NaN"').split(b" ", 1)[1],
        3: b"garbage",
        4: b"1723161254 {}",
        5: b"\xff" * 2_000_000,
    }
    content = [good[0], *(b"1723161254340863867 " + value if number != 4 else value for number, value in bad.items())]
    path = tmp_path / "mixed.txt"
    path.write_bytes(b"\n".join([*content, *good[1:], b'1723161254340863867 {"result":null,"id":1}']))
    progress: list[ReplayResult] = []
    result = asyncio.run(replay(kafka_settings, "binance", [path], on_progress=progress.append))
    assert result == ReplayResult(frames=9, skipped=1, trades_published=4, trades_dead=4, partial=None)
    assert progress[-1] == result
    assert [len(trades) for trades in published_trades(kafka_settings).values()] == [4]
    letters = {
        int(dict(record.headers)["ashi.source"].rsplit(b":", 1)[1]): record
        for record in topic(kafka_settings, "trades.dead")
    }
    assert set(letters) == set(bad)
    for number, record in letters.items():
        headers = dict(record.headers)
        assert headers["ashi.source"] == f"recording:{path}:{number}".encode()
        assert bad[number].startswith(record.value)
        assert len(record.value) == len(bad[number]) or headers["ashi.full_length"] == b"2000000"
        assert record.key == (b"binance:ETHUSDT" if number == 2 else b"binance")
    reasons = [dict(letters[number].headers)["ashi.reason"] for number in sorted(bad)]
    for reason, said in zip(reasons, (b"price p 'NaN'", b"not valid JSON", b"seconds", b"UTF-8"), strict=True):
        assert said in reason


@pytest.mark.kafka
def test_files_of_trades_follow_recordings_and_their_bad_rows_are_dead_letters(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    first, second = (recorded("binance", path) for path in BUNDLED["binance"])
    rows = spot(second).splitlines()
    rows[4_000] = b"garbage"
    path = tmp_path / "ETHUSDT-trades-2024-08.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ETHUSDT-trades-2024-08.csv", SPOT_HEADER + b"\n".join(rows))
    read: list[int] = []
    result = asyncio.run(replay(kafka_settings, "binance", [BUNDLED["binance"][0], path], on_read=read.append))
    count = len(first) + len(second)
    assert result == ReplayResult(frames=count, skipped=0, trades_published=count - 1, trades_dead=1, partial=None)
    assert sum(read) == pytest.approx(sum(each.stat().st_size for each in (BUNDLED["binance"][0], path)), rel=0.01)
    del second[4_000]
    assert published_trades(kafka_settings) == {"binance:ETHUSDT": first + as_of_file(second)}
    (letter,) = topic(kafka_settings, "trades.dead")
    assert letter.value == b"garbage"
    assert letter.key == b"binance:ETHUSDT"
    headers = dict(letter.headers)
    assert headers["ashi.source"] == f"recording:{path}!ETHUSDT-trades-2024-08.csv:4002".encode()
    assert b"the row has 1 columns" in headers["ashi.reason"]


@pytest.mark.kafka
def test_a_truncated_gz_is_published_up_to_there_and_the_next_file_follows(
    kafka_settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = BUNDLED["binance"]
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(first.read_bytes()[:40_000])
    summary = tmp_path / "summary.json"
    assert run_replay(kafka_settings, "binance", [cut, second], summary=summary) == EXIT_PARTIAL
    written = json.loads(summary.read_text())
    assert "cut.txt.gz: the compressed data after line" in written["partial"]
    assert "cut.txt.gz: the compressed data after line" in capfd.readouterr().err
    read = written["trades_published"] - 8_409
    assert 1_000 < read < 6_106
    assert written["trades_dead"] == 1, "the line that was cut"
    (found,) = published_trades(kafka_settings).values()
    (whole,) = expected_trades("binance", first, second).values()
    assert found == whole[:read] + whole[6_106:]


@pytest.mark.kafka
def test_a_stopped_replay_confirms_what_it_has_published_and_says_where_it_stopped(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    async def main() -> ReplayResult:
        stopping = asyncio.Event()

        def on_progress(result: ReplayResult) -> None:
            if result.frames >= 2_000:
                stopping.set()

        return await replay(kafka_settings, "binance", BUNDLED["binance"], stopping=stopping, on_progress=on_progress)

    result = asyncio.run(main())
    read = result.frames
    assert 2_000 <= result.trades_published == read < 6_000
    assert result.partial is not None
    assert result.partial.endswith(f"stopped by a signal before line {read + 1}; not begun: {BUNDLED['binance'][1]}")
    assert sum(map(len, published_trades(kafka_settings).values())) == read


def test_a_broker_that_is_not_there_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        settings = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": f"127.0.0.1:{free.getsockname()[1]}"})
        assert run_replay(settings, "bitflyer", BUNDLED["bitflyer"]) == BrokerError.exit_status
    assert "cannot reach Kafka at" in capfd.readouterr().err


def test_wrong_usage_is_told_before_anything_starts(tmp_path: Path) -> None:
    settings = Settings.from_environment({})
    with pytest.raises(UsageError, match="write one of bitflyer, gmo, binance, binance-usdm"):
        run_replay(settings, "binanc", BUNDLED["binance"])
    with pytest.raises(UsageError, match="no recording is given"):
        run_replay(settings, "binance", [])
    with pytest.raises(UsageError, match="there is no such file"):
        run_replay(settings, "binance", [*BUNDLED["binance"], tmp_path / "missing.gz"])
