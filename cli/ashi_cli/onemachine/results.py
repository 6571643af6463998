"""What a run of the stack came to: read from Kafka and the store, and told to whoever started it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import aclosing
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ashi.contracts.topics import TRADES_DEAD, TRADES_LATE
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.dead_letters import trade_place
from ashi.runtime.settings.parsers import redact_url
from ashi_aggregate.inspect import open_candles
from ashi_cli.printing.tables import show_candles
from ashi_sinks.registry import open_reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ashi.contracts.candle import Candle
    from ashi.runtime.settings import Settings
    from ashi_cli.onemachine.chart import Chart

REASONS_SHOWN: Final = 5
REASONS_READ: Final = 1_000
ROWS_SHOWN: Final = 40
LEAST_ROWS: Final = 3
SERIES_SHOWN: Final = 24
_QUERY: Final = "SELECT * FROM candles"


class Summary(msgspec.Struct, frozen=True):
    """The last line of `ashi demo --json`.

    Attributes:
        trades_published: trades that Kafka has acknowledged.
        trades_dead: records in `trades.dead`.
        trades_late: trades in `trades.late`, each counted once.
        candles_stored: rows in the store.
        candles_open: candles whose windows no trade has closed; they are in no topic and no store.
        seconds: from the start of the command to its last line.

    """

    trades_published: int
    trades_dead: int
    trades_late: int
    candles_stored: int
    candles_open: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Series:
    """One symbol in one timeframe: how many candles are stored, the latest of them, and those still open."""

    symbol: str
    timeframe: str
    stored: int
    latest: list[Candle]
    still_open: list[Candle]


@dataclass(frozen=True, slots=True)
class Findings:
    """What Kafka and the store hold in the end."""

    dead: int
    dead_reasons: list[str]
    late: int
    candles_stored: int
    candles_open: int
    series: list[Series]
    series_in_all: int


async def gather(settings: Settings) -> Findings:
    """Read everything. Raises BrokerError and StorageError."""
    still_open = await open_candles(settings)
    dead = sum((await end_offsets(settings, TRADES_DEAD)).values())
    async with open_reader(settings.storage) as reader:
        stored = {(span.symbol, span.timeframe) for span in await reader.spans()}
        order = {str(timeframe): timeframe for timeframe in settings.timeframes}
        known = sorted(stored | set(still_open), key=lambda key: (key[0], order[key[1]]))
        shown = known[:SERIES_SHOWN]
        counts = {key: await reader.count(*key) if key in stored else 0 for key in shown}
        fits = sum(counts.values()) + sum(map(len, still_open.values())) <= ROWS_SHOWN
        rows = ROWS_SHOWN if fits else max(LEAST_ROWS, ROWS_SHOWN // max(1, len(shown)))
        series = [
            Series(
                *key,
                stored=counts[key],
                latest=[candle async for candle in reader.read(*key, limit=rows)] if key in stored else [],
                still_open=still_open.get(key, []),
            )
            for key in shown
        ]
        return Findings(
            dead=dead,
            dead_reasons=await _dead_reasons(settings) if dead else [],
            late=await _count_late(settings),
            candles_stored=await reader.count(),
            candles_open=sum(map(len, still_open.values())),
            series=series,
            series_in_all=len(known),
        )


async def _dead_reasons(settings: Settings) -> list[str]:
    """Where the first dead records come from and what was wrong with them."""
    reasons: list[tuple[int, str]] = []
    async with aclosing(read_topic(settings, TRADES_DEAD)) as records:  # type: ignore[type-var]
        async for record in records:
            headers = _headers(record)
            failed_at = int(headers.get("ashi.failed_at", "0"))
            reasons.append((failed_at, f"{headers.get('ashi.source', '?')}: {headers.get('ashi.reason', '?')}"))
            if len(reasons) == REASONS_READ:
                break
    return [reason for _, reason in sorted(reasons, key=itemgetter(0))[:REASONS_SHOWN]]


async def _count_late(settings: Settings) -> int:
    """A late trade may be reported more than once, after a crash; its place in `trades` tells."""
    return len({trade_place(record.headers) async for record in read_topic(settings, TRADES_LATE)})


def _headers(record: Any) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in record.headers}


def show_series(console: Console, findings: Findings) -> None:
    """A table for each series; says what it leaves out."""
    for series in findings.series:
        parts = [f"{series.stored:,} stored"] * bool(series.stored)
        parts += [f"{len(series.still_open)} open"] * bool(series.still_open)
        if series.stored > len(series.latest):
            parts.append(f"the last {len(series.latest)} of them shown")
        console.out(f"\n{series.symbol}  {series.timeframe}  ({', '.join(parts)})", highlight=False)
        show_candles(console, series.latest, series.still_open)
    left_out = findings.series_in_all - len(findings.series)
    if left_out:
        console.out(f"\n… and {left_out:,} more of {findings.series_in_all:,} series", highlight=False)


def show_where(console: Console, storage: str, series: Sequence[Series]) -> None:
    """Where the candles are and how to look further."""
    console.out(f"\nStored in {redact_url(storage)}. To look further:", highlight=False)
    example = next((shown for shown in series if shown.stored), None)
    if example is not None and redact_url(storage) == storage:
        url = shlex.quote(storage)
        console.out(f"  {our_name()} candles {example.symbol} {example.timeframe} --storage {url}", highlight=False)
    if storage.startswith("sqlite:///"):
        path = shlex.quote(storage.removeprefix("sqlite:///"))
        console.out("  sqlite3 -box", path, shlex.quote(_QUERY), highlight=False)


def show_chart(console: Console, series: Sequence[Series], chart: Chart, *, kept: bool) -> None:
    """Where the chart of the first of the series is, or would be and how to have it."""
    example = next((shown for shown in series if shown.stored), None)
    where = chart.address(example.symbol, example.timeframe) if example else chart.address()
    if kept:
        console.out(f"\nThe chart is on {where} until Ctrl-C.", highlight=False)
        return
    ashi = our_name()
    console.out(f"\nAs a chart, on {where}: make demo KEEP=1, or {ashi} demo --keep", highlight=False)
    console.out(f"Markets that go on, kept from day to day: make up, or {ashi} up; without a network --simulate")


def show_summary(console: Console, summary: Summary, findings: Findings) -> None:
    """The figures in sentences, and why records are dead."""
    if findings.dead:
        console.out(f"\n{findings.dead:,} records could not be read and are in topic trades.dead:", highlight=False)
        for reason in findings.dead_reasons:
            console.out(f"  {reason}", highlight=False)
        if findings.dead > len(findings.dead_reasons):
            console.out(f"  … and {findings.dead - len(findings.dead_reasons):,} more", highlight=False)
    console.out(
        f"\n{summary.trades_published:,} trades published, {summary.trades_dead:,} dead, {summary.trades_late:,} late; "
        f"{summary.candles_stored:,} candles stored, {summary.candles_open:,} still open; {summary.seconds:.1f} s",
        highlight=False,
    )


def our_name() -> str:
    """How to call this command from where the user is: `ashi`, or a path when it is not to be found as that."""
    found, called = shutil.which("ashi"), Path(sys.argv[0])
    if called.name != "ashi" or (found is not None and Path(found).samefile(called)):
        return "ashi"
    return shlex.quote(os.path.relpath(called))
