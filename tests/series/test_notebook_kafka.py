"""The notebook of docs/examples, executed as Jupyter would, while candles come."""

from __future__ import annotations

import asyncio
import re
import threading
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

from ashi.contracts.candle import encode_candle
from ashi.contracts.records import live_key
from ashi.contracts.topics import CANDLES, CANDLES_LIVE
from ashi.runtime.kafka.connections.clients import make_producer
from samples.candles import a_candle

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings

NOTEBOOK = Path(__file__).parents[2] / "docs/examples/live_chart.ipynb"
SYMBOL = "binance:BTCUSDT"
BOUND_S = 150

pytestmark = [pytest.mark.kafka, pytest.mark.outside]


async def publish(settings: Settings, ended: threading.Event) -> None:
    """Three candles at first; then one is in progress, closes, and the next begins, and so on."""
    producer = make_producer(settings)
    await producer.start()
    try:
        for minute in count():
            candle = a_candle(minute, 2 * minute + 2, symbol=SYMBOL)
            if minute >= 3:
                key = live_key(SYMBOL, "1m")
                live = a_candle(minute, 2 * minute + 1, symbol=SYMBOL)
                await producer.send_and_wait(CANDLES_LIVE, encode_candle(live), key)
            await producer.send_and_wait(CANDLES, encode_candle(candle), SYMBOL.encode())
            if minute >= 3 and await asyncio.to_thread(ended.wait, 0.2):
                return
    finally:
        await producer.stop()


def test_it_is_kept_without_what_it_printed_and_is_short() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[], []]
    assert [cell.execution_count for cell in code] == [None, None]
    lines = [line for line in code[1].source.splitlines() if line.strip()]
    assert len(lines) <= 24


def test_its_chart_moves_with_the_candles(kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASHI_KAFKA_BOOTSTRAP", kafka_settings.kafka_bootstrap)
    monkeypatch.setenv("PICTURES", "4")
    ended = threading.Event()
    publishing = threading.Thread(target=lambda: asyncio.run(publish(kafka_settings, ended)))
    publishing.start()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    pictures: list[dict[str, Any]] = []

    class Watching(NotebookClient):
        def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
            if message["msg_type"] == "update_display_data":
                pictures.append(message["content"]["data"])
            return super().process_message(message, cell, cell_index)

    try:
        Watching(notebook, timeout=BOUND_S, kernel_name="python3").execute()
    finally:
        ended.set()
        publishing.join()
    assert len(pictures) == 4
    assert len({picture["image/png"] for picture in pictures}) == 4  # it has moved each time
    [shown] = [output for output in notebook.cells[2].outputs if output.output_type == "display_data"]
    assert shown.data["image/png"] == pictures[-1]["image/png"]
    assert re.match("iVBOR", shown.data["image/png"])
