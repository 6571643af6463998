"""What `ashi up` is to run: what it was asked for, what its folder remembers of the last time, and whether both fit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import parse_timeframes
from ashi_cli.onemachine.live import MARKETS, check_markets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ashi_cli.onemachine.options import UpOptions

SIMULATED: Final = ("binance:BTCUSDT", "binance:ETHUSDT", "binance:SOLUSDT", "binance:BNBUSDT")
"""What is simulated unless markets are named."""
FILE: Final = "up.json"


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder of `ashi up` remembers.

    Attributes:
        simulated: its trades are those of a simulator, not of exchanges.
        markets: the symbols that were read the last time, `venue:MARKET`.
        timeframes: as in ASHI_TIMEFRAMES.
        storage: the store's URL, without a password.

    """

    simulated: bool
    markets: list[str]
    timeframes: str
    storage: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run.

    Attributes:
        markets: by venue.
        named: whether somebody has named them, now or the last time; else they are those that trade most.
        timeframes: None for those of the settings.
        going_on: the folder has been used before.

    """

    markets: Mapping[str, Sequence[str]]
    named: bool
    timeframes: str | None
    going_on: bool


def recall(workdir: Path) -> Remembered | None:
    """What the folder remembers; None when nothing of `ashi up` is kept there.

    Raises UsageError when it cannot be read, or when there is a Kafka of somebody else.
    """
    path = workdir / FILE
    try:
        if not (workdir / "broker" / "data").exists():
            return None  # a start that came to nothing binds nobody
        return msgspec.json.decode(path.read_bytes(), type=Remembered)
    except FileNotFoundError:
        raise UsageError(
            f"{workdir} holds a Kafka that `ashi up` has not begun, of `ashi demo` or `ashi broker`: their trades and "
            "those to come must not be mixed; choose another --workdir"
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}): it says what {workdir} holds; restore it, or choose another --workdir"
        ) from error


def remember(workdir: Path, remembered: Remembered) -> None:
    """Write it, whole or not at all. Raises OSError."""
    draft = workdir / f"{FILE}.tmp"
    draft.write_bytes(msgspec.json.encode(remembered))
    draft.replace(workdir / FILE)


def make_plan(options: UpOptions, workdir: Path, before: Remembered | None) -> Plan:
    """Raise UsageError for what cannot be, or does not fit what the folder holds."""
    if before is not None and before.simulated != options.simulate:
        raise UsageError(
            f"{workdir} holds {'simulated' if before.simulated else 'real'} trades, and these must not be mixed: "
            f"{'add' if before.simulated else 'leave out'} --simulate, or choose another --workdir"
        )
    markets = _by_venue(options.markets)
    if not markets and before is not None:
        markets = _by_venue([_parts(symbol) for symbol in before.markets])
    named = bool(markets)
    check_markets(markets, "")
    return Plan(
        markets=markets or (_by_venue([_parts(symbol) for symbol in SIMULATED]) if options.simulate else MARKETS),
        named=named,
        timeframes=_timeframes(options.timeframes, workdir, before),
        going_on=before is not None,
    )


def _timeframes(wanted: str | None, workdir: Path, before: Remembered | None) -> str | None:
    """Those of the folder, as its candles are made of them. Raises UsageError when others are asked for."""
    if before is None:
        return wanted
    asked = wanted or os.environ.get("ASHI_TIMEFRAMES") or before.timeframes
    if parse_timeframes(asked) != parse_timeframes(before.timeframes):
        named = "--timeframes" if wanted else "ASHI_TIMEFRAMES"
        raise UsageError(
            f"the candles of {workdir} are of {before.timeframes}, and {named} says {asked}: leave it out to go on, or "
            "choose another --workdir"
        )
    return before.timeframes


def check_storage(storage: str, workdir: Path, before: Remembered | None) -> None:
    """Raise UsageError when candles were kept elsewhere so far. `storage` is without a password."""
    if before is not None and storage != before.storage:
        raise UsageError(
            f"{workdir} keeps its candles in {before.storage} and has read them up to there, so {storage} would lack "
            "those before: pass --storage {before.storage}, or choose another --workdir"
        )


def _parts(symbol: str) -> tuple[str, str]:
    venue, _, market = symbol.partition(":")
    return venue, market


def _by_venue(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for venue, market in dict.fromkeys(pairs):
        grouped.setdefault(venue, []).append(market)
    return grouped
