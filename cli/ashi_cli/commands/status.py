"""`ashi status`: the pipeline at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import SYMBOLS


def status(
    *,
    once: Annotated[bool, Option("print one snapshot and exit (the default when output is not a terminal)")] = False,
    json: Annotated[bool, Option("look once and print it as one line of JSON (docs/status.md)")] = False,
    symbols: Annotated[Sequence[str], SYMBOLS] = (),
    interval: Annotated[
        int, Option("refresh interval (default: 2s)", metavar="DURATION", parse=values.interval)
    ] = 2_000_000,
) -> int:
    """`ashi status`."""
    from ashi.contracts.errors import ContractError, UsageError
    from ashi.contracts.symbol import split_symbol
    from ashi.runtime.settings import Settings

    require_extras("status")
    for symbol in symbols:
        try:
            split_symbol(symbol)
        except ContractError as error:
            raise UsageError(f"--symbol: {error}") from None
    from ashi_operations.status.run import run_status

    settings = Settings.from_environment()
    return run_status(settings, symbols=symbols, once=once, as_json=json, interval_s=interval / 1_000_000)


STATUS: Final = Command(
    name="status",
    text="show feeds, stages, stores, lag and delay, and what is wrong with them, until Ctrl-C",
    run=status,
    epilog="""\
examples:
  ashi status
  ashi status --once
  ashi status --json | jq .problems
  ashi status --once --symbol bitflyer:BTC_JPY

It asks Kafka alone (ASHI_KAFKA_BOOTSTRAP and so on), and needs no process of Ashi to answer. What cannot be known is
said, with the reason. Exit status 1: Kafka cannot be reached. `ashi doctor` says whether all is set up as it must.""",
)
