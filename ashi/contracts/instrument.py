"""What a venue says of a market: its currencies, its steps, whether it trades. Topic `instruments`.

The topic is compacted: its last message of a symbol is how it is now. One is published when something of it changes, so
a message of long ago may be of today.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, TypeAlias

import msgspec

from ashi.contracts.decimals import check_amount, check_notation
from ashi.contracts.errors import ContractError
from ashi.contracts.json_messages import decode_json, plain_fields
from ashi.contracts.symbol import split_symbol
from ashi.contracts.trade import check_time

INSTRUMENT_SCHEMA: Final = "ashi.instrument.v1"

InstrumentState: TypeAlias = Literal["trading", "halted", "delisted"]


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """A market as its venue lists it.

    Attributes:
        symbol: `venue:MARKET`; the Kafka key.
        base: what is traded, by the venue's own name, such as `BTC`; None where the venue does not say.
        quote: what it is paid in, such as `JPY`; None likewise.
        tick_size: the step of its prices, quote currency; None likewise.
        lot_size: the step of its sizes, base currency; None likewise.
        state: `trading`; `halted`: listed, and not traded now; `delisted`: not listed any more, or closed for good.
        updated_at: when this message was made, µs.

    """

    symbol: str
    base: str | None
    quote: str | None
    tick_size: Decimal | None
    lot_size: Decimal | None
    state: InstrumentState
    updated_at: int


_decoder = msgspec.json.Decoder(Instrument)
_encoder = msgspec.json.Encoder()


def encode_instrument(instrument: Instrument) -> bytes:
    """JSON as in the contract: times in µs, decimals as plain strings."""
    return _encoder.encode(plain_fields(instrument))


def decode_instrument(message: bytes) -> Instrument:
    """Read and check one message of `instruments`. Raises ContractError that names the field and what is wrong."""
    instrument = decode_json(_decoder, message, "an instrument")
    split_symbol(instrument.symbol)
    check_time("updated_at", instrument.updated_at)
    for field in ("base", "quote"):
        if getattr(instrument, field) == "":
            raise ContractError(f"{field} is empty: write null where it is not known")
    for field, step in (("tick_size", instrument.tick_size), ("lot_size", instrument.lot_size)):
        if step is not None and check_amount(field, step) == 0:
            raise ContractError(f"{field} is 0: write null where it is not known")
    check_notation(message, ("tick_size", "lot_size"))
    return instrument
