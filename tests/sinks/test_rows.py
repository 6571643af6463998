"""Candles of rows: what a decimal may be, and what is said of a row that no worker has written."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from ashi.contracts.candle import DECIMAL_FIELDS, Candle
from ashi.contracts.errors import StorageError
from ashi.contracts.venue_candle import VENUE_NULLABLE, VenueCandle
from ashi_sinks.rows import candle_from
from samples.candles import BTC, FIRST_US, a_candle

A_VENUE_CANDLE = msgspec.convert(
    {name: getattr(a_candle(), name, None) for name in VenueCandle.__struct_fields__}
    | dict.fromkeys(VENUE_NULLABLE)
    | {"source": "venue", "fetched_at": FIRST_US},
    VenueCandle,
)


def row_of(candle: Candle | VenueCandle, **other: object) -> list[object]:
    """Its fields as a store has them that keeps decimals as text."""
    fields = {name: getattr(candle, name) for name in candle.__struct_fields__} | other
    return [f"{value:f}" if isinstance(value, Decimal) else value for value in fields.values()]


def test_a_row_is_the_candle_again():
    assert candle_from(Candle, row_of(a_candle()), where="here", table="candles") == a_candle()


def test_what_a_venue_does_not_tell_is_none_in_its_candle():
    assert candle_from(VenueCandle, row_of(A_VENUE_CANDLE), where="here", table="venue_candles") == A_VENUE_CANDLE


@pytest.mark.parametrize("name", DECIMAL_FIELDS)
def test_no_decimal_of_a_candle_of_trades_may_be_null(name: str):
    with pytest.raises(StorageError) as refused:
        candle_from(Candle, row_of(a_candle(), **{name: None}), where="here", table="candles")
    key = f"{BTC}/1m/{FIRST_US}"
    assert str(refused.value) == f"here: the row {key} of candles was changed by hand: {name} is NULL"


def test_a_decimal_is_a_number_in_plain_notation_and_a_venue_tells_its_prices():
    with pytest.raises(StorageError, match=r"of venue_candles was changed by hand: open '1e5' is not a number"):
        candle_from(VenueCandle, row_of(A_VENUE_CANDLE, open="1e5"), where="here", table="venue_candles")
    with pytest.raises(StorageError, match=r"of venue_candles was changed by hand: close is NULL"):
        candle_from(VenueCandle, row_of(A_VENUE_CANDLE, close=None), where="here", table="venue_candles")
