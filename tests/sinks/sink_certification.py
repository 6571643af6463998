"""What every sink must do, as tests: a new store subclasses `SinkCertification` and gives it a `Stage`."""

from __future__ import annotations

import asyncio
import os
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sink_losses import LossCertification
from sink_other_log import OtherLogCertification
from sink_outages import OutageCertification
from sink_samples import (
    FIRST_US,
    MINUTE_US,
    SYMBOLS,
    Stage,
    a_candle,
    a_gap,
    a_status,
    a_venue_candle,
    gap_oracle,
    opened,
    oracle,
    stored,
    stored_gaps,
    until,
)

from ashi.contracts.candle import make_version
from ashi.contracts.errors import StorageError
from ashi.contracts.feed import overlaps
from ashi.contracts.venue_candle import source_of
from ashi_sinks.joined import OfVenueOnly, WithVenueCandles
from ashi_sinks.protocol import RefusedError, RetryableError, SeriesSpan, newest, newest_gaps
from ashi_sinks.registry import examine_store

__all__ = [
    "FIRST_US",
    "MINUTE_US",
    "SYMBOLS",
    "SinkCertification",
    "Stage",
    "a_candle",
    "a_gap",
    "a_status",
    "gap_messages",
    "gap_oracle",
    "opened",
    "oracle",
    "stored",
    "stored_gaps",
    "until",
]

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "25"))
"""Of what is stored, in whatever batches; each makes a store, and every store is tried with as many."""

# One window or another, versions that are often equal, prices that tell the candles apart.
_versions = st.lists(
    st.builds(
        a_candle,
        minute=st.integers(0, 2),
        version=st.integers(0, 3),
        symbol=st.sampled_from(SYMBOLS),
        price=st.integers(1, 99).map(str),
    ),
    max_size=25,
)
gap_messages = st.builds(
    a_gap,
    minute=st.integers(0, 2),
    updated=st.integers(0, 3),
    symbol=st.sampled_from(SYMBOLS),
    minutes=st.none() | st.integers(0, 3),
    reason=st.integers(1, 99).map(str),
    state=st.sampled_from(["open", "repaired", "lost"]),
)


