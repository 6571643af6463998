"""`ashi strategy backtest` as it is typed: what it prints, writes, refuses, and its exit status."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from ashi.contracts import Candle
from ashi.contracts.signal import decode_signal
from ashi_cli.main import main
from ashi_ingest.recording.bundled import BUNDLED
from ashi_sinks.registry import make_sink

SYMBOL = "binance:ETHUSDT"
START = 1_700_000_040_000_000
MINUTE = 60_000_000

OWN = """
from ashi_strategies import Strategy, long

class Counts(Strategy):
    every: int = 7
    seen = 0

    @property
    def startup_candles(self):
        return 3

    def on_candle(self, candle, series):
        self.seen += 1
        return None if self.seen % self.every else long()
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The URL of a store with two hours of a price that goes up and down."""
    url = f"sqlite:///{tmp_path}/candles.db"
    candles = []
    for n in range(120):
        open_, close = (Decimal(100 + abs((m * 7) % 40 - 20)) for m in (n, n + 1))
        candles.append(
            Candle(
                SYMBOL, "1m", START + n * MINUTE, START + (n + 1) * MINUTE, open_, max(open_, close), min(open_, close),
                close, Decimal(1), close, 1, Decimal(0), Decimal(0), str(n), str(n), n,
            )
        )  # fmt: skip

    async def fill() -> None:
        sink = make_sink(url)
        await sink.open()
        await sink.write(candles)
        await sink.close()

    asyncio.run(fill())
    return url


@pytest.fixture
def backtest(store: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command over the store with some more words; its exit status and what it printed."""

    def run(*words: str, name: str = "ma_cross") -> tuple[int, str]:
        asked = ["strategy", "backtest", name, "--symbol", SYMBOL, "--timeframe", "1m", "--store", store, *words]
        status = main(asked)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_it_prints_a_label_and_the_figures_and_writes_the_file(backtest, tmp_path):
    path = tmp_path / "out.json"
    status, text = backtest("--fast", "2", "--param", "slow=4", "--fee", "0.002", "--output", str(path))
    assert status == 0, text
    lines = text.splitlines()
    assert lines[0].startswith("SIMULATION: ")
    assert "strategy    ma_cross(fast=2,slow=4)" in lines
    written = json.loads(path.read_text())
    signals = [decode_signal(json.dumps(signal).encode()) for signal in written["signals"]]
    assert len(signals) > 20
    assert f"signals     {len(signals)}: " in text
    assert f"trades      {written['summary']['trades']}, {written['summary']['wins']} with a profit" in text
    assert "checks      passed" in lines
    gained = Decimal(written["summary"]["total_return"])
    assert f"return      {round(gained * 100, 2):+} % after fees" in text


def test_bounds_and_figures_of_a_part(backtest):
    status, text = backtest("--from", "2023-11-14T23:10", "--to", "2023-11-14T23:40", "--capital", "500", "--no-checks")
    assert status == 0
    assert "candles     30 closed from 2023-11-14 23:11:00 to 2023-11-14 23:40:00 (UTC)" in text
    assert "equity      500.00 to " in text
    assert "checks      not made\n" in text


def test_a_strategy_of_ones_own_that_remembers_too_long_ends_with_1(backtest, tmp_path, monkeypatch):
    (tmp_path / "own_ideas.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    status, text = backtest("--param", "every=5", name="own_ideas:Counts")
    assert status == 1
    assert "checks      FAILED" in text
    assert "WRONG: startup: counts(every=5) gave " in text
    assert "Raise startup_candles (binance:ETHUSDT 1m: 3)" in text


def test_one_that_goes_by_the_date_may_where_that_is_allowed(backtest, tmp_path, monkeypatch):
    by_the_minute = OWN.replace("self.seen += 1", "self.seen = candle.open_time // 60_000_000")
    (tmp_path / "own_dates.py").write_text(by_the_minute)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert backtest("--param", "every=11", name="own_dates:Counts")[0] == 1
    status, text = backtest("--param", "every=11", "--allow-calendar", name="own_dates:Counts")
    assert (status, "checks      passed, but elsewhere was left out\n" in text) == (0, True), text


def test_fees_are_those_that_are_asked_for(backtest):
    assert ", fees 0.00\n" in backtest("--fast", "2", "--slow", "4", "--fee", "0")[1]
    assert ", fees 0.00\n" not in backtest("--fast", "2", "--slow", "4")[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--param", "fast=x"], "ma_cross: fast is 'x'"),
        (["--param", "quick=1"], "ma_cross has no parameter quick: there are fast, slow"),
        (["--fast", "2", "--param", "fast=3"], "a parameter is given twice among fast, fast"),
        (["--from", "2030-01-01"], "too few candles to test ma_cross(fast=9,slow=21): there is none in that time\n"),
        (["--slow", "500"], "of binance:ETHUSDT 1m more are needed before its first signal"),
        (["--symbol", "binance:ETHUSD"], "there are no candles of 'binance:ETHUSD'; there are binance:ETHUSDT"),
        (["--timeframe", "5m"], "there are no 5m candles of binance:ETHUSDT; there are 1m"),
        (["--plot", "x.gif"], "x.gif is not the name of a picture"),
        (["--output", "/nowhere/x.json"], "the backtest cannot be written to /nowhere/x.json"),
        (["--from", "2023-11-15", "--to", "2023-11-14"], "--from must be before --to"),
        (["--storage", "sqlite:///x.db"], "the store is given twice"),
        (["--recording", "binance=x"], "--recording takes the place of a store"),
    ],
)
def test_what_is_wrong_is_told_with_2(backtest, words, sentence):
    status, text = backtest(*words)
    assert (status, len(text.splitlines())) == (2, 1), text
    assert sentence in text


@pytest.mark.parametrize(("option", "value"), [("--fee", "1"), ("--fee", "-0.1"), ("--capital", "0"), ("--param", "x")])
def test_values_that_cannot_be_are_refused(backtest, capsys, option, value):
    with pytest.raises(SystemExit) as ended:
        backtest(f"{option}={value}")
    assert ended.value.code == 2
    assert f"argument {option}: {value!r} is not" in capsys.readouterr().err


def test_the_command_on_the_page_runs_in_the_clone_as_it_stands_there(monkeypatch, capsys):
    root = Path(__file__).parents[2]
    page = (root / "docs" / "strategies.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^    ashi (strategy backtest (?:.*\\\n)*.*)$", page, re.MULTILINE)
    monkeypatch.chdir(root)
    assert main(command.replace("\\\n", " ").split()) == 0
    assert "signals     12: 6 long, 6 flat" in capsys.readouterr().out


@pytest.mark.processes  # the picture: see tests/strategies/test_backtest.py
def test_recordings_are_a_source_and_the_picture_is_written(tmp_path, capsys):
    path = tmp_path / "eth.svg"
    recordings = [word for file in BUNDLED["binance"] for word in ("--recording", f"binance={file}")]
    asked = ["strategy", "backtest", "ma_cross", "--symbol", SYMBOL, "--timeframe", "1s", "--fast", "3", "--slow", "9"]
    assert main([*asked, *recordings, "--plot", str(path)]) == 0
    text = capsys.readouterr().out
    assert "checks      passed" in text
    assert path.read_bytes().startswith(b"<?xml")
