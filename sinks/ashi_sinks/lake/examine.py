"""What the doctor asks of a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi_sinks.examination import Examination, room_at, unwritable
from ashi_sinks.lake.delta import DeltaTable
from ashi_sinks.lake.tables import CANDLES, FEED_GAPS, FEED_STATUS

if TYPE_CHECKING:
    from ashi_sinks.lake.location import Lake

LATEST: Final = 1
"""Tables of a lake have no version of their own: they get the columns that they lack by themselves."""


def examine_lake(lake: Lake) -> Examination:
    """Look at the tables of candles. Raises StorageError when there are none, or they are not Ashi's."""
    for each in (CANDLES, FEED_GAPS, FEED_STATUS):
        table = DeltaTable(lake, each)
        if each is FEED_STATUS and not table.exists():
            continue  # one made before statuses were kept gets them from the next worker
        try:
            table.open()
        finally:
            table.close()
    if lake.folder is None:
        return Examination(lake.location, LATEST, LATEST, (), None, None)
    folders = [lake.folder, *(lake.folder / each.name for each in (CANDLES, FEED_GAPS))]
    return Examination(lake.location, LATEST, LATEST, unwritable(*folders), *room_at(lake.folder))
