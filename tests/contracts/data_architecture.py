"""The parts of docs/data-architecture.md that are made by code: tables of what there is, and one trade's way in bytes.

    PYTHONPATH=tests .venv/bin/python tests/contracts/data_architecture.py      writes them anew

The bundled recordings go through everything that makes the bytes in a deployment: the venues' parsers, the aggregate
pipeline over a log in memory, the sinks of SQLite and of the lake, the bars of the chart. Only what cannot be the same
twice is given: append times, the topic's id, the name of a list of symbols, and names of Parquet files. PostgreSQL
alone is not written to here; what its column types make of the values is put down as psql shows it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import msgspec

from ashi.contracts.access import deployed_principals
from ashi.contracts.candle import Candle, decode_candle, epoch_of
from ashi.contracts.decimals import format_decimal
from ashi.contracts.schemas.channels import CHANNELS
from ashi.contracts.topics import (
    CANDLES,
    CANDLES_LIVE,
    MARKERS_TABLE,
    META,
    TRADES,
    changelog_topic,
    table_name,
    topic_specs,
)
from ashi.contracts.trade import TRADE_SCHEMA, Trade, decode_trade, encode_trade
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
from ashi.runtime.settings import Settings
from ashi_aggregate.core.codec import RowHead, decode_row, read_rank
from ashi_aggregate.core.fold import Fold
from ashi_aggregate.cpu_share import CpuShare
from ashi_aggregate.epoch import make_epoch
from ashi_aggregate.fencing import SessionGuard
from ashi_aggregate.live import LiveCandles
from ashi_chart.candles.coverage import Coverage
from ashi_chart.candles.rollup import Rolled
from ashi_chart.series.active import encoded
from ashi_chart.wire import changed_bars
from ashi_ingest.recording.format import Line, read_recording
from ashi_ingest.venues.registry import VENUES
from ashi_sinks.lake import tables as lake_tables
from ashi_sinks.lake.delta import DeltaTable
from ashi_sinks.lake.location import Lake
from ashi_sinks.lake.query import Snapshot
from ashi_sinks.lake.sink import LakeSink
from ashi_sinks.postgres import tables as postgres_tables
from ashi_sinks.sqlite import tables as sqlite_tables
from ashi_sinks.sqlite.sink import SqliteSink
from kafka_topics.simulated_log import Broker, Record, Worker

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/data-architecture.md"
JAPANESE_PAGE = ROOT / "docs/data-architecture.ja.md"
BUNDLED = ROOT / "ingest/ashi_ingest/recording/bundled"
RECORDINGS = (
    ("bitflyer", "bitflyer-20211212.txt.gz"),
    ("binance", "binance-ethusdt-20240808.txt.gz"),
    ("binance", "binance-ethusdt-20240809.txt.gz"),
)
"""In the order in which they are replayed."""
TRADE_ID = "1520552336"
"""The trade whose way is told."""
TIMEFRAME = "1m"
TOPIC_ID = "0f6c8f0e-5d0b-4a9e-9a53-6f3f0c1d2e4b"
LIST_ID = UUID("4b1c8f3a0d5e4a7f9c2b6e1d8a3f5c70")
COMMAND = "tests/contracts/data_architecture.py"


class Unlimited(CpuShare):
    """As much of the CPU as it takes."""

    def has_left(self) -> bool:
        return True


class LiveTopic:
    """`candles.live`: takes everything at once."""

    def __init__(self, partitions: int) -> None:
        self.count = partitions
        self.records: list[OutgoingRecord] = []

    @property
    def is_connected(self) -> bool:
        return True

    async def connect(self) -> None:
        raise AssertionError

    def partitions(self) -> int:
        return self.count

    def post(self, records: Mapping[int, Sequence[OutgoingRecord]]) -> asyncio.Future[None]:
        self.records += [record for those in records.values() for record in those]
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent


@dataclass
class Way:
    """One trade's way: what stands where once it has been there.

    Attributes:
        recording: the file that the frame is in; `line` the frame.
        record: the trade's in topic `trades`, in `partition`.
        row: that of the changelog after the trade; `marker` and `symbols` (the list that it names), keys and values.
        live: the candle in progress that the trade is in; `closed` the closed one. Records.
        closing: the trade that closed the window, and the offset of its record.

    """

    settings: Settings
    recording: str
    line: Line
    trade: Trade
    partition: int
    record: Record
    row: OutgoingRecord
    marker: OutgoingRecord
    symbols: OutgoingRecord
    live: OutgoingRecord
    closed: OutgoingRecord
    closing: tuple[int, Trade]

    @property
    def candle(self) -> Candle:
        return decode_candle(self.closed[1] or b"")


def _replay(broker: Broker) -> tuple[str, Line, Trade]:
    """Publish the recordings, appended when they were received; gives the file, frame and trade whose way is told."""
    found = None
    for venue, name in RECORDINGS:
        parser = VENUES[venue].parser()
        for line in read_recording(BUNDLED / name):
            assert isinstance(line, Line)
            trades = parser.parse(line.frame, line.received_at).trades
            broker.publish(trades, line.received_at // 1000)
            for trade in trades:
                if trade.trade_id == TRADE_ID:
                    found = name, line, trade
    assert found is not None
    return found


async def follow_trade(*, native: bool = False) -> Way:
    """Take the recordings through the aggregate stage, with the settings that there are by default.

    `native`: by the native fold, where it is built, else by Python.
    """
    settings = Settings.from_environment({})
    rules = make_epoch(settings, 0).rules()
    broker = Broker(settings.partitions, topic_id=TOPIC_ID)
    recording, line, trade = _replay(broker)
    partition = partition_of(trade.symbol.encode(), settings.partitions)
    log = broker.trades[partition]
    value = encode_trade(trade)
    record = next(each for each in log if each.value == value)
    window = rules.finest.open_time(trade.traded_at)
    due = window + rules.finest.length_us + rules.lateness_us
    later = (each for each in log[record.offset :] if each.key == record.key)
    closing = next((each, found) for each in later if (found := decode_trade(each.value or b"")).traded_at >= due)
    topic = LiveTopic(settings.partitions)
    guard = SessionGuard(10**12)
    with mock.patch("ashi_aggregate.census.uuid.uuid4", return_value=LIST_ID):
        worker = Worker(
            broker,
            settings.timeframes,
            rules,
            now_us=line.received_at,
            native=native,
            live=lambda kafka: LiveCandles(
                kafka, topic, guard, interval_us=250_000, share=Unlimited(), now_s=lambda: broker.now_us / 1e6
            ),
        )
        broker.trades[partition] = []  # when it starts: what stands in the log by then it does not tell of
        await worker.start([partition])
    broker.trades[partition] = log[: record.offset]
    await worker.read(partition, record.offset)
    await worker.pipeline.checkpoint()
    await worker.pipeline.tell_progress()
    states = {name: len(broker.messages(changelog_topic(name))) for name in _tables(settings)}
    broker.now_us += 300_000
    topic.records.clear()
    broker.trades[partition] = log[: record.offset + 1]
    await worker.read(partition, 1)
    await worker.pipeline.checkpoint()
    await worker.pipeline.tell_progress()
    written = {name: broker.messages(changelog_topic(name))[before:] for name, before in states.items()}
    markers = broker.messages(changelog_topic(MARKERS_TABLE))
    broker.trades[partition] = log[: closing[0].offset + 1]
    broker.now_us = closing[0].timestamp * 1000
    await worker.read(partition, closing[0].offset - record.offset)
    await worker.pipeline.checkpoint()
    candles = [each for each in broker.messages(CANDLES) if _is_of(each, trade.symbol, window)]
    return Way(
        settings=settings,
        recording=recording,
        line=line,
        trade=trade,
        partition=partition,
        record=record,
        row=_only(written[table_name(rules.finest)]),
        marker=_only(written[MARKERS_TABLE]),
        symbols=[each for each in markers if b"-symbols-" in (each[0] or b"")][-1],
        live=_only([each for each in topic.records if _is_of(each, trade.symbol, window)]),
        closed=_only(candles),
        closing=(closing[0].offset, closing[1]),
    )


def _tables(settings: Settings) -> list[str]:
    return [*map(table_name, settings.timeframes), MARKERS_TABLE]


def _is_of(record: OutgoingRecord, symbol: str, window: int) -> bool:
    candle = decode_candle(record[1] or b"")
    return (candle.symbol, candle.timeframe, candle.open_time) == (symbol, TIMEFRAME, window)


def _only(records: Sequence[OutgoingRecord]) -> OutgoingRecord:
    [record] = records
    return record


# What there is.


def _code(*lines: str, language: str = "text") -> list[str]:
    return [f"```{language}", *lines, "```"]


def _days(milliseconds: int) -> str:
    days = milliseconds // 86_400_000
    return f"{days} day{'s' * (days != 1)}"


def topics_table() -> list[str]:
    """Every topic of a deployment: what it holds, how it is kept, who writes and reads it."""
    settings = Settings.from_environment({})
    channels = {channel.topic: channel for channel in CHANNELS}
    rows = [
        "| topic | record | key | partitions | `cleanup.policy` | kept | written by | read by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    own = {
        META: ("JSON: the epoch; rebuilds, loads", "a name"),
        changelog_topic(MARKERS_TABLE): ("JSON: markers and lists of symbols", "partition, or a name with it"),
    }
    for spec in topic_specs(settings.partitions, settings.timeframes):
        channel = channels.get(spec.name)
        if channel is not None:
            value = f"`{channel.message.schema}`" if channel.message else "a letter: what it quotes, as it was"
            key = {True: "symbol/timeframe", False: "symbol"}[spec.name == CANDLES_LIVE]
            key = key if channel.message else "of what it quotes"
        else:
            value, key = own.get(spec.name, ("a row, binary", "symbol"))
        assert spec.config["message.timestamp.type"] == "LogAppendTime", "what the page says of all"
        retention = spec.config.get("retention.ms")
        kept = _days(int(retention)) if retention else "the last of each key"
        writers, readers = (", ".join(_who(spec.name, operation)) for operation in ("Write", "Read"))
        policy = spec.config["cleanup.policy"]
        rows.append(
            f"| `{spec.name}` | {value} | {key} | {spec.partitions} | `{policy}` | {kept} | {writers} | {readers} |"
        )
    return rows


def _who(topic: str, operation: str) -> Iterator[str]:
    """The stages that may write to, or read, a topic; commands of the operator only where no stage does."""
    found = []
    for principal in deployed_principals():
        names = [
            grant
            for grant in principal.grants
            if grant.kind == "topic"
            and operation in map(str, grant.operations)
            and (topic.startswith(grant.name) if grant.prefixed else topic == grant.name)
        ]
        if names:
            stage = principal.name.removeprefix("ashi-").split("-")[0]
            found.append({"sink": "sinks", "reader": "`ashi.client`"}.get(stage, stage))
    stages = [each for each in dict.fromkeys(found) if each != "operator"]
    yield from stages or ["the operator's commands"]


def stores_table() -> list[str]:
    """The tables of each kind of store: what names a row, and which of two rows of one name stays."""
    rows = ["| table | of topic | one row for each | of two stays | in |", "|---|---|---|---|---|"]
    in_sqlite = {table.name: table for table in sqlite_tables.TABLES.values()}
    in_postgres = {table.name: table for table in (*postgres_tables.TABLES, postgres_tables.VENUE_CANDLES)}
    for table in lake_tables.TABLES:
        stores = [
            name for name, those in (("SQLite", in_sqlite), ("PostgreSQL", in_postgres)) if table.name in those
        ] + [f"lake (folders: {', '.join(f'`{name}`' for name in table.partitions)})" if table.partitions else "lake"]
        key = in_sqlite[table.name].key if table.name in in_sqlite else table.key
        if table.name in in_sqlite:
            assert in_sqlite[table.name].key == in_postgres[table.name].key
            assert in_sqlite[table.name].guard == in_postgres[table.name].guard == table.guard
        stays = f"the greater `{table.guard}`" if table.guard else "both: one per record"
        named = ", ".join(f"`{name}`" for name in key)
        topic = "none: the venues' own" if table.content else f"`{table.name.replace('_', '.')}`"
        rows.append(f"| `{table.name}` | {topic} | {named} | {stays} | {', '.join(stores)} |")
    return rows


# One trade's way.


def _hex(value: bytes) -> list[str]:
    lines = []
    for place in range(0, len(value), 16):
        part = value[place : place + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{place:04x}  {part.hex(' '):<47}  {text}")
    return lines


def _record(topic: str, partition: int, record: OutgoingRecord, *more: str) -> list[str]:
    key, value, headers = record
    assert value is not None
    lines = [f"topic      {topic}", f"partition  {partition}", *more, f"key        {(key or b'').decode()}"]
    lines += [f"header     {name}: {(held or b'').decode()}" for name, held in headers]
    return [*lines, f"value      {len(value)} bytes:", *_wrapped(value.decode())]


def _wrapped(text: str, width: int = 118) -> list[str]:
    """JSON in lines, broken behind commas: all bytes are there, and none besides but the line ends."""
    lines, line = [], ""
    for part in re.split(r"(?<=,)", text):
        if line and len(line) + len(part) > width:
            lines.append(line)
            line = ""
        line += part
    return [*lines, line]


def _utc(time_us: int) -> str:
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    text = time.strftime("%Y-%m-%d %H:%M:%S")
    return text + (f".{time.microsecond:06}".rstrip("0") if time.microsecond else "")


def _line_block(way: Way) -> list[str]:
    frame = way.line.frame.decode()
    return [
        f"Line {way.line.number:,} of `{(BUNDLED / way.recording).relative_to(ROOT)}`, a frame of {len(frame)} bytes "
        "behind the time of its receipt:",
        "",
        *_code(*_wrapped(_raw_line(way))),
    ]


def _raw_line(way: Way) -> str:
    with gzip.open(BUNDLED / way.recording, "rt", encoding="utf-8") as lines:
        return next(islice(lines, way.line.number - 1, None)).rstrip("\n")


def _trade_block(way: Way) -> list[str]:
    record = way.record
    assert record.value is not None
    headers: list[tuple[str, bytes]] = message_headers(TRADE_SCHEMA)
    return _code(
        *_record(
            TRADES,
            way.partition,
            (record.key, record.value, headers),
            f"offset     {record.offset}",
            f"timestamp  {record.timestamp} (LogAppendTime)",
        )
    )


def _row_block(way: Way) -> list[str]:
    key, value, headers = way.row
    assert key is not None
    assert value is not None
    assert not headers
    topic = changelog_topic(table_name(way.settings.timeframes[0]))
    head = [f"topic      {topic}", f"partition  {way.partition}", f"key        {key.decode()}"]
    return _code(*head, f"value      {len(value)} bytes:", *_hex(value))


def _row_table(way: Way) -> list[str]:
    value = way.row[1]
    assert value is not None
    row = decode_row(value)
    epoch, applied = read_rank(value)
    body: list[Any] = msgspec.msgpack.decode(value[9:], type=list, strict=False)
    names = [*RowHead.__struct_fields__, "closed_until", "windows", "ids", "dropped"]
    assert len(body) == len(names)
    assert row.applied_offset == applied == way.record.offset
    lines = [
        "| bytes | field | holds |",
        "|---|---|---|",
        f"| `{value[:1].hex()}` | format | {value[0]} |",
        f"| `{value[1:9].hex()}` | rank: epoch * 2^48 + `applied_offset` + 1 | epoch {epoch}, offset {applied} |",
    ]
    for name, held in zip(names, body, strict=True):
        if name == "windows":
            lines += [_window_line(place, window) for place, window in enumerate(held)]
        else:
            lines.append(f"| msgpack | `{name}` | {_told(name, held)} |")
    return lines


def _told(name: str, held: Any) -> str:
    if name == "closes_from" or (isinstance(held, int) and held > 10**15):
        return f"{held} ({_utc(held)})"
    if isinstance(held, dict | list):
        return f"`{json.dumps(held, separators=(',', ':'))}`"
    return f"`{held}`"


def _window_line(place: int, window: list[Any]) -> str:
    fold, *emitted = window
    names = Fold.__struct_fields__[: len(fold)]
    parts = ", ".join(f"{name} {_short(held)}" for name, held in zip(names, fold, strict=True) if name != "symbol")
    sent = emitted[0] if emitted else None
    state = "not sent yet" if sent in (None, -1) else f"sent as of offset {sent}"
    return f"| msgpack | `windows[{place}]` | {parts}; {state} |"


def _short(held: Any) -> str:
    return f"`{json.dumps(held, separators=(',', ':'))}`" if isinstance(held, list) else str(held)


def _marker_block(way: Way) -> list[str]:
    lines = []
    for record in (way.symbols, way.marker):
        assert record[1] is not None
        lines += [f"key        {(record[0] or b'').decode()}", f"value      {len(record[1])} bytes:"]
        lines += [*_wrapped(record[1].decode()), ""]
    head = [f"topic      {changelog_topic(MARKERS_TABLE)}", f"partition  {way.partition}", ""]
    return _code(*head, *lines[:-1])


def _closed_block(way: Way) -> list[str]:
    version = way.candle.version
    offset, trade = way.closing
    return [
        f"The record at offset {offset:,} is a trade of {_utc(trade.traded_at)}, the first that is not before "
        f"{_utc(way.candle.close_time + way.settings.allowed_lateness_us)}. It closes the window:",
        "",
        *_code(*_record(CANDLES, way.partition, way.closed)),
        "",
        f"`version` {version} is epoch {epoch_of(version)} * 2^40 + offset {version - (epoch_of(version) << 40)}: "
        f"that of the last of its {way.candle.trade_count:,} trades in the log.",
    ]


async def store(way: Way, folder: Path) -> list[str]:
    """The candle in each kind of store, column by column."""
    candle = way.candle
    sqlite = SqliteSink(folder / "candles.db")
    await sqlite.open()
    await sqlite.write([candle])
    await sqlite.close()
    fields = Candle.__struct_fields__
    columns = ", ".join(f"{name}, typeof({name})" for name in fields)
    database = sqlite3.connect(folder / "candles.db")
    [row] = database.execute(f"SELECT {columns} FROM candles").fetchall()
    database.close()
    in_sqlite = {name: (row[2 * place], row[2 * place + 1]) for place, name in enumerate(fields)}

    lake = Lake(folder / "lake", str(folder / "lake"))
    sink = LakeSink(lake)
    await sink.open()
    await sink.write([candle])
    await sink.close()
    in_lake, kinds, path = _read_lake(lake, folder)

    sent = json.loads(way.closed[1] or b"")
    rows = [
        "| column | message in `candles` | SQLite | PostgreSQL | lake (Delta) |",
        "|---|---|---|---|---|",
    ]
    for name in fields:
        stored, kind = in_sqlite[name]
        postgres = postgres_tables.CANDLES.kinds[name]
        rows.append(
            f"| `{name}` | `{json.dumps(sent[name])}` | `{stored}` {kind.upper()} | "
            f"`{_in_postgres(postgres, getattr(candle, name))}` {postgres.split()[0]} | "
            f"`{in_lake[name]}` {kinds[name]} |"
        )
    folders = [name for name in lake_tables.CANDLES.kinds if name not in fields]
    rows += [f"| `{name}` | | | | `{in_lake[name]}` {kinds[name]}, a folder |" for name in folders]
    return [*rows, "", "The row of the lake is in the file", "", *_code(path)]


def _in_postgres(kind: str, value: Any) -> str:
    if kind == "timestamptz":
        return _utc(value) + "+00"
    return format_decimal(value) if kind == "numeric" else str(value)


def _read_lake(lake: Lake, folder: Path) -> tuple[dict[str, Any], dict[str, str], str]:
    table = DeltaTable(lake, lake_tables.CANDLES)
    table.open()
    names = list(lake_tables.CANDLES.kinds)
    [row] = Snapshot(table).rows(f"SELECT {', '.join(names)} FROM candles")
    kinds = {each.name: re.sub(r'PrimitiveType\("(.*)"\)', r"\1", str(each.type)) for each in table.now.schema().fields}
    [path] = table.now.file_uris()
    table.close()
    shown = {name: _shown(value) for name, value in zip(names, row, strict=True)}
    place = path.removeprefix("file://").partition(f"{folder.name}/")[2]
    return shown, kinds, re.sub(r"part-.*parquet", "part-….parquet", place)


def _shown(value: Any) -> str:
    return value.isoformat(sep=" ") if isinstance(value, datetime) else str(value)


def _lake_trade_block(way: Way) -> list[str]:
    stored = lake_tables.StoredTrade(way.partition, way.record.offset, way.trade)
    columns = lake_tables.trade_columns([stored])
    cells = {name: values[0] for name, values in columns.items()}
    for name, kind in lake_tables.TRADES.kinds.items():
        if kind == "time":
            cells[name] = _utc(cells[name]) + "+00:00"
        elif kind == "day":
            cells[name] = lake_tables.day_literal(cells[name]).split("'")[1]
    width = max(map(len, cells))
    return _code(*(f"{name:<{width}}  {value}" for name, value in cells.items()))


def _chart_block(way: Way) -> list[str]:
    nothing_said = Coverage()
    live = decode_candle(way.live[1] or b"")
    candle = way.candle
    closed = Rolled(candle, closed=True)
    messages = [
        ("while it is in progress", Rolled(live, closed=False), nothing_said),
        ("once it has closed", closed, nothing_said),
        ("once the feed's status says that nothing is missing", closed, Coverage(candle.close_time)),
    ]
    lines = []
    for when, rolled, coverage in messages:
        message = changed_bars(candle.symbol, candle.timeframe, encoded([rolled], coverage))
        lines += [f"{when}, {len(message)} bytes:", *_wrapped(message.decode()), ""]
    return _code(*lines[:-1])


def blocks(way: Way) -> dict[str, list[str]]:
    """The lines of each part of the page that is made, by name."""
    with tempfile.TemporaryDirectory() as folder:
        stored = asyncio.run(store(way, Path(folder).resolve()))
    return {
        "topics": topics_table(),
        "stores": stores_table(),
        "line": _line_block(way),
        "trade": _trade_block(way),
        "row": _row_block(way),
        "fields of the row": _row_table(way),
        "marker": _marker_block(way),
        "live": _code(*_record(CANDLES_LIVE, way.partition, way.live)),
        "closed": _closed_block(way),
        "stored": stored,
        "stored trade": _lake_trade_block(way),
        "chart": _chart_block(way),
    }


def page_with(page: str, made: Mapping[str, Sequence[str]]) -> str:
    """The page with the parts that are made put in anew; all around them is written by hand."""
    for name, lines in made.items():
        begin, end = f"<!-- {name}: made by {COMMAND} -->", f"<!-- end of {name} -->"
        assert page.count(begin) == page.count(end) == 1, f"the page lacks its place for {name!r}, or has two"
        before, _, rest = page.partition(begin)
        after = rest.partition(end)[2]
        page = "\n".join([before + begin, "", *lines, "", end]) + after
    return page


IN_JAPANESE = (
    (r"\| topic \| record \| key \| partitions \|(.*)\| kept \| written by \| read by \|",
     r"| トピック | レコード | キー | パーティション数 |\1| 保持期間 | 書き手 | 読み手 |"),
    (r"\| table \| of topic \| one row for each \| of two stays \| in \|",
     "| テーブル | 元のトピック | 行の単位 | 2 つあれば残る方 | 保存先 |"),
    (r"\| bytes \| field \| holds \|", "| バイト列 | フィールド | 内容 |"),
    (r"\| column \| message in `candles` \|(.*)\| lake \(Delta\) \|",
     r"| 列 | `candles` のメッセージ |\1| レイク（Delta） |"),
    (r"a letter: what it quotes, as it was", "レター（元のレコードをそのまま含む）"),
    (r"of what it quotes", "元のレコードのキー"),
    (r"the operator's commands", "運用者のコマンド"),
    (r"the last of each key", "キーごとに最新のもの"),
    (r"(\d+) days?\b", r"\1 日"),
    (r"\| symbol \|", "| 銘柄 |"),
    (r"\| symbol/timeframe \|", "| 銘柄/時間足 |"),
    (r"JSON: the epoch; rebuilds, loads", "JSON（エポック、リビルド、ロード）"),
    (r"JSON: markers and lists of symbols", "JSON（マーカー、銘柄の一覧）"),
    (r"partition, or a name with it", "パーティション、またはそれを含む名前"),
    (r"\| a name \|", "| 名前 |"),
    (r"a row, binary", "行（バイナリ）"),
    (r"the greater (`\w+`)", r"\1 が大きい方"),
    (r"none: the venues' own", "なし：取引所自身の足"),
    (r"both: one per record", "両方（レコードごとに 1 行）"),
    (r"lake \(folders: (.*?)\)", r"レイク（フォルダー: \1）"),
    (r", lake \|", ", レイク |"),
    (r"Line ([\d,]+) of (`.*?`), a frame of (\d+) bytes behind the time of its receipt:",
     r"\2 の \1 行目です。受信時刻の後に \3 バイトのフレームが続きます。"),
    (r"sent as of offset (\d+)", r"オフセット \1 までの内容で送信済み"),
    (r"not sent yet", "未送信"),
    (r"The record at offset ([\d,]+) is a trade of ([\d:. -]+), the first that is not before ([\d:. -]+)\. It "
     "closes the window:",
     r"オフセット \1 のレコードは \2 の約定で、\3 以降の最初のものです。これで区間が閉じます。"),
    (r"(`version` \d+) is epoch (.*): that of the last of its ([\d,]+) trades in the log\.",
     r"\1 はエポック \2 で、この足の \3 件の約定のうちログで最後のもののオフセットです。"),
    (r"The row of the lake is in the file", "レイクでは、行はこのファイルにあります。"),
    (r", a folder \|", "（フォルダー） |"),
)  # fmt: skip
"""What the made parts say in words, outside of blocks of code."""


def in_japanese(lines: Sequence[str]) -> list[str]:
    """A made part for the page in Japanese: bytes and names are what they are."""
    said: list[str] = []
    fenced = False
    for line in "\n".join(lines).split("\n"):
        fence = line.startswith("```")
        fenced ^= fence
        told = line
        if not (fence or fenced):
            for pattern, words in IN_JAPANESE:
                told = re.sub(pattern, words, told)
        said.append(told)
    return said


def main() -> None:
    """Write the made parts of both pages anew."""
    made = blocks(asyncio.run(follow_trade()))
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    japanese = {name: in_japanese(lines) for name, lines in made.items()}
    JAPANESE_PAGE.write_text(page_with(JAPANESE_PAGE.read_text(encoding="utf-8"), japanese), encoding="utf-8")


if __name__ == "__main__":
    main()
