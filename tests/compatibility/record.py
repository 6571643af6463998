"""Record what version 0.1.0 writes, for the tests beside this file.

In a checkout of the last commit before the redesign, set up by `make setup`, with this folder copied anywhere:

    .venv/bin/python /path/to/compatibility/record.py

It starts a broker of its own, takes about three minutes, and writes the files in `recorded/`. Times of appending, and
what a live feed received, differ from run to run; all else is the same.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from ashi.runtime.deadletter import message_headers
from command_lines import ASHI, COMMANDS, HELP, clean_environment, options_in, run_in_folders
from deployment import Deployment, events, lake_groups, live_run, rows_of, wait
from recorded import DATA, PARTITIONS, REBUILT, RECONFIGURED, VENUES, WAVES, to_line, write_json, write_lines

from ashi.contracts import Trade, encode_trade
from ashi.contracts.feed import FEED_GAP_SCHEMA, FeedGap, encode_feed
from ashi.contracts.trade import TRADE_SCHEMA
from ashi.runtime.kafka import partition_of

START = 1_723_161_240_000_000  # 2024-08-08 23:54 UTC: the recording goes over midnight
SECOND, MINUTE = 1_000_000, 60_000_000
WINDOW = ["--from", "2024-08-08", "--to", "2024-08-09T01:00:00"]

SYMBOLS = (
    "binance:BTCUSDT",
    "binance-usdm:BTCUSDT",
    "bitflyer:FX_BTC_JPY",
    "bitflyer:BTC_JPY",
    "gmo:BTC",
    "gmo:BTC_JPY",
)
QUIET = "binance:QUIETUSDT"
SPANS = ((0, 12), (12, 15), (15, 19), (62, 66))
"""Minutes of each wave; before the last one no market trades for longer than flat candles are made for."""


class Market:
    """Trades as the real venues send them: ids that count, leave some out, or are words; disorder; repetition."""

    def __init__(self) -> None:
        self.dice = random.Random(20260101)
        self.number = 1_000
        self.seen: list[Trade] = []

    def id_of(self, symbol: str) -> str:
        self.number += 1
        if symbol == "gmo:BTC":
            return f"2024-{self.number:x}-{self.dice.randrange(16**6):06x}"
        if symbol == "gmo:BTC_JPY":
            return f"{self.number:08d}"
        return str(1_520_552_000 + self.number)

    def trade(self, symbol: str, traded_at: int) -> Trade:
        dice = self.dice
        price = Decimal(dice.randint(1, 10**7)) / Decimal(10) ** dice.choice([0, 2, 8])
        size = Decimal(dice.choice([0, 1, 10, dice.randint(1, 10**9)])) / Decimal(10) ** dice.choice([1, 8, 12])
        side = dice.choice(["buy", "sell", "sell", None])
        made = Trade(symbol, self.id_of(symbol), price, size, side, traded_at, traded_at + dice.randint(0, 300_000), 0)
        made = Trade(*[getattr(made, name) for name in Trade.__struct_fields__[:-1]], self.number)
        self.seen.append(made)
        return made

    def wave(self, begin: int, end: int) -> list[Trade]:
        dice = self.dice
        trades = []
        late = [at for at in (70, 100, 110) if begin]  # s before the wave: corrections of candles of the one before
        trades += [
            self.trade(dice.choice(SYMBOLS), START + begin * MINUTE - at * SECOND) for at in late for _ in range(3)
        ]
        now = START + begin * MINUTE
        while now < START + end * MINUTE:
            now += dice.randint(100_000, 1_100_000)
            kind = dice.random()
            if kind < 0.04 and self.seen:
                trades.append(dice.choice(self.seen[-300:]))  # once more, some of them from the wave before
                continue
            behind = dice.randint(0, 1_900_000)
            if kind < 0.10:
                behind = dice.randint(2_000_000, 115_000_000)
            elif kind < 0.12:
                behind = dice.randint(200_000_000, 400_000_000)
            # A few share a time, so that `sequence` orders them.
            at = (now - behind) // 1_000_000 * 1_000_000 if kind > 0.9 else now - behind
            trades.append(self.trade(dice.choice(SYMBOLS), at))
        if begin in {0, 15}:
            trades.append(self.trade(QUIET, START + begin * MINUTE + 5 * SECOND))
        return trades


def misfits(market: Market) -> list[tuple[int, bytes | None, bytes | None]]:
    """Records that are no trades, or not where they belong: partition, key, value."""
    good = Trade("binance:BTCUSDT", "1", Decimal(1), Decimal(1), "buy", START + MINUTE, START + MINUTE, 1)
    key, value = good.symbol.encode(), encode_trade(good)
    home = partition_of(key, PARTITIONS)
    return [
        (home, key, b"\xff\x00 garbage"),
        (home, key, None),
        (home, None, b"{}"),
        (home, key, value.replace(b'"price":"1"', b'"price":"-1"')),
        (home, key, value.replace(b'"price":"1"', b'"price":"NaN"')),
        (home, key, value.replace(b'"buy"', b'"BUY"')),
        (home, key, value.replace(b"binance:BTCUSDT", b"BTCUSDT")),
        (
            home,
            key,
            value.replace(f'"traded_at":{START + MINUTE}'.encode(), f'"traded_at":{START + 9 * MINUTE}'.encode()),
        ),
        (home, key, value.replace(f'"traded_at":{START + MINUTE}'.encode(), b'"traded_at":1723161300')),
        (home, key, value + value),
        (home, b"binance:ETHUSDT", value),
        (1 - home, key, value),
        (home, None, value),
    ]


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A broker of its own; gives its address."""
    workdir = ["--workdir", str(folder)]
    started = subprocess.run(
        [str(ASHI), "broker", "start", *workdir], env=clean_environment(), check=True, capture_output=True, text=True
    )
    try:
        yield started.stdout.strip().removeprefix("export ASHI_KAFKA_BOOTSTRAP=")
    finally:
        subprocess.run(
            [str(ASHI), "broker", "stop", *workdir], env=clean_environment(), check=True, capture_output=True
        )


