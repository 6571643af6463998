"""What happens to a series, in the order in which it is to be dealt with."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap


class Closed(msgspec.Struct, frozen=True, gc=False):
    """A window is over: this is its candle, newer than every one before it.

    Attributes:
        candle: as it closed; late trades may correct it.
        is_complete: whether no trade is missing from it. None: not known yet, as the feed has not checked that
            time yet; `OhlcvStore.is_complete` tells later.

    """

    candle: Candle
    is_complete: bool | None = None


class Corrected(msgspec.Struct, frozen=True, gc=False):
    """A candle that is not the newest, or that had closed already, is another one now.

    Attributes:
        candle: what it is now, with a greater version than `replaced`.
        replaced: what it was; None where the series had no candle of that time.

    """

    candle: Candle
    replaced: Candle | None


class InProgress(msgspec.Struct, frozen=True, gc=False):
    """A window that is still open, as far as its trades have come."""

    candle: Candle


class Gap(msgspec.Struct, frozen=True, gc=False):
    """What a feed says of a time in which trades may be missing: that it began, was repaired, or is lost."""

    gap: FeedGap


SeriesEvent: TypeAlias = Closed | Corrected | InProgress
"""What can happen to one series."""
Event: TypeAlias = SeriesEvent | Gap
"""What whoever follows a store is told."""
