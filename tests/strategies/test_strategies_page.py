"""What docs/strategies.md shows works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from strategy_samples import a_candle

from ashi_strategies import load_strategy
from ashi_strategies.engine import PATIENCE_US, REACH

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")


def test_the_strategy_on_the_page_runs_as_the_page_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, run = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    closes = [100 + 5 * abs(window % 40 - 20) for window in range(100)]
    (tmp_path / "breakout_page.py").write_text(write, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    candles = [a_candle(*each) for each in enumerate(closes)]
    names: dict[str, Any] = {"Breakout": load_strategy("breakout_page:Breakout"), "candles": candles}
    exec(run, names)
    monkeypatch.delitem(sys.modules, "breakout_page")
    said = [(signal.strategy, signal.target, signal.reason) for signal in names["signals"]]
    assert ("breakout(length=10)", "long", "a new high") in said
    assert ("breakout(length=10)", "flat", "below the mean") in said


def test_the_numbers_on_the_page_are_those_of_the_engine() -> None:
    assert f"**{PATIENCE_US // 1_000_000} s**" in PAGE
    assert f"The engine keeps {REACH:,} candles" in PAGE