def trade_message(trade: Trade) -> tuple[str, int, bytes, bytes, list[tuple[str, bytes]]]:
    key = trade.symbol.encode()
    return "trades", partition_of(key, PARTITIONS), key, encode_trade(trade), message_headers(TRADE_SCHEMA)


def gap_message(gap: FeedGap) -> tuple[str, int, bytes, bytes, list[tuple[str, bytes]]]:
    key = gap.symbol.encode()
    return "feed.gaps", partition_of(key, PARTITIONS), key, encode_feed(gap), message_headers(FEED_GAP_SCHEMA)


CLOSED, HISTORY = "the venue closed the connection", "the venue's history does not reach back"
GAPS = {
    1: [
        FeedGap("bitflyer:BTC_JPY", START + MINUTE, None, "open", 0, CLOSED, START + MINUTE + 1),
        FeedGap("gmo:BTC", START, START + 3 * MINUTE, "lost", 2, HISTORY, START + 4 * MINUTE),
    ],
    3: [
        FeedGap("bitflyer:BTC_JPY", START + MINUTE, START + 2 * MINUTE, "repaired", 17, CLOSED, START + 5 * MINUTE),
        FeedGap("binance:BTCUSDT", START + 16 * MINUTE, START + 16 * MINUTE, "lost", 0, "silent", START + 17 * MINUTE),
    ],
}


def aggregate_wave(deployment: Deployment, wave: int, **env: str) -> None:
    """One worker takes in what is there: the checkpoint comes long after the chunk, so there is one of each."""
    before = asyncio.run(deployment.markers())
    with deployment.stage(f"aggregate-{wave}", "aggregate", ASHI_CHECKPOINT_INTERVAL="3s", **env) as worker:
        wait(lambda: asyncio.run(deployment.markers()) >= before + PARTITIONS, worker)
        wait(lambda: asyncio.run(deployment.caught_up("ashi-aggregate", "trades")), worker)
    asyncio.run(deployment.dump(wave))


