"""How a sink knows that a table was emptied under it, though others may have written to it since.

It keeps the keys of a few rows that it has seen there. When a row goes, somebody may have deleted it; when all go at
once, the table was emptied, truncated or replaced. A row counts as there while its series has it or a later one: what
deletes old rows leaves the newest of each series.

Of several workers each judges by rows that it wrote itself, as soon as there are some: those it found at the start may
be others', who may have stored them again before it looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Key: TypeAlias = "tuple[Any, ...]"

MOST: Final = 8
"""So many series are kept: enough that hardly anybody deletes them all and means only them, and few to look up."""


class SeenRows:
    """Keys of rows of one table.

    Those found at the start, those we wrote that were there, and those written since, which a trigger may have dropped.
    """

    def __init__(self) -> None:
        self._found: dict[Key, Key] = {}
        self._seen: dict[Key, Key] = {}
        self._written: dict[Key, Key] = {}

    @property
    def keys(self) -> list[Key]:
        """What is to be looked up next time."""
        return [*self._found.values(), *self._seen.values(), *self._written.values()]

    def found(self, keys: Iterable[Key]) -> None:
        """Take keys of rows that are there at the start, whoever wrote them."""
        self._found |= {key: key for key in keys}

    def wrote(self, keys: Iterable[Key], *, all_changed: bool) -> None:
        """Take keys of rows that were written.

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

    def look(self, there: Collection[Key], *, rewritten: bool = False) -> bool:
        """Take which of `keys` are there. False when rows were and are no more; then it begins anew.

        `rewritten`: the store has put the table somewhere else since, as it does to empty it, and to tidy it up. Then
        each row that we wrote must be there, as one alone may have been stored again; those found tell nothing.
        """
        judged = self._seen or self._found
        still = [key in there for key in judged.values()]
        lost = bool(judged) and not (bool(self._seen) and all(still) if rewritten else any(still))
        known = self._seen | self._written
        self._seen = {} if lost else _newest({series: key for series, key in known.items() if key in there})
        self._found = {} if lost or self._seen else {key: key for key in self._found if key in there}
        self._written = {}
        return not lost


def _newest(keys: dict[Key, Key]) -> dict[Key, Key]:
    return dict(list(keys.items())[-MOST:])
