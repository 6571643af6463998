"""What `ashi history export` has written, read again: the exports of a directory, and the trades of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import RecordingError, UsageError
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.spelling import did_you_mean
from ashi_history.export_sources import place_of
from ashi_history.fetched_files import EXPORT, STATE_SUFFIX, read_state
from ashi_history.reading import FileReader
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade
    from ashi_ingest.history.fetch import Short


class Export(NamedTuple):
    """The trades of a symbol as they were exported, from `since_us` on (µs; None: from the first that there was).

    `shorts`: what is missing of them after that.
    """

    symbol: str
    files: Sequence[Path]
    total: int
    since_us: int | None
    shorts: Sequence[Short]

    @property
    def size(self) -> int:
        """Of all files, bytes."""
        return sum(path.stat().st_size for path in self.files)

    def trades(self, on_read: Callable[[int], None] = lambda _: None) -> Iterator[Trade]:
        """They, in their order, each once.

        Raises RecordingError where a file can be read no further, or is not what was written: what comes after it must
        not be published without it.
        """
        last: Trade | None = None
        count = 0
        for path in self.files:
            reader = FileReader(path, self.symbol, on_read)
            for batch in reader.batches():
                for trade in batch:
                    if last is None or place_of(trade) > place_of(last):
                        count += 1
                        last = trade
                        yield trade
            if reader.notes:
                raise RecordingError(f"{reader.notes[0]}. {_AGAIN}")
        if count != self.total:
            raise RecordingError(
                f"{self.files[0]} to {self.files[-1].name} have {count:,} trades of {self.symbol}, and {self.total:,} "
                f"were exported: they are not what was written. {_AGAIN}"
            )


_AGAIN: Final = (
    "Nothing that follows is published, as what is missing would be late after it: put back what was exported, and "
    "give the same command again"
)


def exports_in(directory: Path, symbols: Sequence[str]) -> list[Export]:
    """The exports of these symbols, of all if empty, that a directory has, by symbol.

    Raises UsageError where there is none, one is not complete, or files are missing.
    """
    found: dict[str, Export] = {}
    there: list[str] = []
    for path in sorted(directory.glob(f"*{STATE_SUFFIX}")):
        state = read_state(path)
        if state is None or state.command != EXPORT:
            continue
        there.append(state.symbol)
        if symbols and state.symbol not in symbols:
            continue
        if state.symbol.partition(":")[0] not in VENUES:
            raise UsageError(
                f"{path} is of {state.symbol}, and there is no such venue: use the Ashi that has exported it"
            )
        if not state.is_whole:
            raise UsageError(f"{path}: the export of {state.symbol} was broken off. Give that command again first")
        files = [directory / name for name in state.files]
        missing = [each.name for each in files if not each.exists()]
        if missing:
            raise UsageError(
                f"{directory} lacks {len(missing):,} of the files of {state.symbol}, first {missing[0]}: put them "
                "back, as what is published after them would make them late"
            )
        since_us = None if state.from_us <= EARLIEST_US else state.from_us
        shorts = []
        for short in sorted(state.shorts, key=lambda short: short.from_us):
            if short.from_us <= (since_us or EARLIEST_US):
                since_us = max(short.to_us, since_us or 0)
            else:
                shorts.append(short)
        found[state.symbol] = Export(state.symbol, files, state.trades, since_us, shorts)
    for symbol in symbols:
        if symbol not in found:
            raise UsageError(f"{directory} has no export of {symbol}{did_you_mean(symbol, there)}")
    if not found:
        raise UsageError(
            f"{directory} has nothing that `ashi history export` has written: name its directory. Other recordings go "
            "through `ashi history load` or `ashi ingest replay`"
        )
    return list(found.values())