def sink(deployment: Deployment, wave: int) -> list[list[Any]]:
    """The sink takes in what is there; gives all rows."""
    with deployment.stage(f"sink-{wave}", "sink", "sqlite", "--storage", "sqlite:///candles.db") as worker:
        wait(lambda: asyncio.run(deployment.caught_up("ashi-sink-sqlite", "candles", "feed.gaps")), worker)
    asyncio.run(deployment.dump(wave))
    return rows_of(deployment.folder / "candles.db")


def record_flow(folder: Path) -> None:
    """Trades through the aggregate workers and the sink of SQLite; verify, rebuild, reconfigure."""
    market = Market()
    with broker(folder) as bootstrap:
        deployment = Deployment(bootstrap, folder)
        commands = [deployment.run("topics", "create")]
        rows = {}
        for wave, (begin, end) in enumerate(SPANS, 1):
            messages = [trade_message(trade) for trade in market.wave(begin, end)]
            if wave in {1, 3}:
                for place, misfit in enumerate(misfits(market)):
                    messages.insert(20 * place + 10, ("trades", *misfit, message_headers(TRADE_SCHEMA)))
            asyncio.run(deployment.publish(messages))
            asyncio.run(deployment.publish([gap_message(gap) for gap in GAPS.get(wave, [])]))
            aggregate_wave(deployment, wave)
            if wave in {2, WAVES}:
                rows[wave] = sink(deployment, wave)
            if wave == 2:
                (DATA / "candles.db.gz").write_bytes(gzip.compress((folder / "candles.db").read_bytes(), mtime=0))
        store = ["--storage", "sqlite:///candles.db"]
        commands += [
            deployment.run("topics", "create"),
            deployment.run("topics", "check"),
            deployment.run("topics", "check", ASHI_PARTITIONS="5"),
            deployment.run("aggregate", ASHI_CORRECTION_HORIZON="3m"),
            deployment.run("verify", "sqlite:///candles.db", "--trades"),
            deployment.run("verify", "sqlite:///candles.db", "--trades", "--json"),
            deployment.run("rebuild", *WINDOW, "--dry-run"),
            *(deployment.run("candles", symbol, "5m", *store) for symbol in (*SYMBOLS, QUIET)),
            deployment.run("candles", "gmo:BTC", "1m", "--csv", *store),
            deployment.run("candles", "gmo:XRP", "1m", *store),
        ]
        write_lines("broker_commands.jsonl.gz", commands)
        write_lines("rows.jsonl.gz", [[wave, *row] for wave, found in rows.items() for row in found])
        offsets = dict(deployment.offsets)
        after = [deployment.run("rebuild", *WINDOW)]
        asyncio.run(deployment.dump(REBUILT))
        after.append(deployment.run("aggregate", "reconfigure", ASHI_CORRECTION_HORIZON="10m"))
        aggregate_wave(deployment, RECONFIGURED, ASHI_CORRECTION_HORIZON="10m")
        write_lines("later_commands.jsonl.gz", after)
        groups = lake_groups(deployment)
        write_lines("log.jsonl.gz", map(to_line, deployment.records))
        write_json("offsets.json", offsets)
        logs = {name: events(log) for name, log in deployment.logs.items()}
        write_json("stages.json", {"metrics": deployment.metrics, "logs": logs, "groups": groups})


GARBAGE = [
    b"1723161240000000000 {",
    b"1723161240000000001 \xff\xfe",
    b"no time {}",
    b'1723161240000000002 {"jsonrpc":"2.0","method":"channelMessage","params":'
    b'{"channel":"lightning_executions_BTC_JPY","message":[{"id":1,"side":"HOLD","price":1,"size":1,"exec_date":"2021-12-12T23:05:29.9692063Z"}]}}',
    b'1723161240000000003 {"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"x","q":"1","T":1723161240000,"m":true}',
]


