"""What was meant by a name that there is not."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`: in other letters (`btc_jpy`), without its venue, or misspelt."""
    by_folded: dict[str, str] = {}
    for each in known:
        by_folded.setdefault(each.casefold(), each)
        by_folded.setdefault(each.partition(":")[2].casefold(), each)
    by_folded.pop("", None)
    found = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.7)
    return by_folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that there is not: `; did you mean 1m?`, or nothing."""
    right = closest(name, known)
    return "" if right is None else f"; did you mean {right}?"
