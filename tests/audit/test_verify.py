"""`ashi verify --trades`: against recordings without Kafka, and against the topics of a real one."""

from __future__ import annotations

import asyncio
import gzip
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from verifying import (
    ETH,
    SYMBOLS,
    as_json,
    change,
    expire,
    iso,
    live,
    publish,
    reached,
    recorded,
    some_trades,
    span,
    store,
)

from ashi.contracts.errors import StateError
from ashi.contracts.feed import FeedGap
from ashi.contracts.late_gaps import LATE_REASON, TAKEN_IN
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, TRADES
from ashi.contracts.trade import Trade
from ashi.runtime.kafka.cluster.log_identity import Fingerprint, Standing
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.kafka.consuming import records as reading
from ashi.runtime.settings import Settings
from ashi_aggregate import inspect as inspecting
from ashi_aggregate.core.codec import Marker, encode
from ashi_aggregate.inspect import durable_ends
from ashi_cli.main import main
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.format import Line, read_recording
from ashi_ingest.recording.own_lines import own_line, repaired_lines
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.venues.registry import VENUES
from ashi_sinks.worker import sink_group
from samples import published_files


def verify_recordings(url: str, *paths: Path, venue: str = "binance") -> int:
    recordings = [text for path in paths for text in ("--recording", f"{venue}={path}")]
    return main(["verify", url, "--trades", *recordings, "--json"])


def test_what_was_made_of_the_bundled_recordings_is_equal(tmp_path, capsys):
    trades = [trade for venue, paths in BUNDLED.items() for trade in recorded(venue, paths)]
    url = store(tmp_path, candles := live(trades))
    recordings = [text for venue, paths in BUNDLED.items() for p in paths for text in ("--recording", f"{venue}={p}")]
    assert main(["verify", url, "--trades", *recordings]) == 0
    assert f"{len(candles)} candles compared: 0 differ, 0 differ as explained" in capsys.readouterr().out


def test_files_as_the_venues_publish_them_are_the_same_candles(tmp_path, capsys):
    trades = {venue: recorded(venue, paths) for venue, paths in BUNDLED.items()}
    fx = [trade for trade in trades["bitflyer"] if trade.symbol == "bitflyer:FX_BTC_JPY"]
    published = {
        "binance": ("ETHUSDT-trades-2024-08.csv", published_files.spot(trades["binance"])),
        "bitflyer": ("FX_BTC_JPY.csv", published_files.BITFLYER_HEADER + published_files.bitflyer(fx)),
    }
    url = store(tmp_path, candles := live([*trades["binance"], *fx]))
    recordings = []
    for venue, (name, content) in published.items():
        (path := tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        recordings += ["--recording", f"{venue}={path}"]
    assert main(["verify", url, "--trades", *recordings]) == 0
    assert f"{len(candles)} candles compared: 0 differ, 0 differ as explained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("statement", "field", "stored"),
    [
        ("UPDATE candles SET volume = '1'", "volume", "1"),
        ("UPDATE candles SET last_trade_id = '7'", "last_trade_id", "7"),
        ("UPDATE candles SET trade_count = trade_count + 1", "trade_count", None),
        ("DELETE FROM candles", "candle", "-"),
    ],
)
def test_a_row_that_is_wrong_or_missing_is_named_and_the_status_is_1(tmp_path, capsys, statement, field, stored):
    paths = BUNDLED["binance"]
    candles = [candle for candle in live(recorded("binance", paths)) if candle.timeframe == "1m"]
    wrong = candles[3]
    url = store(tmp_path, live(recorded("binance", paths)))
    change(url, f"{statement} WHERE timeframe = '1m' AND open_time = {wrong.open_time}")
    assert verify_recordings(url, *paths) == 1
    (row,), summary = as_json(capsys.readouterr().out)
    assert (row["symbol"], row["timeframe"], row["open_time"], row["field"]) == (ETH, "1m", wrong.open_time, field)
    assert stored is None or row["stored"] == stored
    assert row["explained"] is False
    assert (summary["different"], summary["equal"]) == (1, False)


