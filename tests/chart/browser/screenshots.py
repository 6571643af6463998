"""The pictures of the chart in README: of `ashi up --simulate`, by `make screenshots`.

Everything is as a user has it, with nothing but made-up markets; only the size of a picture is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chromium import BOUND_S, a_page, chromium

from servers.free_ports import free_port

if TYPE_CHECKING:
    from playwright.async_api import Browser

IMAGES: Final = Path(__file__).parents[3] / "docs" / "images"
START_S: Final = 240.0
DESKTOP: Final[dict[str, Any]] = {"viewport": {"width": 1280, "height": 720}, "color_scheme": "dark"}
PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 360, "height": 720},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "color_scheme": "light",
}
MOST_BYTES: Final = 150_000
READY: Final = """(() => {
  const { bars, state } = window.ashi ?? {};
  return bars && bars().length > 150 && state().feed?.state === "connected"
    && !state().gaps.some((gap) => gap.state === "open");
})()"""


async def take(address: str, images: Path, symbol: str, timeframe: str) -> None:
    """Make the pictures of a server that runs."""
    chart = f"{address}chart?symbol={symbol}&timeframe={timeframe}"
    async with chromium("--force-device-scale-factor=1") as browser:
        await picture(browser, chart, images / "chart-dark.png", DESKTOP)
    # Canvases are blurred where twice the pixels are emulated only.
    async with chromium("--force-device-scale-factor=2") as browser:
        await picture(browser, chart, images / "chart-phone-light.png", PHONE)


async def picture(browser: Browser, url: str, path: Path, options: dict[str, Any]) -> None:
    async with a_page(browser, url, **options) as watched:
        await watched.until(READY, "what the picture is of", timeout_s=START_S)
        await watched.page.evaluate("document.fonts.ready")
        await asyncio.sleep(2)  # a price or two
        picture = await watched.page.screenshot()
    assert len(picture) < MOST_BYTES, (
        f"{path} would have {len(picture)} bytes: more than README should make people load"
    )
    await asyncio.to_thread(path.write_bytes, picture)
    sys.stdout.write(f"{path}: {len(picture)} bytes\n")


def wait_until_served(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the chart answers."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=BOUND_S):
                return
        except OSError:
            assert process.poll() is None, f"ashi up has ended with {process.returncode}"
            assert time.monotonic() < deadline, f"no chart within {START_S:.0f} s"
            time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="of a chart that runs, such as http://127.0.0.1:8080/ (default: starts one)")
    parser.add_argument("--symbol", default="binance:BTCUSDT")
    parser.add_argument("--timeframe", default="1m")
    parser.add_argument("--images", type=Path, default=IMAGES)
    chosen = parser.parse_args()
    chosen.images.mkdir(parents=True, exist_ok=True)
    if chosen.address:
        asyncio.run(take(chosen.address, chosen.images, chosen.symbol, chosen.timeframe))
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ashi_cli.main", "up", "--simulate", "--workdir", folder, "--port", str(port)]
        process = subprocess.Popen(command, env=os.environ | {"ASHI_CHART_HOST": "127.0.0.1"})
        try:
            wait_until_served(process, port)
            address = f"http://127.0.0.1:{port}/"
            asyncio.run(take(address, chosen.images, chosen.symbol, chosen.timeframe))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


if __name__ == "__main__":
    main()
