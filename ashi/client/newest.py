"""What of a topic is news: of two messages about the same the greater version counts, and the first of equals."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_Message = TypeVar("_Message")


class Newest(Generic[_Message]):
    """Remembers the versions that have come, at most `limit` of them: those that came last."""

    def __init__(self, key: Callable[[_Message], Hashable], rank: Callable[[_Message], int], limit: int) -> None:
        """`key` names what a message is about, `rank` its version."""
        self._key = key
        self._rank = rank
        self._limit = limit
        self._ranks: OrderedDict[Hashable, int] = OrderedDict()

    def is_new(self, message: _Message) -> bool:
        """Whether nothing as new has come about the same. What has been forgotten counts as not having come."""
        key, rank = self._key(message), self._rank(message)
        if rank <= self._ranks.get(key, -1):
            return False
        self._ranks[key] = rank
        self._ranks.move_to_end(key)
        if len(self._ranks) > self._limit:
            self._ranks.popitem(last=False)
        return True
