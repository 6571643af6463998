"""What the registry asks of a kind of store: each package of one has it as `STORE` in its module `store`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ashi.runtime.settings import Settings
    from ashi_sinks.examination import Examination
    from ashi_sinks.protocol import CandleReader, Sink
    from ashi_sinks.streams import Streams
    from ashi_sinks.upkeep import Chore


@dataclass(frozen=True, slots=True)
class Store:
    """One kind of store. Every function takes a storage URL and raises UsageError when it is wrong.

    Attributes:
        name: as in `ashi sink <name>` and in the group `ashi-sink-<name>`.
        schemes: of its URLs.
        sink: the writing side, not yet open.
        reader: the reading side, not yet open.
        exists: whether something is stored there, even something else than candles.
        remove: removes it, if it exists. Raises StorageError when it is not Ashi's.
        examine: what it tells of itself, nothing is changed. Raises StorageError when it cannot be used as it is.
        migrate: makes or upgrades its tables and says in sentences what it did; None where the sink does so when it
            opens.
        delete_older: deletes candles that closed longer ago than so many µs, of some timeframes or of all, and says in
            sentences what it did; None where the store has other means.
        trades: what moves topic `trades` there; None where only candles are stored.
        upkeep: what a worker that keeps a topic there does beside writing, as the settings say; None for nothing.
        takes_driver: whether its URLs may name a driver in SQLAlchemy's way, which Ashi does not know.
        settings: values of settings that suit the store where they are not set.

    """

    name: str
    schemes: tuple[str, ...]
    sink: Callable[[str], Sink]
    reader: Callable[[str], CandleReader]
    exists: Callable[[str], bool]
    remove: Callable[[str], None]
    examine: Callable[[str], Examination]
    migrate: Callable[[str], list[str]] | None = None
    delete_older: Callable[[str, int, Collection[str]], list[str]] | None = None
    trades: Callable[[str], Streams] | None = None
    upkeep: Callable[[Settings, str], Sequence[Chore]] | None = None
    takes_driver: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
