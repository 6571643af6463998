"""What every venue that publishes klines must do besides."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import ClassVar, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_connection_certification import UNREADABLE, ConnectionCertification
from venue_samples import certifying

from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import Timeframe
from ashi_ingest.venues.base import Klines

MINUTE = Timeframe.parse("1m")


class KlineSample(NamedTuple):
    """An answer of one kline of a minute; its open time, µs; its values as text: open, high, low, close, volume."""

    body: bytes
    open_time: int
    values: tuple[str, str, str, str, str]


class KlineCertification(ConnectionCertification):
    """A part of the suite for venues with klines: inherit from it, too, and give `kline`."""

    kline: ClassVar[KlineSample]

    @property
    def klines(self) -> Klines:
        assert self.description.klines is not None
        return self.description.klines

    def test_klines_are_read_in_every_field_and_only_if_they_are_klines(self) -> None:
        (kline,) = self.klines.read(MINUTE, self.kline.body)
        values = (kline.open, kline.high, kline.low, kline.close, kline.volume)
        assert (kline.open_time, kline.length_us) == (self.kline.open_time, MINUTE.length_us)
        assert values == tuple(map(Decimal, self.kline.values))
        path = next(self.klines.pages(self.market, MINUTE, 0, 1)).request.path
        for body in (*UNREADABLE, *self.error_answers, self.kline.body[:-2]):
            with pytest.raises(ContractError, match=path):
                self.klines.read(MINUTE, body)

    @certifying
    @given(
        start=st.integers(1_723_161_240, 1_723_261_240),
        minutes=st.integers(1, 5000),
        name=st.sampled_from(["1m", "1h"]),
    )
    def test_pages_of_klines_cover_a_time_without_a_hole_and_without_an_overlap(
        self, start: int, minutes: int, name: str
    ) -> None:
        klines, timeframe = self.klines, Timeframe.parse(name)
        assert klines.covers(timeframe)
        assert not klines.covers(Timeframe.parse("8s"))
        start_us, end_us = start * 1_000_000, (start + 60 * minutes) * 1_000_000
        pages = list(klines.pages(self.market, timeframe, start_us, end_us))
        assert pages[0].start <= start_us
        assert pages[-1].end == end_us
        assert all(page.start < page.end for page in pages)
        assert all(before.end == after.start for before, after in pairwise(pages))
        for page in pages:
            self.check_request(page.request)
            assert self.market in page.request.parameters.values()
