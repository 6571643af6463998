"""`ashi history fetch`: killed and given again, its recordings hold what those of an uninterrupted fetch do."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace as altered

from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import DAY_US, Timeframe
from ashi.contracts.trade import Trade, encode_trade
from ashi_history.fetch import FileFetch, tell_outcome
from ashi_history.fetched_files import FetchedFiles
from ashi_history.folding import FoldRequest, fold_file
from ashi_history.holes import FileSpan, between_files
from ashi_history.reading import FileReader
from ashi_ingest.history.fetch import Short
from ashi_ingest.recording.check import check_recording
from ashi_ingest.recording.sequence import RecordingSequence
from ashi_ingest.venues.base import Missing, RepairEnd
from ashi_simulator import RULES, Simulator

SYMBOL = "gmo:BTC"
BEGIN_US = 1_700_000_000_000_000 // DAY_US * DAY_US
END_US = BEGIN_US + 3 * DAY_US
HOUR_US = DAY_US // 24


def at(hour: int) -> Trade:
    at_us = BEGIN_US + hour * HOUR_US
    return Trade(SYMBOL, f"t{hour}", Decimal(1), Decimal(1), "buy", at_us, at_us + 1, 0)


PAGES = [[at(hour) for hour in range(first, first + 7)] for first in range(0, 63, 7)]
TRADES = [trade for page in PAGES for trade in page]


def open_files(directory: Path, symbol: str = SYMBOL, to_us: int | None = END_US) -> FetchedFiles:
    return FetchedFiles(directory, symbol, BEGIN_US, to_us, newest_us=END_US, overlap=True)


def trades_in(path: Path, symbol: str = SYMBOL) -> list[Trade]:
    """As `ashi history load` reads them."""
    reader = FileReader(path, symbol)
    trades = [trade for batch in reader.batches() for trade in batch]
    assert not reader.notes
    return trades


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def spans(directory: Path, names: list[str]) -> list[FileSpan]:
    found = [trades_in(directory / name) for name in names]
    return [FileSpan(trades[0].traded_at, trades[-1].traded_at) for trades in found]


class KilledError(Exception):
    """Stands for the end of the process."""


def go_on(directory: Path) -> None:
    """Write what is missing of the pages, one after the other."""
    with open_files(directory) as files:
        last = files.state.last
        for page in PAGES:
            if new := [trade for trade in page if last is None or trade.traded_at > last.traded_at]:
                files.write(new)
        files.finish()


def test_killed_at_any_step_and_gone_on_with_the_files_hold_the_same_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on(tmp_path / "whole")
    wanted = contents(tmp_path / "whole")
    names = sorted(name for name in wanted if name.endswith(".gz"))
    assert len(names) == 3, "one for each day"
    read = [trades_in(tmp_path / "whole" / name) for name in names]
    assert [read[0], read[1][1:], read[2][1:]] == [TRADES[:24], TRADES[24:48], TRADES[48:]]
    assert not between_files(spans(tmp_path / "whole", names), 0), "no load takes a midnight for a gap"

    fsync, rename = os.fsync, Path.rename
    steps, last_step = 0, 10**6

    def count() -> None:
        nonlocal steps
        steps += 1
        if steps > last_step:
            raise KilledError

    def counted_fsync(file: int) -> None:
        count()
        fsync(file)

    def counted_rename(path: Path, target: Path) -> Path:
        count()
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", counted_fsync)
    monkeypatch.setattr(Path, "rename", counted_rename)
    go_on(tmp_path / "counted")
    all_steps = steps
    assert all_steps > 30
    for killed_after in range(all_steps):
        directory = tmp_path / str(killed_after)
        steps, last_step = 0, killed_after
        with pytest.raises(KilledError):
            go_on(directory)
        last_step = 10**6
        go_on(directory)
        # A page that was cut in two by midnight may be gone on with in another member of gzip.
        there = [trades_in(directory / name) for name in sorted(names)]
        assert there == read, killed_after
        assert sorted(contents(directory)) == sorted(wanted), killed_after


def test_a_directory_belongs_to_one_fetch_and_to_one_process(tmp_path: Path) -> None:
    with open_files(tmp_path) as files:
        files.write(PAGES[0])
        with pytest.raises(UsageError, match="another `ashi history fetch` writes"):
            open_files(tmp_path)
    with pytest.raises(UsageError, match="give the same times"):
        open_files(tmp_path, to_us=END_US - 1)
    with open_files(tmp_path, to_us=None) as files:
        assert files.state.trades == 7, "without --to it goes on as it was begun"
    part = tmp_path / files.names[0]
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(UsageError, match="put it back"):
        open_files(tmp_path)
    next(tmp_path.glob("*.json")).write_text("{")
    with pytest.raises(UsageError, match="into another directory"):
        open_files(tmp_path)


def fetch_by(plan: list[Any], files: FetchedFiles) -> tuple[str | None, list[str]]:
    """Fetch from a venue whose plan is this; what it has told."""

    def history(_market: str, since_us: int, _until_us: int | None) -> Any:
        for step in plan:
            if isinstance(step, RepairEnd):
                return step
            yield step if isinstance(step, Missing) else [each for each in step if each.traded_at >= since_us]
        raise AssertionError("a plan has an end")

    venue: Any = SimpleNamespace(history=history, limits=SimpleNamespace(disorder_s=0.0), ordered_ids=False)
    told: list[str] = []
    fetch = FileFetch(venue, "BTC", files, rest=SimpleNamespace(), tell=told.append)  # type: ignore[arg-type]
    reason = asyncio.run(fetch.run(patience_s=-1.0))
    tell_outcome(files, Path("there"), reason, told.append)
    return reason, told


def test_what_the_venue_does_not_give_is_told_and_a_load_takes_it_for_a_gap(tmp_path: Path) -> None:
    beyond, bad = Missing("it goes back a month", beyond_reach=True), Missing("a row is no trade")
    plan = [beyond, PAGES[1], bad, PAGES[3], PAGES[4], PAGES[5], RepairEnd("both", END_US)]
    with open_files(tmp_path) as files:
        reason, told = fetch_by(plan, files)
        assert reason is None
        assert files.state.is_whole
        assert files.state.shorts == [
            Short(BEGIN_US, at(7).traded_at, beyond.reason, final=False, beyond_reach=True),
            Short(at(13).traded_at, at(34).traded_at + 1, bad.reason, final=False, beyond_reach=False),
        ]
        assert "from 2023-11-14T00:00:00Z to 2023-11-14T07:00:00Z trades are missing: it goes back a month" in told[-3]
        assert "a row is no trade" in told[-2]
        assert "not all of it is there: 28 trades in 3 files" in told[-1]
        holes = between_files(spans(tmp_path, files.names), 0)
    assert [(hole.from_us, hole.to_us) for hole in holes] == [(at(13).traded_at, at(21).traded_at + 1)]
    request = FoldRequest(SYMBOL, Timeframe.parse("1m"), END_US, frozenset())
    unread = [list(fold_file(request, tmp_path / name).unread) for name in files.names]
    assert unread == [
        [(0, at(7).traded_at), (at(13).traded_at, None)],
        [(at(21).traded_at, at(23).traded_at)],
        [(at(23).traded_at, at(34).traded_at + 1)],
    ], "the row stood somewhere before that time, and a file begins with the last trade of the one before"


def test_a_plan_that_is_given_up_says_how_far_it_came_and_the_next_goes_on_there(tmp_path: Path) -> None:
    with open_files(tmp_path) as files:
        reason, told = fetch_by([PAGES[0], PAGES[1], RepairEnd("maintenance")], files)
        assert reason == "maintenance"
        assert "got up to 2023-11-14T13:00:00Z, and the rest not: maintenance" in told[-2]
    with open_files(tmp_path) as files:
        reason, told = fetch_by([*PAGES, RepairEnd(None, END_US)], files)
        assert reason is None
        assert "going on at 2023-11-14T13:00:00Z" in told[0]
        assert "all of it is there: 63 trades in 3 files" in told[-1]


# The command, at no pace, and as if the market had traded long ago, so that it takes no minute. It kills itself at the
# n-th write to the disk.
COMMAND = """
import os, signal, sys
from ashi_cli.main import main
from ashi_history import fetch
from ashi_ingest.history import fetch as plans
from ashi_ingest.rest import client
plans.REST_LAG_ALLOWANCE_US = 0
turns, client.RequestTurns, fetch.RECENT_US = client.RequestTurns, lambda *_, **__: turns(0.0, 0.0), 0
left, fsync = int(sys.argv.pop(1)), os.fsync
def killing(file):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)
os.fsync = killing
sys.exit(main())
"""


@pytest.mark.processes
@pytest.mark.parametrize(("venue", "market"), [("binance", "BTCUSDT"), ("gmo", "BTC_JPY")])
def test_the_command_is_killed_and_given_again(venue: str, market: str, tmp_path: Path) -> None:
    async def fetch(sim: Simulator, directory: Path, from_us: int, to_us: int, killed_at: int) -> int:
        times = [datetime.fromtimestamp(time_us / 1e6, UTC).isoformat() for time_us in (from_us, to_us)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", COMMAND, str(killed_at), "history", "fetch", venue, market),
            *("--from", times[0], "--to", times[1], "--into", str(directory)),
            env={**os.environ, "ASHI_REST_URL": sim.rest_url},
        )
        return await process.wait()

    async def run() -> list[Any]:
        rules = replace(RULES[venue], rest_weight=None)
        async with asyncio.timeout(120), Simulator(venue, [market], rate=6000.0, rules=rules) as sim:
            sim.start_market()
            while sim.trades < 5000:  # noqa: ASYNC110  (the market trades by itself)
                await asyncio.sleep(0.01)
            await sim.stop_market()
            truth = sim.truth(markets=[market])
            times = sorted(each.traded_at for each in truth)
            stretch = times[100] // 1000 * 1000, times[-500] // 1000 * 1000
            assert await fetch(sim, tmp_path / "killed", *stretch, killed_at=3) == -signal.SIGKILL
            assert await fetch(sim, tmp_path / "killed", *stretch, killed_at=4) == -signal.SIGKILL
            assert await fetch(sim, tmp_path / "killed", *stretch, killed_at=0) == 0
            assert await fetch(sim, tmp_path / "whole", *stretch, killed_at=0) == 0
            return [each for each in truth if stretch[0] <= each.traded_at < stretch[1]]

    truth = asyncio.run(run())
    killed, whole = sorted((tmp_path / "killed").glob("*.gz")), sorted((tmp_path / "whole").glob("*.gz"))
    for path in (*killed, *whole):
        check_recording(venue, path)
    replayed = [
        list(RecordingSequence([(venue, path) for path in paths]).trades(pytest.fail)) for paths in (killed, whole)
    ]
    lines = [[encode_trade(altered(trade, received_at=0)) for _, trade in trades] for trades in replayed]
    assert lines[0] == lines[1]
    assert [(trade.trade_id, trade.price, trade.size, trade.side, trade.traded_at) for _, trade in replayed[0]] == [
        (each.trade_id, each.price, each.size, each.side, each.traded_at) for each in truth
    ]
