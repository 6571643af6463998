"""What others may ask of the state of a running deployment. It is read from the changelogs; no worker is disturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ashi.contracts.topics import MARKERS_TABLE, TRADES, changelog_topic, table_name
from ashi.runtime.kafka.cluster.log_identity import log_probe
from ashi.runtime.kafka.consuming.records import newest_records
from ashi_aggregate.core.aggregator import TimeframeAggregator
from ashi_aggregate.core.codec import decode_marker, decode_row, rank_of
from ashi_aggregate.log_check import check_markers
from ashi_aggregate.partition import marker_key, witness_key

if TYPE_CHECKING:
    from ashi.contracts.candle import Candle
    from ashi.runtime.settings import Settings


async def open_candles(settings: Settings) -> dict[tuple[str, str], list[Candle]]:
    """The candles that the aggregate workers have begun and not closed, by (symbol, timeframe), oldest first.

    They stand in the rows of the state, whose changelog is complete once every trade's offset is committed. Of the
    writes of a row the greatest offset counts, as in a recovery. Raises BrokerError when Kafka cannot be reached,
    StateError when a row cannot be read.
    """
    found: dict[tuple[str, str], list[Candle]] = {}
    for timeframe in settings.timeframes:
        for value in (await newest_records(settings, changelog_topic(table_name(timeframe)), rank_of)).values():
            aggregator = TimeframeAggregator(timeframe, row=decode_row(value))
            candles = aggregator.get_open_candles()
            if candles:
                found[aggregator.row.symbol, str(timeframe)] = candles
    return found


async def durable_ends(settings: Settings, epoch: int) -> dict[int, int]:
    """The offset after the last record of each partition of `trades` that the state of `epoch` has made durable.

    What the workers have committed does not tell it: after `ashi aggregate reconfigure` that is still of the epoch
    before. A marker is written when all candles up to it are acknowledged. A partition without one is left out, also
    one whose rows are being made again: its marker is taken away before.
    Raises BrokerError when Kafka cannot be reached, StateError when a marker cannot be read, or is of another log than
    the one that stands in `trades` now: its offset says nothing there.
    """

    def is_of_epoch(record: Any) -> bool:
        if record.key not in (marker_key(record.partition), witness_key(record.partition)):
            return False
        return record.value is None or decode_marker(record.value).epoch == epoch

    newest = await newest_records(settings, changelog_topic(MARKERS_TABLE), rank_of, is_of_epoch)
    known = {key: decode_marker(value) for key, value in newest.items()}
    markers = {int(key): marker for key, marker in known.items() if key.isdigit()}
    witnesses = {number: known[key] for number in markers if (key := witness_key(number)) in known}
    if markers:
        async with log_probe(settings, TRADES) as probe:
            await check_markers(probe, markers, witnesses)
    return {number: marker.durable_offset + 1 for number, marker in markers.items()}