def record_ingest(folder: Path) -> None:
    """Live workers of all venues beside simulated ones, then replays of what they recorded, with garbage between."""
    with broker(folder) as bootstrap:
        deployment = Deployment(bootstrap, folder)
        deployment.run("topics", "create")
        live = {}
        for venue, markets in VENUES.items():
            live[venue] = live_run(deployment, venue, markets)
        asyncio.run(deployment.dump(1))
        commands = []
        for venue in VENUES:
            lines = b"".join(
                gzip.decompress(path.read_bytes()) for path in sorted((folder / f"recorded-{venue}").rglob("*.gz"))
            ).splitlines()[:150]
            for place, garbage in enumerate(GARBAGE):
                lines.insert(10 * place + 3, garbage)
            path = folder / f"{venue}.txt.gz"
            path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n", mtime=0))
            shutil.copy(path, DATA / path.name)
            commands.append(
                deployment.run("ingest", "replay", "--venue", venue, path.name, "--summary", "summary.json")
            )
            summary = json.loads((folder / "summary.json").read_text())
            del summary["seconds"]
            commands[-1]["summary"] = summary
        asyncio.run(deployment.dump(2))
        write_lines("ingest.jsonl.gz", map(to_line, deployment.records))
        write_json(
            "ingest.json",
            {"live": live, "replays": commands, "metrics": deployment.metrics,
             "logs": {name: events(log) for name, log in deployment.logs.items()}},
        )  # fmt: skip


def record_command_lines(folder: Path) -> None:
    """What command lines print that need no broker."""
    found = run_in_folders(COMMANDS, folder)
    write_json(
        "command_lines.json", [{"command": str(command)} | one for command, one in zip(COMMANDS, found, strict=True)]
    )
    (folder / "help").mkdir()
    found = run_in_folders(HELP, folder / "help")
    write_json(
        "options.json",
        {
            str(command): {"status": one["status"], "options": options_in(one["stdout"])}
            for command, one in zip(HELP, found, strict=True)
        },
    )


def record_catalogues(_: Path) -> None:
    """What is named in the code: topics, settings, metrics, errors."""
    from ashi.runtime.catalogue import CATALOGUE
    from sinks.registry import SCHEMES
    from sinks.worker import sink_group

    from ashi.contracts import errors, topics
    from ashi.contracts.candle import CANDLE_SCHEMA
    from ashi.contracts.feed import FEED_STATUS_SCHEMA
    from ashi.contracts.timeframe import parse_timeframes
    from ashi.runtime import metrics

    specs = topics.topic_specs(2, parse_timeframes("1s,1m,1d"))
    write_json(
        "catalogues.json",
        {
            "topics": [[spec.name, spec.partitions, spec.config] for spec in specs],
            "settings": [
                [one.variable, one.default, one.text, one.secret, one.when_unset, one.field] for one in CATALOGUE
            ],
            "metrics": sorted([one.name, one.stage, one.kind, list(one.labels), one.text] for one in metrics.CATALOGUE),
            "application": topics.AGGREGATE_APP,
            "groups": {name: sink_group(name) for name in ("sqlite", "postgres", "lake", "lake-trades")},
            "schemes": SCHEMES,
            "schemas": [TRADE_SCHEMA, CANDLE_SCHEMA, FEED_GAP_SCHEMA, FEED_STATUS_SCHEMA],
            "exit statuses": {
                error.__name__: error.exit_status
                for error in vars(errors).values()
                if isinstance(error, type) and issubclass(error, errors.AshiError)
            }
            | {"partial": errors.EXIT_PARTIAL, "interrupted": errors.EXIT_INTERRUPTED},
        },
    )


def main() -> None:
    """Record all, or what is named."""
    DATA.mkdir(exist_ok=True)
    steps = {
        "catalogues": record_catalogues,
        "commands": record_command_lines,
        "flow": record_flow,
        "ingest": record_ingest,
    }
    for name in sys.argv[1:] or steps:
        with tempfile.TemporaryDirectory(prefix="ashi-record-") as folder:
            steps[name](Path(folder).resolve())
        print(name, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    main()
