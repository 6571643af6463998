"""What an export writes, and what an import makes of it beside what the topic has: no trade twice, no hole untold."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from socket import gethostname

import pytest
from exported_trades import BEGIN, DAY_US, END, SYMBOL, some_trades
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ashi.contracts.errors import RecordingError, StateError, UsageError
from ashi.contracts.feed import FeedGap
from ashi.contracts.late_gaps import LATE_REASON, TAKEN_IN
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import EARLIEST_US, Trade
from ashi.runtime.settings import Settings
from ashi_history import export as exporting
from ashi_history.export import ExportOptions, run_export
from ashi_history.export_sources import BEFORE, CELL_US, UNCHECKED, Cells, place_of, shorts_of
from ashi_history.exported import Export, exports_in
from ashi_history.fetched_files import EXPORT, FetchedFiles
from ashi_history.folding import FoldRequest, fold_file
from ashi_history.importing import NOT_EXPORTED, Continuation, ImportOptions, gaps_of, run_import, sole
from ashi_history.scratch import PREFIX, ScratchDirectory
from ashi_history.telling import Told
from ashi_ingest.history.fetch import Short
from ashi_sinks.lake.location import lake_of
from ashi_sinks.lake.tables import StoredTrade
from ashi_sinks.lake.trades import LakeTrades

TRADES = some_trades()
SEEN = END + DAY_US


def gap(begin: int, end: int | None, state: str = "lost", **fields: object) -> FeedGap:
    return FeedGap(SYMBOL, begin, end, state, 0, "mute", BEGIN, **fields)  # type: ignore[arg-type]


def test_what_a_source_lacks_is_rather_too_much() -> None:
    def found(*gaps: FeedGap, whole_from: int = 0, complete_until: int | None = None) -> list[tuple[int, int, str]]:
        shorts = shorts_of(BEGIN, END, whole_from=whole_from, gaps=gaps, complete_until=complete_until, seen_us=SEEN)
        return [(short.from_us - BEGIN, short.to_us - BEGIN, short.reason) for short in shorts]

    span = END - BEGIN
    assert not found()
    assert not found(gap(EARLIEST_US, BEGIN), gap(END, None, "open"), complete_until=END)
    assert found(gap(EARLIEST_US, BEGIN + 5)) == [(0, 5, "mute")]
    assert found(gap(BEGIN + 7, None, "open")) == [(7, span, "mute")]
    assert found(gap(BEGIN + 7, BEGIN + 7)) == [(7, 8, "mute")], "between two trades of one microsecond"
    assert not found(gap(BEGIN + 7, BEGIN + 9, "repaired"))
    late = replace(gap(BEGIN + 7, BEGIN + 9, "repaired"), updated_at=SEEN - 1)
    assert found(late) == [(7, 9, "mute")], "repaired by trades that were not read any more"
    too_late = replace(gap(BEGIN + 7, BEGIN + 9, final=True), reason=f"{LATE_REASON}: run ashi rebuild")
    taken_in = replace(late, reason=TAKEN_IN)
    assert not found(too_late, taken_in), "the trades are there"
    assert found(whole_from=BEGIN + 3) == [(0, 3, BEFORE)]
    assert found(complete_until=END - 4) == [(span - 4, span, UNCHECKED)]
    assert found(complete_until=0) == [(0, span, UNCHECKED)]


def test_each_trade_is_read_back_once_and_in_order(tmp_path: Path) -> None:
    cells = Cells(str(tmp_path))
    border = BEGIN + 3 * CELL_US
    early, late = (
        replace(TRADES[0], trade_id="e", traded_at=at, received_at=border + 99) for at in (border - 9, border + 9)
    )
    late_first, then_early = replace(late, trade_id="l"), replace(early, trade_id="l")
    stamped = [early, late, late_first, then_early]
    log = [*TRADES[:100], *TRADES[150:300], *TRADES[100:150], *TRADES[290:], *stamped, TRADES[5]]
    others = some_trades("gmo:ETH", 10)
    for place in range(0, len(log), 37):
        cells.put([*log[place : place + 37], *others[place // 37 : place // 37 + 1]])
    assert cells.symbols == [SYMBOL, "gmo:ETH"]
    assert [trade for cell in cells.of(SYMBOL) for trade in cell] == sorted([*TRADES, early, late_first], key=place_of)
    assert [trade for cell in cells.of("gmo:ETH") for trade in cell] == others


def written(directory: Path, shorts: list[Short] | None = None, trades: list[Trade] = TRADES) -> None:
    with FetchedFiles(directory, SYMBOL, BEGIN, END, newest_us=END, overlap=True, command=EXPORT) as files:
        files.note_shorts(shorts or [])
        files.write(trades)
        files.finish()


def test_what_is_not_as_it_was_exported_is_not_imported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing that `ashi history export` has written"):
        exports_in(tmp_path, [])
    shorts = [Short(BEGIN, BEGIN + 9, BEFORE, False, False), Short(END - 9, END, "mute", True, False)]
    written(tmp_path, shorts)
    [export] = exports_in(tmp_path, [])
    assert (export.symbol, export.since_us, export.shorts) == (SYMBOL, BEGIN + 9, shorts[1:])
    read: list[int] = []
    assert list(export.trades(read.append)) == TRADES
    assert sum(read) == export.size
    with pytest.raises(UsageError, match="has no export of gmo:BTX; did you mean gmo:BTC"):
        exports_in(tmp_path, ["gmo:BTX"])

    second = export.files[1]
    whole = second.read_bytes()
    second.write_bytes(whole[:-30])
    with pytest.raises(RecordingError, match="put back what was exported"):
        list(export.trades())
    second.write_bytes(export.files[0].read_bytes())
    with pytest.raises(RecordingError, match="have 401 trades of gmo:BTC, and 600 were exported"):
        list(export.trades())
    second.unlink()
    with pytest.raises(UsageError, match=f"lacks 1 of the files of gmo:BTC, first {second.name}"):
        exports_in(tmp_path, [])

    with FetchedFiles(tmp_path / "broken", SYMBOL, BEGIN, END, newest_us=END, overlap=True, command=EXPORT) as files:
        files.write(TRADES[:5])
    with pytest.raises(UsageError, match="was broken off"):
        exports_in(tmp_path / "broken", [])
    with pytest.raises(UsageError, match=r"has the export of gmo:BTC .* give the same times"):
        FetchedFiles(tmp_path / "broken", SYMBOL, BEGIN, END, newest_us=END, overlap=True)


class _InMemory(Export):
    """An export without files."""

    __slots__ = ()

    def trades(self, on_read=lambda _: None):  # type: ignore[no-untyped-def]
        return iter(TRADES[:20])


@given(
    there=st.integers(0, 20),
    again=st.lists(st.integers(0, 19), max_size=5),
    before=st.integers(0, 3),
    others=st.lists(st.integers(0, 25), max_size=3),
)
def test_what_the_topic_has_not_is_published_unless_it_would_be_late(
    there: int, again: list[int], before: int, others: list[int]
) -> None:
    """The topic: some trades from before, the first ones of the export, copies of these, and what others brought."""
    continued = Continuation(_InMemory(SYMBOL, [], 20, BEGIN, []))
    older = [replace(TRADES[0], traded_at=BEGIN - 1 - number, trade_id=f"o{number}") for number in range(before)]
    foreign = [replace(TRADES[number], trade_id=f"f{number}", sequence=9) for number in others]
    copies = [TRADES[number] for number in again if number < there]
    for trade in [*older, *TRADES[:there], *copies, *foreign]:
        continued.take(trade)
    left = TRADES[there:20]
    # Two trades are of one time here.
    if left and any(number // 2 >= there // 2 for number in others):
        with pytest.raises(StateError, match="it would be late"):
            continued.check("trades")
        return
    continued.check("trades")
    assert continued.there == there
    assert list(continued.rest()) == left


def test_what_is_lacking_is_told_once() -> None:
    export = Export(SYMBOL, [], 600, BEGIN + 9, [Short(END - 9, END, "mute", True, False)])
    first, last = gaps_of(export, None, {}, SEEN)
    assert first == FeedGap(SYMBOL, EARLIEST_US, BEGIN + 9, "lost", 0, NOT_EXPORTED, SEEN)
    assert last == FeedGap(SYMBOL, END - 9, END, "lost", 0, "mute", SEEN, final=True)
    repaired = replace(first, state="repaired", updated_at=SEEN + 5)
    known = {(SYMBOL, EARLIEST_US): repaired}
    assert list(gaps_of(export, None, known, SEEN)) == [last], "also if it is repaired by now"
    shorter = {(SYMBOL, END - 9): replace(last, to_time=END - 3, updated_at=SEEN + 5)}
    longer = replace(last, updated_at=SEEN + 6)
    assert list(gaps_of(export, None, known | shorter, SEEN)) == [longer], "it had no end yet in an export before"
    endless = {(SYMBOL, END - 9): replace(last, to_time=None)}
    assert list(gaps_of(export, None, known | endless, SEEN)) == []
    assert next(iter(gaps_of(export, BEGIN - 5, {}, SEEN))).from_time == BEGIN - 5, "a second export after a first"
    whole = Export(SYMBOL, [], 600, None, [])
    assert not list(gaps_of(whole, None, {}, SEEN))


def test_out_of_a_lake_killed_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"lake:///{tmp_path}/lake"
    log = [*TRADES[:100], *TRADES[150:300], *TRADES[100:150], *TRADES[290:], TRADES[5]]

    async def keep(rows: list[StoredTrade]) -> None:
        table = LakeTrades(lake_of(url))
        await table.open_or_make()
        await table.write(rows)
        await table.close()

    asyncio.run(keep([StoredTrade(0, offset, trade) for offset, trade in enumerate(log)]))
    monkeypatch.setattr(exporting, "WRITTEN_AT_ONCE", 100)
    monkeypatch.setattr("ashi_sinks.lake.trades.TRADES_AT_ONCE", 100)
    settings = Settings.from_environment({})
    told: list[str] = []

    def export(directory: Path, *symbols: str, from_us: int | None = BEGIN) -> None:
        run_export(settings, ExportOptions(directory, symbols, from_us, END, url), told.append)

    export(tmp_path / "whole", SYMBOL)
    [whole] = exports_in(tmp_path / "whole", [])
    assert list(whole.trades()) == TRADES
    assert whole.since_us == BEGIN
    assert [(short.from_us, short.to_us) for short in whole.shorts] == [(TRADES[-1].traded_at + 1, END)]
    assert "gmo:BTC: 600 trades in 3 files" in told[-1]
    assert any("keeps no candles and no gaps" in line for line in told)

    append = FetchedFiles._append
    left = 0

    def killing(files: FetchedFiles, trades: list[Trade]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        append(files, trades)

    monkeypatch.setattr(FetchedFiles, "_append", killing)
    for survived in (3, 2):
        left = survived
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path / "killed")
    left = 10**6
    export(tmp_path / "killed")
    [killed] = exports_in(tmp_path / "killed", [])
    assert list(killed.trades()) == TRADES
    assert [path.name for path in killed.files] == [path.name for path in whole.files]
    request = FoldRequest(SYMBOL, Timeframe.parse("1m"), 2**62, frozenset())
    for ours, theirs in zip(killed.files, whole.files, strict=True):
        assert fold_file(request, ours).parts == fold_file(request, theirs).parts, "as `ashi history load` reads them"

    left = 2
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "late", SYMBOL)
    left = 10**6
    late = replace(TRADES[3], trade_id="late")
    asyncio.run(keep([StoredTrade(0, len(log), late)]))
    with pytest.raises(StateError, match="some have come late"):
        export(tmp_path / "late", SYMBOL)
    export(tmp_path / "killed", SYMBOL)  # was whole: nothing is looked at again
    with pytest.raises(UsageError, match="give the same times"):
        export(tmp_path / "killed", SYMBOL, from_us=BEGIN + 1)
    with pytest.raises(UsageError, match=r"no trades of gmo:BTX of that time in the lake .*did you mean gmo:BTC"):
        export(tmp_path / "none", "gmo:BTX")


def test_what_cannot_be_exported_is_said_before_anything_begins(tmp_path: Path) -> None:
    settings = Settings.from_environment({})

    def refused(*symbols: str, begin: int | None = None, end: int | None = None) -> str:
        with pytest.raises(UsageError) as error:
            run_export(settings, ExportOptions(tmp_path, symbols, begin, end), print)
        return str(error.value)

    assert "no venue 'mtgox'" in refused("mtgox:BTC")
    assert "--from must be before --to" in refused(begin=END, end=END)
    assert "is not a minute ago yet" in refused(end=2**53 - 1)


def test_what_a_killed_export_has_left_is_removed_and_what_another_one_uses_is_not(tmp_path: Path) -> None:
    left, in_use = tmp_path / f"{PREFIX}{gethostname()}@left", ScratchDirectory(tmp_path)
    left.mkdir()
    (left / "0-1").write_bytes(b"trades")
    ours = ScratchDirectory(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([in_use.path, ours.path])
    for each in (in_use, ours):
        each.remove()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Name another directory"):
        ScratchDirectory(tmp_path / "file")


def test_what_an_export_on_another_host_uses_is_not_removed_as_its_lock_may_not_be_seen(tmp_path: Path) -> None:
    in_use, left = tmp_path / f"{PREFIX}{gethostname()}-2@in_use", tmp_path / f"{PREFIX}other@left"
    for each in (in_use, left):
        each.mkdir()
    os.utime(left, (0, 0))
    ours = ScratchDirectory(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([in_use, ours.path])
    ours.remove()


def test_of_two_imports_at_once_one_is_refused(tmp_path: Path) -> None:
    settings = Settings.from_environment({})
    with sole(tmp_path), pytest.raises(UsageError, match="another `ashi history import` or `export`"):
        run_import(settings, ImportOptions(tmp_path), print)
    with pytest.raises(UsageError, match="has nothing that `ashi history export` has written"):
        run_import(settings, ImportOptions(tmp_path), print)
    with pytest.raises(UsageError, match="No such file"):
        run_import(settings, ImportOptions(tmp_path / "nowhere"), print)


def test_how_far_it_is_and_how_long_it_takes() -> None:
    now_s = 0.0
    told: list[str] = []
    work = Told("reading", 200, told.append, monotonic_s=lambda: now_s)
    work.add(10)
    now_s = 10.0
    work.add(40)
    now_s = 11.0
    work.add(50)
    assert told == ["reading: 25 %, 30 s are left"]
