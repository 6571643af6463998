"""`ashi symbols`: what there is in a store."""

from __future__ import annotations

from typing import Annotated, Final

from ashi_cli.declaration import Command
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import STORAGE, settings_with


def symbols(*, storage: Annotated[str | None, STORAGE] = None) -> int:
    """`ashi symbols`."""
    url = settings_with(storage).storage
    require_extras("symbols", store=url)
    from ashi_cli.printing.symbols import print_symbols

    return print_symbols(url)


SYMBOLS: Final = Command(
    name="symbols",
    text="list what is stored: symbols, their timeframes, first and last candle, how their feed is",
    run=symbols,
    epilog="""\
examples:
  ashi symbols
  ashi symbols --storage postgresql://ashi@db/market

First and last are open times of the finest timeframe. The feed is as it was said last (docs/venues.md):
`unknown` when its worker has not said so for a minute, `-` when nothing was ever said, as of recordings.""",
)
