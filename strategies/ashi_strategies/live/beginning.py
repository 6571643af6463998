"""Where a strategy begins: with the newest candle, or where it was when it ended, however it did.

After an end two things have to be looked at again: the candles whose signals were not durable yet, and those that have
been corrected since. From the earliest of both on the strategy is run again (`Beginning.redo_from`), and what it says
then is compared with what stands in topic `signals`: only what differs is written. So it makes no difference whether a
signal was on its way when the process was killed, or what has happened to its candle meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ashi.client import read_candles, read_signals
from ashi.contracts.errors import StateError, UsageError
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.cluster.offsets import committed
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.logs import get_logger
from ashi_series.join import APPENDED_BEFORE_US
from ashi_strategies.live.progress import read_progress

if TYPE_CHECKING:
    from ashi.client import Position, Since
    from ashi.contracts.signal import Signal
    from ashi.runtime.settings import Settings
    from ashi_strategies.live.instance import Instance
    from ashi_strategies.live.progress import Progress

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a start has found.

    Attributes:
        began: the strategy gives signals of candles that closed after this, µs; None: from the newest one on.
        redo_from: the first close time, µs, at which its signals are made again; None: that of the newest candle.

    """

    began: int | None
    redo_from: int | None


async def refuse_namesake(settings: Settings, instance: Instance) -> None:
    """Raise UsageError where another class of the same name has given the signals so far. Raises BrokerError.

    To be asked before the writer takes over, which would end the other one.
    """
    found = read_progress(await committed(settings, instance.id, CANDLES))
    if found is not None and found[0].place not in (None, instance.place):
        raise UsageError(
            f"{instance.name} on these series was run as {found[0].place} and is {instance.place} now, and two classes "
            f'of one name would supersede each other\'s signals: write `name = "…"` in the class {instance.place}. If '
            "it is the same strategy and has only moved, delete the group "
            f"{kafka_name(settings, instance.id)}: it is then run again from its first signal"
        )


async def find_beginning(settings: Settings, instance: Instance, since: int | None) -> Beginning:
    """Look where the instance was. `since`: the close time (µs) after which it gives signals if it never ran before.

    Raises BrokerError, and ContractError for a message that this version of Ashi cannot read.
    """
    found = read_progress(await committed(settings, instance.id, CANDLES))
    if found is None:
        known = await read_known(settings, instance, None)
        if not known:
            return Beginning(since, None if since is None else since + 1)
        began = min(signal.close_time for signal in known) - 1
        _log.warning(
            "there are signals of this strategy, and how far it was does not stand in Kafka (Kafka forgets the offsets "
            "of a group that commits none for a week, by default): it is run again from the first of them, and what "
            "stands there is not written again",
            group=instance.id,
        )
        return Beginning(began, began + 1)
    progress, position = found
    redo_from = redo_after(progress, await _earliest_since(settings, instance, position))
    if redo_from <= progress.done:
        _log.info("candles were corrected since, and are gone through again", redo_from_us=redo_from)
    return Beginning(progress.began, redo_from)


def redo_after(progress: Progress, earliest: int | None) -> int:
    """The first close time, µs, at which signals have to be made again.

    `earliest`: that of the candles that came after the position that was committed with the progress; None: none came.
    """
    first = progress.done + 1
    return first if earliest is None else max(min(earliest, first), progress.began + 1)


async def read_known(settings: Settings, instance: Instance, first: int | None) -> list[Signal]:
    """The last message in topic `signals` about each candle of the instance that closed then (µs) or later.

    None: of all. Raises BrokerError, and ContractError for a message that this version of Ashi cannot read.
    """
    known = {}
    since: Since = "beginning" if first is None else max(first - APPENDED_BEFORE_US, 0)
    async with read_signals(
        settings, symbols=instance.symbols, strategies=instance.strategies, since=since, follow=False
    ) as signals:
        async for signal in signals:
            if first is None or signal.close_time >= first:
                known[signal.strategy, signal.symbol, signal.timeframe, signal.open_time] = signal
    return list(known.values())


async def _earliest_since(settings: Settings, instance: Instance, position: Position) -> int | None:
    """The earliest close time (µs) of the instance's candles that were written since; None if there are none.

    0 where it cannot be known, as the records have expired or the topic was made anew.
    """
    earliest: int | None = None
    try:
        async with read_candles(
            settings,
            symbols=instance.symbols,
            timeframes=instance.timeframes,
            since=position,
            follow=False,
            loaded=False,
        ) as candles:
            async for candle in candles:
                earliest = candle.close_time if earliest is None else min(earliest, candle.close_time)
    except StateError as error:
        _log.warning("what was corrected meanwhile cannot be known, so all is gone through again", reason=str(error))
        return 0
    return earliest
