"""Reporting what the venue says of each market: topic `instruments`, a message when something of it has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ashi.contracts.errors import ContractError
from ashi.contracts.instrument import INSTRUMENT_SCHEMA, Instrument, encode_instrument
from ashi.contracts.records import instrument_in
from ashi.contracts.symbol import make_symbol, split_symbol
from ashi.contracts.topics import INSTRUMENTS
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.logs import get_logger
from ashi.runtime.wall_clock import now_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ashi.runtime.settings import Settings
    from ashi_ingest.publish.publisher import Publisher
    from ashi_ingest.venues.base import ListedMarket

_log = get_logger(__name__)


async def read_instruments(settings: Settings, venue: str) -> dict[str, Instrument]:
    """What topic `instruments` says of the markets of a venue, by their names, up to its end as of the call.

    A message that breaks the contract is passed over with a warning in the log.

    Raises:
        BrokerError: Kafka cannot be reached or lacks the topic.

    """
    known: dict[str, Instrument] = {}
    async for record in read_topic(settings, INSTRUMENTS):
        if record.value is None:
            continue
        try:
            instrument = instrument_in(record)
        except ContractError as error:
            source = f"{INSTRUMENTS}/{record.partition}/{record.offset}"
            _log.warning("message is not readable, passed over", source=source, reason=str(error))
            continue
        name, market = split_symbol(instrument.symbol)
        if name == venue:
            known[market] = instrument
    return known


class InstrumentReporter:
    """What of the venue's list differs from what was published last of the worker's markets.

    Attributes:
        known: what was published last, by market.

    """

    def __init__(
        self,
        publisher: Publisher,
        venue: str,
        known: Mapping[str, Instrument],
        *,
        now_us: Callable[[], int] = now_us,
    ) -> None:
        """`known`: by `read_instruments`."""
        self.known = dict(known)
        self._publisher = publisher
        self._venue = venue
        self._now_us = now_us

    async def report(self, listed: Iterable[ListedMarket], gone: Iterable[str]) -> None:
        """Send what has changed: of these that are listed, and of markets that are not any more. Never acknowledged.

        Raises:
            BrokerError: Kafka did not take an earlier message.

        """
        for what in listed:
            symbol = make_symbol(self._venue, what.market)
            await self._send(what.market, Instrument(symbol, *what[1:], updated_at=self._now_us()))
        for market in gone:
            known = self.known.get(market)
            if known is not None:
                await self._send(market, msgspec.structs.replace(known, state="delisted", updated_at=self._now_us()))

    async def _send(self, market: str, instrument: Instrument) -> None:
        before = self.known.get(market)
        if before is None or instrument != msgspec.structs.replace(before, updated_at=instrument.updated_at):
            self.known[market] = instrument
            await self._publisher.announce(
                INSTRUMENTS, instrument.symbol, encode_instrument(instrument), INSTRUMENT_SCHEMA
            )