def test_the_table_says_when_what_and_why(tmp_path, capsys):
    paths = BUNDLED["binance"]
    url = store(tmp_path, candles := live(recorded("binance", paths)))
    wrong = [candle for candle in candles if candle.timeframe == "1m"][3]
    change(url, f"UPDATE candles SET trade_count = 1 WHERE timeframe = '1m' AND open_time = {wrong.open_time}")
    options = [word for path in paths for word in ("--recording", f"binance={path}")]
    assert main(["verify", url, "--trades", *options, "--symbol", ETH, "--timeframe", "60s"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["symbol", "timeframe", "open", "time", "(UTC)", "field", "stored", "recomputed", "why"]
    opened = datetime.fromtimestamp(wrong.open_time / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert lines[1].startswith(f"{ETH}  1m         {opened}  trade_count  1       {wrong.trade_count}")
    assert lines[1].endswith(f"it lacks {wrong.trade_count - 1} trades")


def test_a_recording_of_a_part_of_the_feed_explains_its_first_and_last_window(tmp_path, capsys):
    first, second = BUNDLED["binance"]
    url = store(tmp_path, live(recorded("binance", [first, second])))
    assert verify_recordings(url, second) == 0
    rows, summary = as_json(capsys.readouterr().out)
    assert {row["why"] for row in rows} == {"the recording begins in this window"}
    assert summary["explained"] > 0
    assert verify_recordings(url, first) == 0
    rows, _ = as_json(capsys.readouterr().out)
    assert {row["why"] for row in rows} <= {
        "the recording begins in this window",
        "the recording ends in this window",
    }


def test_trades_that_a_repair_got_are_in_no_recording_and_the_gap_explains_it(tmp_path, capsys):
    paths = BUNDLED["binance"]
    candles = live(recorded("binance", paths))
    wrong = [candle for candle in candles if candle.timeframe == "1m"][3]
    gap = FeedGap(ETH, wrong.open_time + 1, wrong.open_time + 5, "repaired", 3, "silent", wrong.close_time)
    url = store(tmp_path, candles, [gap])
    change(url, f"UPDATE candles SET volume = '1' WHERE timeframe = '1m' AND open_time = {wrong.open_time}")
    assert verify_recordings(url, *paths) == 0
    (row,), _ = as_json(capsys.readouterr().out)
    assert row["why"] == "the feed was interrupted, and what was missed then is in no recording"


def test_what_a_repair_got_is_in_a_recording_that_tells_of_it_and_a_repaired_gap_excuses_nothing(tmp_path, capsys):
    (path, _) = BUNDLED["binance"]
    trades = recorded("binance", [path])
    candles = live(trades)
    window = [candle for candle in candles if candle.timeframe == "1m"][3]
    again = cut_and_repaired(path, tmp_path, window.open_time + 5_000_000, window.close_time + 5_000_000)
    reader = RecordingReader("binance")
    assert [trade for line in read_recording(again) for trade in reader.read(line).trades] == trades
    repaired = FeedGap(ETH, window.open_time + 1, window.close_time, "repaired", 3, "cut", window.close_time)
    url = store(tmp_path, candles, [repaired])
    assert verify_recordings(url, again) == 0
    rows, _ = as_json(capsys.readouterr().out)
    assert {row["why"] for row in rows} <= {"the recording begins in this window", "the recording ends in this window"}
    change(url, f"UPDATE candles SET volume = '1' WHERE timeframe = '1m' AND open_time = {window.open_time}")
    assert verify_recordings(url, again) == 1
    wrong = [row for row in as_json(capsys.readouterr().out)[0] if not row["explained"]]
    assert [row["open_time"] for row in wrong] == [window.open_time]


@pytest.mark.parametrize(("state", "recovered"), [("lost", 3), ("repaired", 0), ("open", 3)])
def test_a_gap_whose_trades_may_be_in_no_recording_still_excuses(tmp_path, capsys, state, recovered):
    (path, _) = BUNDLED["binance"]
    candles = live(recorded("binance", [path]))
    window = [candle for candle in candles if candle.timeframe == "1m"][3]
    again = cut_and_repaired(path, tmp_path, window.open_time + 5_000_000, window.close_time + 5_000_000)
    gap = FeedGap(ETH, window.open_time + 1, window.close_time, state, recovered, "cut", window.close_time)
    url = store(tmp_path, candles, [gap])
    change(url, f"UPDATE candles SET volume = '1' WHERE timeframe = '1m' AND open_time = {window.open_time}")
    assert verify_recordings(url, again) == 0
    assert "the feed was interrupted, and what was missed then is in no recording" in capsys.readouterr().out


@pytest.mark.parametrize("reason", [f"{LATE_REASON}: `ashi rebuild`", TAKEN_IN])
def test_a_gap_of_trades_that_came_too_late_tells_nothing_of_what_was_received(tmp_path, capsys, reason):
    (path, _) = BUNDLED["binance"]
    candles = live(recorded("binance", [path]))
    window = [candle for candle in candles if candle.timeframe == "1m"][3]
    is_lost = reason != TAKEN_IN
    gap = FeedGap(
        ETH,
        window.open_time + 1,
        window.close_time,
        "lost" if is_lost else "repaired",
        0,
        reason,
        window.close_time,
        final=is_lost,
    )
    url = store(tmp_path, candles, [gap])
    change(url, f"UPDATE candles SET volume = '1' WHERE timeframe = '1m' AND open_time = {window.open_time}")
    assert verify_recordings(url, path) == 1
    wrong = [row for row in as_json(capsys.readouterr().out)[0] if not row["explained"]]
    assert [row["open_time"] for row in wrong] == [window.open_time]


def cut_and_repaired(path: Path, directory: Path, begin: int, end: int) -> Path:
    """A recording as if nothing had come in [begin, end), µs, and REST had brought it while ten more trades came."""
    before: list[tuple[int, bytes]] = []
    after: list[tuple[int, bytes]] = []
    missed: list[Trade] = []
    for line in read_recording(path):
        assert isinstance(line, Line)
        if begin <= line.received_at < end:
            missed += VENUES["binance"].parser().parse(line.frame, line.received_at).trades
        else:
            (after if missed else before).append((line.received_at, line.frame))
    (fetched,) = ((end, frame) for _, frame in repaired_lines(missed))
    waits, passes = (end, own_line("waits", ETH)), (end, own_line("passes", ETH))
    lines = [waits, passes, *before, waits, *after[:10], fetched, passes, *after[10:]]
    recording = directory / "again"
    recording.write_bytes(b"".join(b"%d000 %b\n" % line for line in lines))
    return recording


def test_when_all_windows_are_open_nothing_was_compared_and_the_status_is_2(tmp_path, capsys):
    path = BUNDLED["binance"][0]
    beginning = tmp_path / "beginning"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    beginning.write_bytes(b"".join(line for line in lines if int(line[:19]) < int(lines[0][:19]) + 30 * 10**9))
    url = store(tmp_path, [])
    assert verify_recordings(url, beginning) == 2
    out, err = capsys.readouterr()
    assert "nothing could be compared: 3 windows still open or not final" in err
    assert not out


@pytest.mark.parametrize(
    ("option", "wrong", "meant"), [("--symbol", "binance:ethusdt", ETH), ("--timeframe", "15m", "5m")]
)
def test_a_name_that_there_is_not_is_answered_with_what_was_meant(tmp_path, capsys, option, wrong, meant):
    paths = BUNDLED["binance"]
    url = store(tmp_path, live(recorded("binance", paths)))
    words = [word for path in paths for word in ("--recording", f"binance={path}")]
    assert main(["verify", url, "--trades", *words, option, wrong]) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err
    assert main(["verify", url, "--klines", "binance", option, wrong]) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_a_recording_that_is_cut_is_compared_as_far_as_it_goes(tmp_path, capsys):
    path = BUNDLED["binance"][0]
    url = store(tmp_path, live(recorded("binance", [path])))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(path.read_bytes()[:-2000])
    assert verify_recordings(url, cut) == 0
    _, summary = as_json(capsys.readouterr().out)
    assert any("cut off" in note for note in summary["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--klines", "x.csv", "--recording", "binance=x"], "--recording goes with --trades"),
        (["--trades", "--recording", "mtgox=x"], "there is no venue 'mtgox'"),
        (["--trades", "--recording", "binance=/nowhere.gz"], "there is no such file"),
        (["--trades", "--recording", f"binance={BUNDLED['binance'][0]}", "--timeframe", "2m"], "no candles of 2m"),
        (
            ["--trades", "--recording", f"binance={BUNDLED['binance'][0]}", "--symbol", "binance:X"],
            "there are no candles of binance:X in the store, and no trades of it",
        ),
        (["--trades", "--symbol", "ETHUSDT"], "'ETHUSDT' has no venue: write venue:MARKET"),
        (["--trades", "--from", "2024-08-09", "--to", "2024-08-08"], "--from must be before --to"),
        (["--klines", "binance", "--symbol", "binance:NOPE"], "there are no candles of binance:NOPE in the store"),
        (["--klines", "binance", "--symbol", "ETHUSDT"], "'ETHUSDT' has no venue: write venue:MARKET"),
    ],
)
def test_wrong_usage_says_what_is_wrong(tmp_path, capsys, arguments, message):
    url = store(tmp_path, live(recorded("binance", BUNDLED["binance"][:1])))
    assert main(["verify", url, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.kafka
def test_topics_explain_what_came_too_late_and_wrong_rows_are_found(kafka_settings, start_stage, ashi, tmp_path):
    url = f"sqlite:///{tmp_path}/candles.db"
    log = some_trades(8_000, seed=7)
    start_stage("aggregate")
    sink = start_stage("sink", "sqlite", ASHI_STORAGE=url)
    asyncio.run(publish(kafka_settings, log))
    asyncio.run(reached(kafka_settings, AGGREGATE_APP, TRADES))
    status, out, err = ashi("verify", url, "--trades", "--json")
    rows, summary = as_json(out)
    assert [row for row in rows if not row["explained"]] == [], err
    assert (status, summary["different"]) == (0, 0)
    assert summary["explained"] > 0
    assert all("came too late" in row["why"] for row in rows)
    of_one = [row for row in rows if row["symbol"] == SYMBOLS[5]]

    status, out, _ = ashi("verify", url, "--trades", "--json", "--symbol", SYMBOLS[5])
    assert as_json(out)[0] == of_one

    wrong = of_one[0]
    change(
        url,
        f"UPDATE candles SET high = '99999999' WHERE symbol = '{SYMBOLS[5]}' AND timeframe = '5m' "
        f"AND open_time <= {wrong['open_time']}",
    )
    status, out, _ = ashi("verify", url, "--trades", "--json", "--symbol", SYMBOLS[5], "--timeframe", "5m")
    assert status == 1
    found = [row for row in as_json(out)[0] if not row["explained"]]
    assert found
    assert {row["field"] for row in found} == {"high"}
    last = max(row["open_time"] for row in found)
    status, out, _ = ashi("verify", url, "--trades", "--symbol", SYMBOLS[5], "--from", iso(last + 1))
    assert status == 0, out

    # What the sink has not stored yet is said to be so.
    sink.signal(signal.SIGTERM)
    assert sink.process.wait(25) == 0
    begin = max(trade.traded_at for trade in log)
    asyncio.run(publish(kafka_settings, some_trades(2_000, seed=8, begin=begin)))
    asyncio.run(reached(kafka_settings, AGGREGATE_APP, TRADES))
    status, out, err = ashi("verify", url, "--trades", "--json", "--from", iso(last + 1))
    assert status == 1
    assert f"waiting for group {sink_group('sqlite')}, which has " in err
    assert any("still to store" in note for note in as_json(out)[1]["notes"])


@pytest.mark.kafka
def test_what_the_log_no_longer_has_is_not_compared(kafka_settings, start_stage, ashi, tmp_path):
    url = f"sqlite:///{tmp_path}/candles.db"
    start_stage("aggregate")
    start_stage("sink", "sqlite", ASHI_STORAGE=url)
    asyncio.run(publish(kafka_settings, some_trades(12_000, seed=9)))
    asyncio.run(reached(kafka_settings, AGGREGATE_APP, TRADES))
    asyncio.run(reached(kafka_settings, sink_group("sqlite"), CANDLES))
    status, out, _ = ashi("verify", url, "--trades", "--json")
    all_of_it = as_json(out)[1]
    assert (status, all_of_it["different"]) == (0, 0)

    asyncio.run(expire(kafka_settings, TRADES, 0.5))
    status, out, err = ashi("verify", url, "--trades", "--json")
    assert [row for row in as_json(out)[0] if not row["explained"]] == [], err
    assert status == 0
    assert 0 < as_json(out)[1]["compared"] < all_of_it["compared"]


@pytest.mark.kafka
def test_letters_of_an_earlier_epoch_with_a_shorter_horizon_are_no_reason_to_differ(
    kafka_settings,
    start_stage,
    ashi,
    tmp_path,
):
    url = f"sqlite:///{tmp_path}/candles.db"
    log = some_trades(6_000, seed=10)
    worker = start_stage("aggregate")
    asyncio.run(publish(kafka_settings, log))
    asyncio.run(reached(kafka_settings, AGGREGATE_APP, TRADES))
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(25) == 0
    longer = {"ASHI_CORRECTION_HORIZON": "7m"}
    done = start_stage("aggregate", "reconfigure", **longer)
    assert done.process.wait(40) == 0, done.log.read_text()
    # What the group has committed is still of the epoch before.
    status, _, err = ashi("verify", store(tmp_path, []), "--trades")
    assert (status, "made anything of topic trades durable in epoch 1" in err) == (2, True)
    start_stage("aggregate", **longer)
    start_stage("sink", "sqlite", ASHI_STORAGE=url)
    more = some_trades(500, seed=11, begin=max(trade.traded_at for trade in log))
    asyncio.run(publish(kafka_settings, more))
    asyncio.run(reached(kafka_settings, AGGREGATE_APP, TRADES))
    status, out, err = ashi("verify", url, "--trades", "--json")
    rows, summary = as_json(out)
    assert [row for row in rows if not row["explained"]] == [], err
    assert (status, summary["different"]) == (0, 0)
    assert any(row["explained"] for row in rows)


@pytest.mark.kafka
def test_without_workers_ever_there_is_nothing_to_compare(kafka_settings, ashi, tmp_path):
    status, _, err = ashi("verify", store(tmp_path, []), "--trades")
    assert status == 2
    assert "no aggregate worker has ever run" in err


def test_how_far_the_state_has_come_is_told_by_the_newest_marker_of_its_epoch(monkeypatch):
    def record(partition: int, key: bytes, marker: Marker | None) -> SimpleNamespace:
        return SimpleNamespace(partition=partition, key=key, value=None if marker is None else encode(marker))

    async def records(_: object, topic: str) -> AsyncIterator[SimpleNamespace]:
        assert topic == "ashi-aggregate-markers-changelog"
        yield record(0, b"0", Marker(900, epoch=1))
        yield record(1, b"1", Marker(700, epoch=1))
        yield record(0, b"0", Marker(50, epoch=2))
        yield record(0, b"0", Marker(40, epoch=2))  # of a worker that was declared dead
        yield record(2, b"2", Marker(-1, epoch=2))
        yield record(3, b"3", Marker(70, epoch=2))
        yield record(3, b"3", None)  # its rows are being made again

    monkeypatch.setattr(reading, "read_topic", records)
    monkeypatch.setattr(inspecting, "log_probe", lambda *_: nullcontext(StandingLog({0: Standing(0, 60, {})})))
    assert asyncio.run(durable_ends(Settings.from_environment({}), 2)) == {0: 51, 2: 0}


class StandingLog:
    """What stands in `trades`, as a probe sees it."""

    def __init__(self, standings: dict[int, Standing]) -> None:
        self.standings = standings

    async def identity(self) -> TopicIdentity:
        return TopicIdentity("an-id", {})

    async def standing(self, offsets: Mapping[int, Sequence[int]]) -> dict[int, Standing]:
        return {partition: self.standings[partition] for partition in offsets}


@pytest.mark.parametrize(
    ("standing", "found"),
    [
        (Standing(0, 60, {50: Fingerprint(50, 1_789, 7)}), None),
        (Standing(55, 60, {}), None),
        (Standing(0, 60, {50: Fingerprint(50, 1_789, 8)}), "and now holds one of 1789 ms"),
        (Standing(0, 40, {}), "and now the log ends at offset 40"),
    ],
    ids=["the-same", "expired", "made-anew-and-outgrown", "cut"],
)
def test_a_state_of_another_log_is_no_ground_to_compare_on(monkeypatch, standing, found):
    async def records(*_: object) -> AsyncIterator[SimpleNamespace]:
        marker = Marker(50, epoch=2, topic_id="an-id", records=[(50, 1_789, 7)])
        yield SimpleNamespace(partition=0, key=b"0", value=encode(marker))

    monkeypatch.setattr(reading, "read_topic", records)
    monkeypatch.setattr(inspecting, "log_probe", lambda *_: nullcontext(StandingLog({0: standing})))
    ends = durable_ends(Settings.from_environment({}), 2)
    if found is None:
        assert asyncio.run(ends) == {0: 51}
    else:
        with pytest.raises(StateError, match=f"trades/0 is not the log that its state has read: .*{found}"):
            asyncio.run(ends)


def test_a_store_that_is_not_there_and_a_kafka_out_of_reach_are_no_difference(tmp_path, capsys, monkeypatch):
    assert main(["verify", f"sqlite:///{tmp_path}/none.db", "--klines", "binance"]) == 2
    path = BUNDLED["binance"][0]
    assert verify_recordings(f"sqlite:///{tmp_path}/none.db", path) == 2
    monkeypatch.setenv("ASHI_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    capsys.readouterr()
    assert main(["verify", store(tmp_path, []), "--trades"]) == 2
    assert "cannot reach Kafka at 127.0.0.1:1" in capsys.readouterr().err


def test_frames_that_cannot_be_read_as_that_venue_are_counted_and_the_first_is_named(tmp_path, capsys):
    path = BUNDLED["binance"][0]
    url = store(tmp_path, live(recorded("binance", [path])))
    assert verify_recordings(url, path, venue="bitflyer") == 2
    assert f"{path} is not a recording of bitflyer but of binance" in capsys.readouterr().err
    spoiled = tmp_path / "spoiled"
    spoiled.write_bytes(gzip.decompress(path.read_bytes()) + b"1723161255343000000 {nothing}\nno time\n")
    assert verify_recordings(url, spoiled) == 0
    (note,) = as_json(capsys.readouterr().out)[1]["notes"]
    assert note.startswith(f"2 frames of {spoiled} cannot be read as binance, the first in line ")


def test_rows_are_sorted_and_say_the_reason_once_for_each_candle(tmp_path, capsys):
    paths = BUNDLED["binance"]
    url = store(tmp_path, live(recorded("binance", paths)))
    change(url, "UPDATE candles SET trade_count = 1, high = '1'")
    assert main(["verify", url, "--trades", *[f"--recording=binance={path}" for path in paths]]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert [line[1] for line in lines] == sorted([line[1] for line in lines], key=["1m", "5m", "1h"].index)
    of_minutes = [(line[2], line[3]) for line in lines if line[1] == "1m"]
    assert of_minutes == sorted(of_minutes)
    assert {line[4]: len(line) > 7 for line in lines} == {"high": True, "trade_count": False}


def test_one_of_a_thing_is_no_plural(tmp_path, capsys):
    path = BUNDLED["binance"][0]
    one = [candle for candle in live(recorded("binance", [path])) if candle.timeframe == "1m"][2]
    url = store(tmp_path, [one, msgspec.structs.replace(one, symbol="gmo:BTC_JPY")])
    options = ["--recording", f"binance={path}", "--timeframe", "1m", *span(one.open_time, one.close_time)]
    assert main(["verify", url, "--trades", *options]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("1 candle compared: 0 differ, 0 differ as explained\n")
    assert "note: 1 stored series has no whole window with trades to compare with: 1m of gmo:BTC_JPY" in printed.err
