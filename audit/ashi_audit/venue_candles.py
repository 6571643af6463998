"""What a report says of candles of a venue's own: that they are there, and were not compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.timeframe import format_time

if TYPE_CHECKING:
    from ashi_audit.report import Report
    from ashi_audit.request import VerifyOptions
    from ashi_sinks.protocol import CandleReader


async def note_venue_candles(reader: CandleReader, options: VerifyOptions, report: Report) -> None:
    """Note the series of which the store has the venue's own candles. Raises StorageError."""
    for span in await reader.venue_spans():
        if options.wants(span.symbol, span.timeframe):
            report.note(
                f"{span.symbol} {span.timeframe}: the store also has the venue's own candles, from "
                f"{format_time(span.first)} to {format_time(span.last)}: only those made of trades are compared"
            )