class SinkCertification(OutageCertification, OtherLogCertification, LossCertification):
    """The suite. A subclass has a fixture `new_stage`: a function that makes a `Stage` of its own at each call.

    `store` is the name of the store as in `ashi sink <name>`.
    """

    store: str

    @pytest.fixture
    def stage(self, new_stage) -> Stage:
        return new_stage()

    def test_a_new_store_says_that_it_is_empty_until_it_holds_a_candle(self, stage):
        async def scenario():
            first, second, third = stage.sink(), stage.sink(), stage.sink()
            made = await first.open()
            await first.close()
            still = await second.open()
            await second.write([a_candle()])
            await second.close()
            later = await third.open()
            await third.close()
            return made, still, later

        assert asyncio.run(scenario()) == (True, True, False)

    @pytest.mark.parametrize(
        "candle",
        [
            a_candle(volume=Decimal("0.00000001"), taker_buy_volume=Decimal("1E-8")),
            a_candle(price="12345678901234567890123456789012345678"),
            a_candle(price="1234567890.1234567890123456789012345678"),
            a_candle(quote_volume=Decimal("9" * 76 + "." + "9" * 76)),
            a_candle(
                trade_count=0, volume=Decimal(0), quote_volume=Decimal(0), first_trade_id=None, last_trade_id=None
            ),
            a_candle(first_trade_id="", last_trade_id="取引-'\";--\t\u2028"),
            a_candle(symbol="x:A", version=2**53 - 1),
        ],
        ids=["1e-8", "38-digits", "38-digits-fraction", "widest-sum", "flat", "odd-ids", "greatest-version"],
    )
    def test_a_candle_comes_back_as_it_went_in(self, stage, candle):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                await sink.write([candle])
                return await stored(reader)

        assert asyncio.run(scenario()) == [candle]

    def test_a_venues_own_candles_stand_beside_those_of_trades_and_the_one_fetched_later_stays(self, stage):
        first = [a_venue_candle(minute) for minute in (0, 1, 3)]
        gmo = a_venue_candle(
            1, symbol="gmo:BTC", quote_volume=None, trade_count=None, taker_buy_volume=None, taker_buy_quote_volume=None
        )
        again = a_venue_candle(1, price="7", fetched_at=FIRST_US + 2)
        ours = [a_candle(1), a_candle(2)]

        async def scenario():
            async with opened(stage.sink()) as sink:
                changed = [
                    await sink.write_venue_candles(candles)
                    for candles in ([*first, gmo], first, [again], [a_venue_candle(1, price="9")], [])
                ]
                await sink.write(ours)
                await sink.look("candles")
            async with opened(stage.reader()) as reader:
                series = "binance:ETHUSDT", "1m"
                assert [candle async for candle in reader.venue_candles("gmo:BTC", "1m")] == [gmo]
                assert [candle async for candle in reader.venue_candles("gmo:BTC", "5m")] == []
                assert [candle async for candle in reader.venue_candles(*series)] == [first[0], again, first[2]]
                assert [candle async for candle in reader.venue_candles(*series, limit=2)] == [again, first[2]]
                within = reader.venue_candles(*series, first[1].open_time, first[2].open_time)
                assert [candle async for candle in within] == [again]
                assert await reader.venue_spans() == [
                    SeriesSpan(*series, first[0].open_time, first[2].open_time),
                    SeriesSpan("gmo:BTC", "1m", gmo.open_time, gmo.open_time),
                ]
                assert await stored(reader) == ours, "who does not ask for them sees none"
                assert await reader.spans() == [SeriesSpan(*series, ours[0].open_time, ours[1].open_time)]
                joined = WithVenueCandles(reader)
                both = [first[0].as_candle(), *ours, first[2].as_candle()]
                assert [candle async for candle in joined.read(*series)] == both
                assert [candle async for candle in joined.read(*series, limit=3)] == both[1:]
                assert [source_of(candle) for candle in both] == ["venue", "trades", "trades", "venue"]
                venue = [candle async for candle in OfVenueOnly(reader).read(*series)]
                assert [candle.open for candle in venue] == [first[0].open, again.open, first[2].open]
                return changed

        assert asyncio.run(scenario()) == [4, 0, 1, 0, 0]

    def test_a_greater_version_replaces_the_whole_row_and_a_smaller_or_equal_one_changes_nothing(self, stage):
        first = a_candle(version=5, price="100")
        newer = a_candle(version=6, price="200", trade_count=9, first_trade_id=None, volume=Decimal(7))

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                changed = [
                    await sink.write([candle])
                    for candle in (
                        first,
                        a_candle(version=4, price="300"),
                        a_candle(version=5, price="400"),
                        newer,
                        a_candle(version=6, price="500"),
                        first,
                    )
                ]
                return changed, await stored(reader)

        assert asyncio.run(scenario()) == ([1, 0, 0, 1, 0, 0], [newer])

    def test_a_candle_of_a_later_epoch_replaces_one_from_further_on_in_the_log_of_an_earlier_one(self, stage):
        # After a topic was made anew, mirrored or repartitioned offsets start again; the epoch keeps the order.
        before = a_candle(version=make_version(0, 2**40 - 1), price="100")
        after = a_candle(version=make_version(1, 0), price="200")

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                for batch in ([before], [after], [before], newest([after, before]), newest([before, after])):
                    await sink.write(batch)
                return await stored(reader)

        assert asyncio.run(scenario()) == [after]

    def test_a_write_gives_the_number_of_rows_it_changed(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink:
                return [
                    await sink.write([a_candle(0), a_candle(1)]),
                    await sink.write([a_candle(0), a_candle(1, version=2), a_candle(2)]),
                    await sink.write([]),
                ]

        assert asyncio.run(scenario()) == [2, 2, 0]

    def test_a_batch_with_a_refused_row_stores_nothing_and_the_sink_goes_on(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                with pytest.raises(RefusedError):
                    await sink.write([a_candle(0), stage.refused, a_candle(1)])
                before = await reader.count()
                await sink.write([a_candle(0), a_candle(1)])
                return before, await reader.count()

        assert asyncio.run(scenario()) == (0, 2)

    def test_a_store_that_is_away_is_a_retryable_error_and_the_same_write_succeeds_when_it_is_back(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                with stage.unavailable(), pytest.raises(RetryableError):
                    await sink.write([a_candle(0), a_candle(1)])
                await sink.write([a_candle(0), a_candle(1)])
                return await stored(reader)

        assert asyncio.run(scenario()) == [a_candle(0), a_candle(1)]

    def test_candles_outlive_the_sink(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink:
                await sink.write([a_candle()])
            await sink.close()  # again
            async with opened(stage.reader()) as reader:
                return await stored(reader)

        assert asyncio.run(scenario()) == [a_candle()]

    def test_two_workers_of_one_store_leave_the_greater_version(self, stage):
        async def scenario():
            async with opened(stage.sink()) as one, opened(stage.sink()) as other, opened(stage.reader()) as reader:
                await other.write([a_candle(version=2, price="2")])
                await one.write([a_candle(version=1, price="1")])
                await one.write([a_candle(version=3, price="3")])
                await other.write([a_candle(version=2, price="2")])
                return await stored(reader)

        assert asyncio.run(scenario()) == [a_candle(version=3, price="3")]

    def test_a_reader_gives_a_series_in_order_bounded_by_time_and_number(self, stage):
        candles = [a_candle(minute) for minute in range(5)]
        others = [a_candle(symbol="binance:ETHUSD"), a_candle(timeframe="5m", close_time=FIRST_US + 5 * MINUTE_US)]

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                await sink.write([*reversed(candles), *others])

                async def minutes(**bounds: int) -> list[int]:
                    found = [candle async for candle in reader.read("binance:ETHUSDT", "1m", **bounds)]
                    return [candles.index(candle) for candle in found]

                assert await minutes() == [0, 1, 2, 3, 4]
                assert await minutes(start=candles[1].open_time) == [1, 2, 3, 4]
                assert await minutes(end=candles[3].open_time) == [0, 1, 2]
                assert await minutes(start=candles[1].open_time + 1, end=candles[3].open_time + 1) == [2, 3]
                assert await minutes(limit=2) == [3, 4]
                assert await minutes(end=candles[3].open_time, limit=2) == [1, 2]
                assert await minutes(limit=0) == []

        asyncio.run(scenario())

    def test_a_reader_tells_the_series_from_the_finest_and_counts_them(self, stage):
        hour, five = FIRST_US + 60 * MINUTE_US, FIRST_US + 5 * MINUTE_US
        newest = make_version(3, 7)
        candles = [a_candle(0), a_candle(1, version=newest), a_candle(timeframe="1h", close_time=hour)]
        candles += [a_candle(timeframe="5m", close_time=five), a_candle(symbol="bitflyer:BTC_JPY")]

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                assert await reader.spans() == []
                assert await reader.greatest_version() is None
                await sink.write(candles)
                assert await reader.greatest_version() == newest
                assert await reader.spans() == [
                    ("binance:ETHUSDT", "1m", FIRST_US, FIRST_US + MINUTE_US),
                    ("binance:ETHUSDT", "5m", FIRST_US, FIRST_US),
                    ("binance:ETHUSDT", "1h", FIRST_US, FIRST_US),
                    ("bitflyer:BTC_JPY", "1m", FIRST_US, FIRST_US),
                ]
                assert await reader.count() == 5
                assert await reader.count("binance:ETHUSDT") == 4
                assert await reader.count("binance:ETHUSDT", "1m") == 2
                assert await reader.count(timeframe="1m") == 3
                assert await reader.count("nobody:HERE") == 0

        asyncio.run(scenario())

    def test_markets_named_in_any_script_are_series_of_their_own(self, stage):
        # The second and the third look the same, and the last is as long as a name may be.
        names = ("币安人生USDT", "CAF\u00c9USDT", "CAFE\u0301USDT", "İẞ🚀/+@", "币" * 21 + "X")
        symbols = [f"binance:{name}" for name in names]

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                for number, symbol in enumerate(symbols):
                    await sink.write([a_candle(symbol=symbol, price=f"{number + 1}")])
                    await sink.write([a_candle(symbol=symbol, price=f"{number + 11}", version=2)])
                    await sink.write_gaps([a_gap(symbol=symbol, reason=f"{number}")])
                    await sink.write_statuses([a_status(number, symbol)])
                assert [span.symbol for span in await reader.spans()] == sorted(symbols)
                for number, symbol in enumerate(symbols):
                    candles = [candle async for candle in reader.read(symbol, "1m")]
                    assert candles == [a_candle(symbol=symbol, price=f"{number + 11}", version=2)]
                    assert await reader.gaps(symbol) == [a_gap(symbol=symbol, reason=f"{number}")]
                    status = await reader.status(symbol)
                    assert status is not None
                    assert status in await reader.statuses()
                    assert (status.symbol, status.last_trade_id) == (symbol, f"{number}")
                assert await reader.count("binance:CAFEUSDT") == 0

        asyncio.run(scenario())

    def test_a_reader_in_mid_read_neither_stops_the_writer_nor_sees_half_of_a_batch(self, stage):
        before, after = ([a_candle(minute, version) for minute in range(3_000)] for version in (1, 2))

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                await sink.write(before)
                reading = reader.read("binance:ETHUSDT", "1m")
                seen = [await anext(reading)]
                await sink.write(after)
                seen += [candle async for candle in reading]
                return {candle.version for candle in seen}, len(seen)

        assert asyncio.run(scenario()) == ({1}, 3_000)

    def test_a_reader_of_no_store_says_so_and_makes_none(self, stage):
        async def scenario():
            for _ in range(2):
                reader = stage.reader()
                with pytest.raises(StorageError, match="does not exist"):
                    await reader.open()
                await reader.close()

        asyncio.run(scenario())

    def test_a_store_tells_the_doctor_of_itself_and_one_that_is_not_there_is_not_made(self, shared_stage):
        stage = shared_stage
        with pytest.raises(StorageError, match="does not exist"):
            examine_store(stage.url)

        async def scenario():
            async with opened(stage.sink()) as sink:
                await sink.write([a_candle()])
                return await asyncio.to_thread(examine_store, stage.url)

        found = asyncio.run(scenario())
        assert (found.lacking, found.version) == ((), found.latest)
        assert "s3cret" not in found.where
        assert found.free_bytes is None or 0 < found.free_bytes < (found.total_bytes or 0)

    # The fixture gives a function that makes a new store each time, and each sink runs the test by itself.
    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(candles=_versions, data=st.data())
    @pytest.mark.slow
    def test_any_versions_in_any_batches_with_any_replays_end_in_the_oracles_rows(self, new_stage, candles, data):
        stage = new_stage()

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                done = 0
                while done < len(candles):
                    # A replay goes back to any earlier place, and on from there: what a crash before a commit does.
                    start = data.draw(st.integers(0, done), label="from")
                    end = data.draw(st.integers(done + 1, len(candles)), label="to")
                    await sink.write(newest(candles[start:end]))
                    done = end
                return await stored(reader)

        assert asyncio.run(scenario()) == oracle(candles)

    def test_a_store_with_gaps_and_no_candle_is_empty(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink:
                await sink.write_gaps([a_gap()])
            again = stage.sink()
            try:
                return await again.open()
            finally:
                await again.close()

        assert asyncio.run(scenario()) is True

    @pytest.mark.parametrize(
        "gap",
        [
            a_gap(minutes=None),
            a_gap(minutes=0),
            a_gap(state="repaired", trades_recovered=2**53),
            a_gap(state="lost", reason=""),
            a_gap(state="lost", final=True),
            a_gap(symbol="bitflyer:BTC_JPY", reason="取引-'\";--\t\u2028"),
            a_gap(to_time=2**53 - 1, updated_at=2**53 - 1),
        ],
        ids=["not-ended", "no-length", "repaired", "no-reason", "final", "odd-reason", "latest-times"],
    )
    def test_a_gap_comes_back_as_it_went_in_and_outlives_the_sink(self, stage, gap):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                await sink.write_gaps([gap])
                here = await stored_gaps(reader)
            async with opened(stage.reader()) as reader:
                return here, await stored_gaps(reader)

        assert asyncio.run(scenario()) == ([gap], [gap])

    def test_a_newer_gap_replaces_the_whole_row_and_an_older_or_equal_one_changes_nothing(self, stage):
        first = a_gap(updated=5, minutes=None, reason="silent")
        newer = a_gap(updated=6, minutes=2, reason="reconnected", state="repaired", trades_recovered=9)

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                changed = [
                    await sink.write_gaps([gap])
                    for gap in (
                        first,
                        a_gap(updated=4, state="lost"),
                        a_gap(updated=5, state="lost"),
                        newer,
                        a_gap(updated=6, state="lost"),
                        first,
                    )
                ]
                return changed, await stored_gaps(reader)

        assert asyncio.run(scenario()) == ([1, 0, 0, 1, 0, 0], [newer])

    def test_a_batch_of_gaps_that_is_replayed_changes_nothing(self, stage):
        batch = [a_gap(0), a_gap(1, minutes=None), a_gap(0, symbol="bitflyer:BTC_JPY")]

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                changed = [await sink.write_gaps(gaps) for gaps in (batch, batch, [*batch[1:], a_gap(2)], [])]
                return changed, await stored_gaps(reader)

        assert asyncio.run(scenario()) == ([3, 0, 1, 0], gap_oracle([*batch, a_gap(2)]))

    def test_two_workers_of_one_store_leave_the_newer_gap(self, stage):
        open_, repaired = a_gap(updated=1, minutes=None), a_gap(updated=2, state="repaired")

        async def scenario():
            async with opened(stage.sink()) as one, opened(stage.sink()) as other, opened(stage.reader()) as reader:
                await other.write_gaps([repaired])
                await one.write_gaps([open_])
                here = await stored_gaps(reader)
                await one.write_gaps([a_gap(updated=3, state="lost")])
                await other.write_gaps([repaired])
                return here, await stored_gaps(reader)

        assert asyncio.run(scenario()) == ([repaired], [a_gap(updated=3, state="lost")])

    def test_gaps_and_candles_are_apart(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                await sink.write([a_candle()])
                await sink.write_gaps([a_gap(symbol="gmo:BTC"), a_gap()])
                return await stored(reader), await reader.spans(), await reader.gaps("gmo:BTC")

        assert asyncio.run(scenario()) == (
            [a_candle()],
            [("binance:ETHUSDT", "1m", FIRST_US, FIRST_US)],
            [a_gap(symbol="gmo:BTC")],
        )

    def test_a_batch_with_a_refused_gap_stores_nothing_and_the_sink_goes_on(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                with pytest.raises(RefusedError):
                    await sink.write_gaps([a_gap(0), stage.refused_gap, a_gap(1)])
                before = await stored_gaps(reader)
                await sink.write_gaps([a_gap(0), a_gap(1)])
                return before, await stored_gaps(reader)

        assert asyncio.run(scenario()) == ([], [a_gap(0), a_gap(1)])

    def test_gaps_for_a_store_that_is_away_are_a_retryable_error_and_are_stored_when_it_is_back(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                with stage.unavailable(), pytest.raises(RetryableError):
                    await sink.write_gaps([a_gap(0), a_gap(1)])
                await sink.write_gaps([a_gap(0), a_gap(1)])
                return await stored_gaps(reader)

        assert asyncio.run(scenario()) == [a_gap(0), a_gap(1)]

    def test_a_reader_gives_the_gaps_of_a_symbol_that_overlap_a_time_in_order(self, stage):
        gaps = [a_gap(0, minutes=2), a_gap(3, minutes=0), a_gap(4, minutes=3), a_gap(5), a_gap(8, minutes=None)]

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                await sink.write_gaps([*reversed(gaps), a_gap(1, symbol="binance:ETHUSD", minutes=None)])

                async def found(start: float | None, end: float | None) -> list[int]:
                    bounds = [at if at is None else FIRST_US + int(at * MINUTE_US) for at in (start, end)]
                    return [gaps.index(gap) for gap in await reader.gaps("binance:ETHUSDT", *bounds)]

                assert await found(None, None) == [0, 1, 2, 3, 4]
                assert await found(-9, 0) == []  # ends where the first begins
                assert await found(-9, 0.01) == [0]
                assert await found(1.99, 3) == [0]  # the second begins where this ends
                assert await found(2, 3) == []  # begins where the first ends
                assert await found(3, 4) == [1]  # it is no longer than a moment, and lies within
                assert await found(2, 3.01) == [1]
                assert await found(3.01, 4) == []
                assert await found(5.5, 5.6) == [2, 3]
                assert await found(6.5, None) == [2, 4]
                assert await found(9_999, 10_000) == [4]  # not ended: for ever
                assert await found(None, 4) == [0, 1]

        asyncio.run(scenario())

    @pytest.mark.parametrize(
        "status",
        [
            a_status(),
            a_status(state="down", reason="closed by the venue", complete_until=None),
            a_status(last_trade_id=None, last_traded_at=None),
            a_status(symbol="bitflyer:BTC_JPY", reason="取引-'\";--\t\u2028"),
            a_status(complete_until=2**53 - 1, updated_at=2**53 - 1),
        ],
        ids=["connected", "down", "no-trade", "odd-reason", "latest-times"],
    )
    def test_a_status_comes_back_without_its_workers_and_outlives_the_sink(self, stage, status):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                before = await reader.status(status.symbol)
                await sink.write_statuses([status])
                here = await reader.status(status.symbol)
            async with opened(stage.reader()) as reader:
                assert await reader.statuses() == [here]
                return before, here, await reader.status(status.symbol), await reader.status("gmo:BTC")

        kept = msgspec.structs.replace(status, workers=())
        assert asyncio.run(scenario()) == (None, kept, kept, None)

    def test_a_newer_status_replaces_the_whole_row_and_an_older_or_equal_one_changes_nothing(self, stage):
        first, newer = a_status(5, reason="a clock is off"), a_status(6, state="silent", complete_until=None)

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                changed = [
                    await sink.write_statuses(statuses)
                    for statuses in (
                        [first],
                        [a_status(4)],
                        [a_status(5)],
                        [newer, a_status(1, "gmo:BTC")],
                        [first],
                        [],
                    )
                ]
                return changed, await reader.status(first.symbol)

        assert asyncio.run(scenario()) == ([1, 0, 0, 2, 0, 0], msgspec.structs.replace(newer, workers=()))

    def test_a_status_for_a_store_that_is_away_is_a_retryable_error_and_is_stored_when_it_is_back(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                with stage.unavailable(), pytest.raises(RetryableError):
                    await sink.write_statuses([a_status()])
                await sink.write_statuses([a_status()])
                return await reader.status(a_status().symbol)

        assert asyncio.run(scenario()) == a_status(workers=())

    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(gaps=st.lists(gap_messages, max_size=25), data=st.data())
    @pytest.mark.slow
    def test_any_gaps_in_any_batches_with_any_replays_end_in_the_oracles_rows(self, new_stage, gaps, data):
        stage = new_stage()
        start, length = data.draw(st.integers(-2, 6), label="start"), data.draw(st.integers(1, 3), label="length")
        bounds = FIRST_US + start * MINUTE_US, FIRST_US + (start + length) * MINUTE_US

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                done = 0
                while done < len(gaps):
                    begin = data.draw(st.integers(0, done), label="from")
                    end = data.draw(st.integers(done + 1, len(gaps)), label="to")
                    await sink.write_gaps(newest_gaps(gaps[begin:end]))
                    done = end
                return await stored_gaps(reader), await reader.gaps(SYMBOLS[0], *bounds)

        rows, within = asyncio.run(scenario())
        assert rows == gap_oracle(gaps)
        assert within == [gap for gap in rows if gap.symbol == SYMBOLS[0] and overlaps(gap, *bounds)]
