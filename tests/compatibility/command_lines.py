"""Command lines that need no broker, and what of their output is the machine's and not Ashi's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ASHI = Path(sys.executable).with_name("ashi")
SECRET = "hunter2"
CLOSED = "127.0.0.1:1"
"""Nobody listens there."""


class Command(NamedTuple):
    """A command line and the environment it runs in."""

    argv: tuple[str, ...]
    env: dict[str, str]

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value}" for name, value in self.env.items()), "ashi", *self.argv])


def command(text: str, **env: str) -> Command:
    """A command line as one writes it, and settings of its environment."""
    return Command(tuple(text.split()), env)


def make_files(folder: Path) -> None:
    """The files that the command lines name."""
    (folder / "empty.txt").write_text("")
    (folder / "words.txt").write_text("these are no frames\n")
    (folder / "not.gz").write_bytes(b"\x1f\x8b not gzip")
    (folder / "not.db").write_text("this is no database, only a text that is long enough to be looked at\n" * 20)
    (folder / "secret.txt").write_text(f"postgresql://ashi:{SECRET}@{CLOSED}/market\n")
    (folder / "empty-secret.txt").write_text("")
    (folder / "klines.csv").write_text("these,are,no,klines\n")
    (folder / "folder").mkdir(exist_ok=True)


_HELP = (
    "", "demo", "broker", "broker start", "broker stop", "broker status", "topics", "topics create", "topics check",
    "ingest", "ingest replay", "ingest bitflyer", "ingest gmo", "ingest binance", "ingest binance-usdm", "aggregate",
    "aggregate reconfigure", "sink", "candles", "verify", "rebuild", "lake", "lake compact", "lake vacuum", "venue-sim",
)  # fmt: skip
HELP = tuple(Command((*text.split(), "--help"), {}) for text in _HELP)

WAIT_FOR_KAFKA = frozenset(
    {
        "ashi aggregate",
        "ASHI_TIMEFRAME=1m ashi aggregate",
        "ASHI_LOG_LEVEL=error ashi aggregate",
        "ashi sink sqlite --storage sqlite:///missing/candles.db",
        "ashi sink sqlite --storage sqlite:///new.db",
    }
)
"""They ended where Kafka could not be reached, as is recorded, and wait for it since."""

ADDED = (
    ("demo, up, broker", "demo, broker"),
    ("sink, strategy, status, doctor, symbols, candles, chart, verify", "sink, candles, verify"),
    ("replay, backfill, bitflyer", "replay, bitflyer"),
    ("create, check, grow", "create, check"),
    ("rebuild, history, lake", "rebuild, lake"),
    ("compact, vacuum, publish", "compact, vacuum"),
    ("SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", "SCRAM-SHA-256 or SCRAM-SHA-512"),
    # Options of a storage may be a password.
    ("'sqlite:///candles.db' has options", "'sqlite:///candles.db?mode=ro' has options"),
    ("known stores are", "there is"),
    ("is not there or is not a file", "is not there or is no file"),
    ("is not VENUE:MARKET, such as bitflyer:BTC_JPY", "is not VENUE=MARKET, such as bitflyer=BTC_JPY"),
)
"""What lists of choices have gained since, what is not shown any more, what is said better: as it is, and as it was."""

_RANGE = "--from 2026-11-01 --to 2026-11-02"

COMMANDS = (
    command("--version"),
    # The command itself.
    command(""),
    command("nonsense"),
    command("--nonsense"),
    command("demo --nonsense"),
    command("--vers"),
    command("topics"),
    command("topics delete"),
    command("topics create extra"),
    command("topics check --fix"),
    command("ingest"),
    command("ingest kraken"),
    command("ingest replay"),
    command("ingest replay --venue binance"),
    command("ingest replay words.txt"),
    command("ingest replay --venue kraken words.txt"),
    command("ingest replay --venue binance missing.txt"),
    command("ingest replay --venue binance folder"),
    command("ingest replay --venue binance not.gz"),
    command("ingest replay --venue binance words.txt"),
    command("ingest bitflyer"),
    command("ingest bitflyer BTC_JPY --all"),
    command("ingest bitflyer BTC_JPY --shard 2"),
    command("ingest bitflyer BTC_JPY --shard 2/2"),
    command("ingest bitflyer BTC_JPY --shard a/b"),
    command("ingest gmo BTC --shard 0/0"),
    command("ingest gmo BTC --record"),
    command("ingest binance BTCUSDT --sha 1/2"),
    command("aggregate now"),
    command("aggregate reconfigure --from yesterday"),
    command("aggregate reconfigure --from"),
    command("aggregate"),
    command("aggregate reconfigure"),
    command("topics create"),
    command("topics check"),
    command("topics create", ASHI_KAFKA_BOOTSTRAP="no-port"),
    # Sinks.
    command("sink"),
    command("sink mysql"),
    command("sink sqlite --storage"),
    command("sink sqlite --storage candles.db"),
    command("sink sqlite --storage sqlite://candles.db"),
    command("sink sqlite --storage sqlite:///"),
    command("sink sqlite --storage sqlite:///:memory:"),
    command("sink sqlite --storage sqlite:///candles.db?mode=ro"),
    command("sink sqlite --storage sqlite:///folder"),
    command("sink sqlite --storage sqlite:///not.db"),
    command("sink sqlite --storage sqlite:///missing/candles.db"),
    command("sink sqlite --storage sqlite:///new.db"),
    command(f"sink sqlite --storage postgresql://ashi:{SECRET}@{CLOSED}/market"),
    command("sink sqlite --topic trades"),
    command("sink sqlite --topic gaps"),
    command("sink sqlite --migrate"),
    command("sink sqlite --migrate --from-beginning"),
    command("sink postgres"),
    command(f"sink postgres --storage postgresql+asyncpg://ashi:{SECRET}@{CLOSED}/market"),
    command(f"sink postgres --migrate --storage postgresql://ashi:{SECRET}@{CLOSED}/market"),
    command(f"sink postgres --storage postgresql://ashi:{SECRET}@{CLOSED}"),
    command(f"sink postgres --storage postgresql://ashi:{SECRET}@{CLOSED}/market --topic trades"),
    command(f"sink postgres --storage mysql://ashi:{SECRET}@{CLOSED}/market"),
    command(f"sink postgres --storage ashi:{SECRET}@{CLOSED}/market"),
    command("sink postgres --migrate", ASHI_STORAGE_FILE="secret.txt"),
    command("sink postgres", ASHI_STORAGE_FILE="missing.txt"),
    command("sink postgres", ASHI_STORAGE_FILE="empty-secret.txt"),
    command("sink postgres", ASHI_STORAGE_FILE="secret.txt", ASHI_STORAGE="sqlite:///candles.db"),
    command("sink postgres", ASHI_STORAGE=f"ashi:{SECRET}@{CLOSED}"),
    command("sink lake --storage lake://data/lake"),
    command("sink lake --storage lake:///"),
    command("sink lake --migrate --storage lake:///lake"),
    command("sink lake --storage lake:///not.db"),
    # What is stored.
    command("candles"),
    command("candles binance:ETHUSDT"),
    command("candles binance:ETHUSDT 1m --limit 0"),
    command("candles binance:ETHUSDT 1m --limit many"),
    command("candles binance:ETHUSDT 1m --storage sqlite:///missing.db"),
    command("candles binance:ETHUSDT 1m --storage sqlite:///not.db"),
    command("candles binance:ETHUSDT 1m --storage mongo://x"),
    command(f"candles binance:ETHUSDT 1m --storage postgresql://ashi:{SECRET}@{CLOSED}/market"),
    command(f"candles binance:ETHUSDT 1m postgresql://ashi:{SECRET}@{CLOSED}/market"),
    command(f"candles binance:ETHUSDT 1m --storage sqlite://ashi:{SECRET}@{CLOSED}/candles.db"),
    command(f"verify sqlite:///missing.db --trades postgresql://ashi:{SECRET}@{CLOSED}/market"),
    command("candles ETHUSDT 1m --storage sqlite:///missing.db"),
    command("candles binance:ETHUSDT 7q --storage sqlite:///missing.db"),
    command("verify"),
    command("verify sqlite:///missing.db"),
    command("verify candles.db --trades"),
    command("verify sqlite:///missing.db --trades sqlite:///other.db"),
    command("verify sqlite:///missing.db --trades --klines binance"),
    command("verify sqlite:///missing.db --storage sqlite:///missing.db --trades"),
    command("verify sqlite:///missing.db --klines klines.csv"),
    command("verify sqlite:///missing.db --klines missing.csv"),
    command("verify sqlite:///missing.db --klines binance --recording binance=words.txt"),
    command("verify sqlite:///missing.db --trades --recording words.txt"),
    command("verify sqlite:///missing.db --trades --recording kraken=words.txt"),
    command("verify sqlite:///missing.db --trades --recording binance=missing.txt"),
    command("verify sqlite:///missing.db --trades --timeframe 7m"),
    command("verify sqlite:///missing.db --trades --from 2026-13-01"),
    command("verify sqlite:///missing.db --trades"),
    command("verify sqlite:///missing.db --trades lake:///no/lake"),
    command("rebuild"),
    command("rebuild --from 2026-11-01"),
    command("rebuild --from 2026-11-02 --to 2026-11-01"),
    command(f"rebuild {_RANGE} --trades everything"),
    command(f"rebuild {_RANGE}"),
    command(f"rebuild {_RANGE} --trades lake:///no/lake"),
    command("lake"),
    command("lake compact"),
    command("lake compact --storage lake:///no/lake"),
    command("lake vacuum --retention 5m"),
    command("lake vacuum --retention week"),
    command("lake vacuum --storage sqlite:///candles.db"),
    # One machine.
    command("broker start --port 0"),
    command("broker start --port 70000"),
    command("broker start --port http"),
    command("broker stop"),
    command("broker status"),
    command("broker restart"),
    command("broker status --workdir elsewhere"),
    command("demo --workers 0"),
    command("demo --timeframes 1m,7m,x"),
    command("demo --timeframes 2m,3m"),
    command("demo --recording words.txt"),
    command("demo --recording kraken=words.txt"),
    command("demo --recording binance=missing.txt"),
    command("demo --storage candles.db"),
    command("demo --storage mongo://x"),
    command("demo --storage sqlite:///not.db"),
    command("demo --market BTC_JPY"),
    command("demo --market bitflyer=BTC_JPY"),
    command("demo --live --market kraken=BTC_JPY"),
    command("demo --live --recording binance=words.txt"),
    command("demo --seconds 5"),
    command("demo --seconds soon"),
    command("venue-sim"),
    command("venue-sim kraken"),
    command("venue-sim binance --rate 0"),
    command("venue-sim binance --rate fast"),
    command("venue-sim binance --seed x"),
    command("venue-sim binance --speed x"),
    command("venue-sim binance --start later"),
    command("venue-sim binance --port 99999"),
    command("venue-sim binance --script missing.json"),
    command("venue-sim binance --script words.txt"),
    command("venue-sim binance --recording missing.txt"),
    # Settings.
    command("topics create", ASHI_PARTITIONS="0"),
    command("topics create", ASHI_PARTITIONS="many"),
    command("topics create", ASHI_REPLICATION="101"),
    command("topics create", ASHI_TIMEFRAMES="1m,90s"),
    command("topics create", ASHI_TIMEFRAMES="1m,1m"),
    command("topics create", ASHI_TIMEFRAMES="2d"),
    command("topics create", ASHI_KAFKA_SECURITY_PROTOCOL="TLS"),
    command("topics create", ASHI_KAFKA_SECURITY_PROTOCOL="SASL_SSL"),
    command("topics create", ASHI_KAFKA_USERNAME="ashi"),
    command("topics create", ASHI_KAFKA_PASSWORD=SECRET),
    command("topics create", ASHI_KAFKA_CA_FILE="missing.pem"),
    command("topics create", ASHI_KAFKA_CA_FILE="words.txt"),
    command("topics create", ASHI_KAFKA_CA_FILE="words.txt", ASHI_KAFKA_SECURITY_PROTOCOL="SSL"),
    command("topics create", ASHI_KAFKA_SASL_MECHANISM="GSSAPI"),
    command("topics create", ASHI_ALLOWED_LATENESS="2"),
    command("topics create", ASHI_ALLOWED_LATENESS="2d"),
    command("topics create", ASHI_ALLOWED_LATENESS="3m"),
    command("topics create", ASHI_CORRECTION_HORIZON="31d"),
    command("topics create", ASHI_CORRECTION_HORIZON="1d", ASHI_TIMEFRAMES="1s"),
    command("topics create", ASHI_QUIET_CLOSE="yes"),
    command("topics create", ASHI_FLAT_CANDLES="-1"),
    command("topics create", ASHI_CHECKPOINT_INTERVAL="31s"),
    command("topics create", ASHI_CHECKPOINT_INTERVAL="20s"),
    command("topics create", ASHI_SESSION_TIMEOUT="1s"),
    command("topics create", ASHI_METRICS_PORT="tcp://10.0.0.1:80"),
    command("topics create", ASHI_METRICS_PORT="65536"),
    command("topics create", ASHI_LOG_FORMAT="xml"),
    command("aggregate", ASHI_LOG_LEVEL="chatty"),
    command("aggregate", ASHI_TIMEFRAME="1m"),
    command("aggregate", ASHI_LOG_LEVEL="error"),
    command("topics create", ASHI_WEBSOCKET_URL="http://127.0.0.1"),
    command("topics create", ASHI_REST_URL="127.0.0.1"),
    command("topics create", ASHI_FEED_BUFFER="10"),
    command("topics create", ASHI_REPAIR_PATIENCE="500ms"),
    command("topics create", ASHI_SINK_GROUP="with blank"),
    command("topics create", ASHI_SINK_BATCH_SIZE="0"),
    command("topics create", ASHI_SINK_BATCH_INTERVAL="2m"),
    command("broker start", ASHI_JAVA="missing/java"),
)  # fmt: skip


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without settings of whoever runs this, and with no Kafka; output is as wide everywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASHI_")}
    return kept | {"ASHI_KAFKA_BOOTSTRAP": CLOSED, "COLUMNS": "120", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"} | more


def run_in_folders(commands: Sequence[Command], folder: Path) -> list[dict[str, Any]]:
    """Run commands, each in a folder of its own with the files they name: exit status, stdout and stderr of each."""
    folders = [folder / str(number) for number in range(len(commands))]
    for own in folders:
        own.mkdir()
        make_files(own)
    jobs = [
        [command.argv, clean_environment(**command.env), str(own)]
        for command, own in zip(commands, folders, strict=True)
    ]
    forks = [sys.executable, str(Path(__file__).with_name("forked_commands.py"))]
    done = subprocess.run(forks, input=json.dumps(jobs).encode(), cwd=folder, stdout=subprocess.PIPE, check=True)
    return [
        {"status": status, **{name: without_machine((own / name).read_text(), own) for name in ("stdout", "stderr")}}
        for status, own in zip(json.loads(done.stdout), folders, strict=True)
    ]


_MASKS = (
    (re.compile(r'"time":"[^"]*"'), '"time":"TIME"'),
    (re.compile(r"\bhttp://127\.0\.0\.1:\d+/metrics"), "http://127.0.0.1:PORT/metrics"),
    (re.compile(r'"seconds":[0-9.]+'), '"seconds":SECONDS'),
    (re.compile(r',"process_s":[0-9.]+'), ""),  # which the version before did not say
    (re.compile(r"_ssl\.c:\d+"), "_ssl.c:LINE"),
    # Python before 3.12 writes the choices of an option another way than later ones.
    (re.compile(r"\(choose from ([^)]*)\)"), lambda found: f"(choose from {found[1].replace(chr(39), '')})"),
)


def without_machine(text: str, folder: Path) -> str:
    """Output with what differs from machine to machine and from run to run replaced."""
    for path in {str(folder), str(folder.resolve())}:
        text = text.replace(path, "FOLDER")
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


def options_in(help_text: str) -> list[str]:
    """The options that a help text explains, each at the beginning of a line."""
    lines = re.findall(r"^  (-[^\n]*)", help_text, re.MULTILINE)
    return sorted({name for line in lines for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.split("  ")[0])})
