"""Which source is read: the topics, or a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi_audit.sources.topic import TopicTrades

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ashi.runtime.settings import Settings
    from ashi_aggregate.epoch import Epoch
    from ashi_audit.sources.base import TradeSource
    from ashi_audit.sources.lake import Addition


async def open_source(
    settings: Settings,
    lake: str | None,
    *,
    epoch: Epoch,
    partitions: int,
    symbols: Collection[str],
    start: int,
    end: int,
    on_note: Callable[[str], None],
    addition: Addition | None = None,
) -> TradeSource:
    """Topic `trades`, or the lake of a URL if one is given; the windows wanted begin in [`start`, `end`), µs.

    `partitions`: of the topic. `symbols`: only these, all if empty. `on_note`: told of what is left out.
    `addition`: adds up what it can of a lake.
    Raises UsageError for a wrong URL or a lake without a start, StateError when the workers have not begun.
    """
    if lake is None:
        topic = TopicTrades(settings, epoch, partitions, symbols, start)
        await topic.prepare()
        return topic
    from ashi_audit.sources.lake import LakeSource  # needs an extra

    return LakeSource(
        settings,
        lake,
        epoch=epoch,
        partitions=partitions,
        symbols=symbols,
        start=start,
        end=end,
        on_note=on_note,
        addition=addition,
    )
