"""What the parser of every venue must do: a pure function of frames, exact, and never stopped by a bad one."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repairs import NOW, bare
from venue_samples import FIRST_MS, Execution, VenueSamples, certifying, histories, one_a_second

from ashi.contracts.trade import check_trade, decode_trade, encode_trade
from ashi_ingest.venues.parsing import MAX_REASON, Parsed

GARBAGE = [b"", b" ", b"garbage", b"\x00", b"\xff\xfe", b"null", b"5", b'""', b"[]", b"{}", b"[{}]", b'{"foo":1}']
DEEP = [b"[" * 100_000, b'{"x":' * 100_000, b'{"data":' * 100_000, b'{"params":' * 100_000]
HUGE = ["9" * 100_000, "1e999999999", "1" + "0" * 5000 + ".5", "-1", "NaN", "Infinity", "null", "true", "[]", '""']


class FrameCertification(VenueSamples):
    """The part of the suite about frames."""

    def all_frames(self) -> list[bytes]:
        """Samples of all kinds of frames with trades."""
        return [*self.frames(self.market, one_a_second(3)), *self.recorded_frames]

    def check_damaged(self, frame: bytes, parsed: Parsed) -> None:
        """Whatever a frame is made of, what comes of it is in order."""
        for trade in parsed.trades:
            check_trade(trade)
            assert trade.symbol.startswith(f"{self.name}:")
            assert trade.received_at == NOW
        for rejected in parsed.rejected:
            assert rejected.value in frame, "what is rejected goes to trades.dead as it came"
            assert 0 < len(rejected.reason) <= MAX_REASON
            assert rejected.symbol is None or rejected.symbol.startswith(f"{self.name}:")

    def check_rejected_whole(self, frame: bytes) -> None:
        parsed = self.parser().parse(frame, NOW)
        assert parsed.trades == []
        assert [rejected.value for rejected in parsed.rejected] == [frame]
        self.check_damaged(frame, parsed)

    def test_the_parser_is_of_this_venue_and_the_live_feed_uses_it(self) -> None:
        assert self.parser().name == self.venue.parser().name == self.venue.name == self.name
        assert type(self.venue.parser()) is type(self.parser())

    @pytest.mark.parametrize("taker", ["buy", "sell"])
    def test_a_trade_has_what_its_frame_says_in_every_field(self, taker: Literal["buy", "sell"]) -> None:
        execution = Execution(77, FIRST_MS + 601, "5860832.5", "0.00000001", taker)
        (trade,) = self.trades([execution])
        assert trade.symbol == f"{self.name}:{self.market}"
        assert trade.side == taker
        assert trade.traded_at == (FIRST_MS + 601) * 1000
        assert trade.received_at == NOW
        if self.venue.ordered_ids:
            assert (trade.trade_id, trade.sequence) == ("77", 77)

    @certifying
    @given(
        price=st.decimals("0.00000001", "99999999.99999999", places=8),
        size=st.decimals("0.00000001", "99999999.99999999", places=8),
    )
    def test_prices_and_sizes_are_exact_to_the_last_digit(self, price: Decimal, size: Decimal) -> None:
        (trade,) = self.trades([Execution(1, price=f"{price:f}", size=f"{size:f}")])
        assert (trade.price, trade.size) == (price, size)

    @certifying
    @given(histories())
    def test_the_same_frames_give_the_same_trades_each_with_an_id_of_its_own(self, executions: list[Execution]) -> None:
        trades = self.trades(executions)
        assert trades == self.trades(executions)
        assert len({trade.trade_id for trade in trades}) == len(trades)
        order = [(trade.traded_at, trade.sequence) for trade in trades]
        assert order == sorted(set(order)), "time and sequence order the trades of a symbol, without a tie"
        assert [decode_trade(encode_trade(trade)) for trade in trades] == trades

    def test_frames_of_recordings_are_read_in_full_and_the_same_each_time(self) -> None:
        assert self.recorded_frames, "give some frames with trades, as the venue sends them"
        first, second = self.parser(), self.parser()
        for frame in self.recorded_frames:
            parsed = first.parse(frame, NOW)
            assert parsed.trades
            assert parsed.rejected == []
            assert second.parse(frame, NOW) == parsed

    def test_only_what_is_told_apart_by_counting_is_remembered_from_frame_to_frame(self) -> None:
        parser = self.parser()
        frames = self.frames(self.market, [Execution(1)])
        first, second = ([each for frame in frames for each in parser.parse(frame, NOW).trades] for _ in range(2))
        if self.venue.ordered_ids:
            assert second == first, "a venue with ids needs no memory"
        else:
            assert second[0].trade_id != first[0].trade_id, "two that agree in everything are two"

    def test_markets_and_connections_do_not_mix(self) -> None:
        executions = one_a_second(4)
        here, there = self.frames(self.market, executions), self.frames("OTHER", executions)
        parser = self.parser()
        mixed = [frame for pair in zip(here, there, strict=True) for frame in pair]
        trades = [trade for frame in mixed for trade in parser.parse(frame, NOW).trades]
        for market in (self.market, "OTHER"):
            of_market = [trade for trade in trades if trade.symbol == f"{self.name}:{market}"]
            assert of_market == self.trades(executions, market)

    def test_what_carries_no_trades_is_skipped_and_changes_nothing(self) -> None:
        executions = one_a_second(3)
        accepted = self.acknowledgment(7)
        without = [*self.other_frames, *self.closings, *(each.frame for each in self.refusals)]
        without += [] if accepted is None else [accepted]
        assert self.other_frames, "give some frames of other channels"
        parser, trades = self.parser(), []
        for frame in self.frames(self.market, executions):
            for other in (*without, *GARBAGE, frame[:-1]):
                parsed = parser.parse(other, NOW)
                assert parsed.trades == []
                assert parsed.skipped == (other in without)
            trades += parser.parse(frame, NOW).trades
        assert trades == self.trades(executions)

    @pytest.mark.parametrize("frame", [*GARBAGE, *DEEP], ids=lambda frame: repr(frame[:12]))
    def test_what_is_no_frame_of_the_venue_is_rejected_whole(self, frame: bytes) -> None:
        self.check_rejected_whole(frame)

    def test_half_a_frame_is_rejected_whole(self) -> None:
        for frame in self.all_frames()[:20]:
            for cut in {1, 2, len(frame) // 3, len(frame) // 2, len(frame) - 2, len(frame) - 1}:
                self.check_rejected_whole(frame[:cut])

    def test_frames_of_other_venues_are_no_trades(self) -> None:
        from venue_certification import certified

        for name, other in certified().items():
            if name != self.name and name not in self.akin:
                for frame in (*other().frames(other.market, one_a_second(3)), *other.recorded_frames):
                    parsed = self.parser().parse(frame, NOW)
                    assert parsed.trades == []
                    self.check_damaged(frame, parsed)
                    assert self.venue.control(frame) is None

    def test_what_cannot_be_a_price_or_a_size_is_rejected_with_its_symbol(self) -> None:
        execution = Execution(31, FIRST_MS + 987, "5860834.25", "0.04321", "sell")
        (frame,) = self.frames(self.market, [execution])
        for text in ("5860834.25", "0.04321"):
            assert frame.count(text.encode()) == 1, "give frames in which price and size stand once, as they are"
            for instead in ("-" + text, "9" * 100_000, "1" * 39, "1e999999999", "NaN", "Infinity", "0x10", ""):
                bad = frame.replace(text.encode(), instead.encode())
                parsed = self.parser().parse(bad, NOW)
                assert parsed.trades == [], instead[:20]
                assert len(parsed.rejected) == 1
                self.check_damaged(bad, parsed)
                if self.is_json(bad):
                    assert parsed.rejected[0].symbol == f"{self.name}:{self.market}"

    def test_no_value_of_whatever_size_or_kind_in_place_of_another_stops_the_parser(self) -> None:
        for frame in self.all_frames()[:10]:
            for match in re.finditer(rb'"[^"]*"(?!:)|-?[0-9.]+|true|false', frame):
                for instead in HUGE:
                    damaged = frame[: match.start()] + instead.encode() + frame[match.end() :]
                    self.check_damaged(damaged, self.parser().parse(damaged, NOW))
                    self.venue.control(damaged)

    def test_a_frame_with_something_deep_in_it_is_a_trade_or_rejected(self) -> None:
        (frame,) = self.frames(self.market, [Execution(1)])
        for deep in (b"[" * 100_000 + b"]" * 100_000, b'{"x":' * 100_000 + b"1" + b"}" * 100_000):
            damaged = frame[: frame.rindex(b"}")] + b',"more":' + deep + b"}"
            parsed = self.parser().parse(damaged, NOW)
            assert len(parsed.trades) + len(parsed.rejected) == 1
            self.check_damaged(damaged, parsed)

    def test_a_frame_that_is_not_utf_8_is_rejected_whole_wherever_the_bad_byte_stands(self) -> None:
        for frame in self.all_frames()[:10]:
            for match in re.finditer(rb'(?<=[{,])(?=")', frame):
                at = match.start()
                self.check_rejected_whole(frame[:at] + b'"a_new_field":"J\xe3F",' + frame[at:])

    def test_a_new_field_of_the_venues_is_no_reason_to_lose_trades(self) -> None:
        executions = one_a_second(3)
        parser = self.parser()
        trades = []
        for frame in self.frames(self.market, executions):
            named = re.sub(rb'(?<=[{,])(?=")', b'"a_new_field":{"x":[1,"2"]},', frame)
            trades += parser.parse(named, NOW).trades
        assert bare(trades) == bare(self.trades(executions))

    @certifying
    @given(frame=st.binary(max_size=300))
    def test_no_bytes_make_the_parser_raise_or_a_trade(self, frame: bytes) -> None:
        parsed = self.parser().parse(frame, NOW)
        assert parsed.trades == []
        self.check_damaged(frame, parsed)
        self.venue.control(frame)

    @certifying
    @given(data=st.data())
    def test_a_damaged_frame_gives_sound_trades_or_rejections_but_never_raises(self, data: st.DataObject) -> None:
        frame = data.draw(st.sampled_from(self.all_frames()))
        start = data.draw(st.integers(0, len(frame)))
        length = data.draw(st.integers(0, 40))
        put = data.draw(
            st.binary(max_size=8)
            | st.sampled_from([b'"', b"}", b"-", b"null", b"1e-8", b'""', b"[", b"\\u", b"\\ud800", b"NaN"])
        )
        damaged = frame[:start] + put + frame[start + length :]
        self.check_damaged(damaged, self.parser().parse(damaged, NOW))
        self.venue.control(damaged)

    @staticmethod
    def is_json(frame: bytes) -> bool:
        try:
            json.loads(frame, parse_constant=int)
        except ValueError:
            return False
        return True
