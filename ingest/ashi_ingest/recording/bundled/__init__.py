"""Real recordings that come with Ashi, for the demonstration and the tests. See docs/recordings.md.

They are trade frames from the projects hftbacktest and cryptofeed; their licences stand beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent

BUNDLED: Final[dict[str, list[Path]]] = {
    "bitflyer": [_HERE / "bitflyer-20211212.txt.gz"],
    "binance": [_HERE / "binance-ethusdt-20240808.txt.gz", _HERE / "binance-ethusdt-20240809.txt.gz"],
}
"""The recordings of each venue, in the order they were made."""
