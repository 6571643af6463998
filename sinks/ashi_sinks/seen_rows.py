"""How a sink knows that a table was emptied under it, though others may have written to it since.

It keeps the keys of a few rows that it has seen there. When a row goes, somebody may have deleted it; when all go at
once, the table was emptied, truncated or replaced. A row counts as there while its series has it or a later one: what
deletes old rows leaves the newest of each series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Key: TypeAlias = "tuple[Any, ...]"

MOST: Final = 8
"""So many series are kept: enough that hardly anybody deletes them all and means only them, and few to look up."""


class SeenRows:
    """Keys of rows of one table: those that were there, and those written since, which a trigger may have dropped."""

    def __init__(self) -> None:
        self._seen: dict[Key, Key] = {}
        self._written: dict[Key, Key] = {}

    @property
    def keys(self) -> list[Key]:
        """What is to be looked up next time."""
        return [*self._seen.values(), *self._written.values()]

    def wrote(self, keys: Iterable[Key], *, all_changed: bool) -> None:
        """Take keys of rows that were written, or found at the start.

        `all_changed`: the store says that it has added or replaced each row of the batch, so that they are there.
        """
        known = self._seen if all_changed else self._written
        for key in keys:
            series = key[:-1] or key
            known[series] = max(known.pop(series, key), key)
        if all_changed:
            self._seen = _newest(known)
        else:
            self._written = _newest(known)

    def look(self, there: Collection[Key]) -> bool:
        """Take which of `keys` are there. False when some were and none is any more; then it begins anew."""
        lost = bool(self._seen) and not any(key in there for key in self._seen.values())
        known = self._seen | self._written
        self._seen = {} if lost else _newest({series: key for series, key in known.items() if key in there})
        self._written = {}
        return not lost


def _newest(keys: dict[Key, Key]) -> dict[Key, Key]:
    return dict(list(keys.items())[-MOST:])
