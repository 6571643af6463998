"""Which part of a venue's symbols one worker of several reads."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ashi.contracts.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_TEXT = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """Worker `number`, counted from 0 as the ordinals of a StatefulSet are, of `count` workers."""

    number: int
    count: int


def parse_shard(text: str) -> Shard:
    """Read `2/5`: the third of five workers. Raises UsageError that says what to write instead."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise UsageError(
            f"shard {text!r} is not NUMBER/COUNT: write 0/5 for the first of five workers, 4/5 for the last"
        )
    number, count = int(match[1]), int(match[2])
    if number >= count:
        raise UsageError(
            f"shard {text!r}: there is no worker {number} among {count}, they are counted from 0: "
            + (f"write 0/{count} to {count - 1}/{count}" if count else "write 0/1 for a single worker")
        )
    return Shard(number, count)


def shard_of(symbol: str, count: int) -> int:
    """The worker, of so many, that a symbol belongs to: the CRC-32 of its UTF-8 text, modulo `count`.

    The same in every process and release, so that all workers agree and each symbol has exactly one. Another hash than
    that of Kafka's partitions, so that the symbols of a worker spread over all partitions.
    """
    return zlib.crc32(symbol.encode()) % count


def select(symbols: Iterable[str], shard: Shard) -> list[str]:
    """Those of `symbols` that belong to the shard, in the order given."""
    return [symbol for symbol in symbols if shard_of(symbol, shard.count) == shard.number]
