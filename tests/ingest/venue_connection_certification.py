"""What every venue must say about its connections: limits, subscriptions, control frames, the list of markets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_samples import VenueSamples, certifying, one_a_second

from ashi.contracts.errors import ContractError
from ashi.contracts.symbol import make_symbol
from ashi_ingest.venues.base import Acknowledged, Closing, Refused, Request

DOCUMENT = Path(__file__).parents[2] / "docs" / "venues.md"
MOST_IN_A_REASON = 400
UNREADABLE = [b"", b"<html>maintenance</html>", b"[", b"\xff", b"null", b"5", b'{"x":' * 100_000]

market_names = st.from_regex(r"[A-Z0-9]{2,8}(_[A-Z0-9]{2,8})?", fullmatch=True)


class ConnectionCertification(VenueSamples):
    """The part of the suite about connections."""

    def check_request(self, request: Request) -> None:
        assert re.fullmatch(r"(/[A-Za-z0-9_]+)+", request.path)
        assert all(isinstance(text, str) and text for pair in request.parameters.items() for text in pair)
        assert request.weight >= 1
        assert request.api_key in (None, self.description.api_key)

    # Limits.

    def test_the_limits_are_sane(self) -> None:
        limits = self.venue.limits
        assert urlsplit(limits.websocket_url).scheme == "wss"
        assert urlsplit(limits.websocket_url).query == ""
        rest = urlsplit(limits.rest_url)
        assert (rest.scheme, rest.path, rest.query) == ("https", "", "")
        assert limits.markets_per_connection >= 1
        assert 0 < limits.connect_interval_s <= 60
        assert 0 < limits.message_interval_s <= 10
        assert 0 < limits.request_interval_s <= 10
        assert 0 < limits.refusal_s < limits.silence_s
        assert 30 <= limits.silence_s <= 600, "a quiet market is no dead connection, and a dead one must be noticed"
        assert limits.ping_interval_s is None or 5 <= limits.ping_interval_s <= limits.silence_s / 2
        assert limits.lifetime_s is None or limits.lifetime_s >= 600

    def test_a_whole_connection_is_subscribed_before_it_is_taken_for_dead(self) -> None:
        limits = self.venue.limits
        markets = [f"M{number}" for number in range(limits.markets_per_connection)]
        messages = self.venue.subscriptions(markets, 1)
        assert [market for each in messages for market in each.markets] == markets
        assert len(messages) * limits.message_interval_s < limits.silence_s

    def test_the_limits_keep_within_what_the_venue_documents(self) -> None:
        limits, documented = self.venue.limits, self.documented
        for interval_s, allowed in (
            (limits.request_interval_s, documented.requests),
            (limits.message_interval_s, documented.messages),
            (limits.connect_interval_s, documented.connections),
        ):
            if allowed is not None:
                number, within_s = allowed
                assert interval_s >= within_s / number
        if documented.markets is not None:
            assert limits.markets_per_connection <= documented.markets
        assert limits.lifetime_s == documented.lifetime_s

    def test_the_table_of_docs_venues_md_says_these_limits(self) -> None:
        lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
        table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.count("|") > 3]
        assert self.description.title in table[0], "give the venue a column there, under its title"
        column = table[0].index(self.description.title)
        said = {row[0]: row[column].split(",")[0] for row in table}
        limits = self.venue.limits
        lifetime = "none" if limits.lifetime_s is None else f"{limits.lifetime_s / 3600:g} h"
        assert said["markets of a connection"] == f"{limits.markets_per_connection}"
        assert said["a message of ours at most every"] == f"{limits.message_interval_s:g} s"
        assert said["a REST request of weight 1 at most every"] == f"{limits.request_interval_s:g} s"
        window = f"{limits.request_window_s:g} s" if limits.request_window_s else "none"
        assert said["the time of which that is the average"] == window
        assert said["its own limit of a connection"] == lifetime
        assert said["silence after which a connection is given up"] == f"{limits.silence_s / 60:g} min"

    # Subscriptions.

    @certifying
    @given(markets=st.lists(market_names, unique=True, max_size=450), first_id=st.integers(1, 10_000))
    def test_every_market_is_subscribed_once_in_order_and_ids_follow_each_other(
        self, markets: list[str], first_id: int
    ) -> None:
        messages = self.venue.subscriptions(markets, first_id)
        assert [market for each in messages for market in each.markets] == markets
        assert [each.request_id for each in messages] == list(range(first_id, first_id + len(messages)))
        for each in messages:
            assert each.markets
            assert isinstance(json.loads(each.message), dict)
            words = re.split(r"[^a-z0-9_]+", each.message.lower())
            for market in each.markets:
                assert any(word == market.lower() or word.endswith("_" + market.lower()) for word in words)

    def test_a_subscription_is_the_documented_message(self) -> None:
        (subscription,) = self.venue.subscriptions([self.market], 7)
        assert json.loads(subscription.message) == json.loads(self.subscription)

    def test_unsubscribing_is_the_documented_message(self) -> None:
        message = self.venue.unsubscription(self.market, 7)
        assert message is not None
        assert json.loads(message) == json.loads(self.unsubscription)

    def test_an_acknowledgment_is_told_by_its_id(self) -> None:
        frame = self.acknowledgment(7)
        assert self.venue.limits.acknowledges == (frame is not None)
        if frame is not None:
            assert self.venue.control(frame) == Acknowledged(7)
            other = self.acknowledgment(8)
            assert other is not None
            assert self.venue.control(other) == Acknowledged(8)

    def test_a_refusal_says_whose_why_and_whether_to_try_again(self) -> None:
        assert any(refusal.retryable for refusal in self.refusals)
        for refusal in self.refusals:
            control = self.venue.control(refusal.frame)
            assert isinstance(control, Refused)
            assert (control.request_id, control.retryable) == (refusal.request_id, refusal.retryable)
            assert self.description.title.split()[0] in control.reason
            assert len(control.reason) <= MOST_IN_A_REASON

    def test_a_refusal_of_a_million_characters_has_a_short_reason(self) -> None:
        for refusal in self.refusals:
            longest = max(re.findall(rb':"([^"]*)"', refusal.frame), key=len)
            frame = refusal.frame.replace(longest, longest + b" x" * 500_000)
            control = self.venue.control(frame)
            assert isinstance(control, Refused)
            assert len(control.reason) <= MOST_IN_A_REASON

    # Control.

    def test_an_announced_end_is_told_from_all_else(self) -> None:
        for frame in self.closings:
            control = self.venue.control(frame)
            assert isinstance(control, Closing)
            assert control.reason
        for refusal in self.refusals:
            assert not isinstance(self.venue.control(refusal.frame), Closing)

    def test_trades_and_other_channels_say_nothing_of_the_connection(self) -> None:
        for frame in (*self.frames(self.market, one_a_second(3)), *self.recorded_frames[:50], *self.other_frames):
            assert self.venue.control(frame) is None

    @pytest.mark.parametrize("frame", [b"", b"garbage", b"\x00", b"\xff", b"[]", b"{}", b"5", b'{"x":' * 100_000])
    def test_what_is_no_frame_says_nothing_of_the_connection(self, frame: bytes) -> None:
        assert self.venue.control(frame) is None

    def test_half_of_a_control_frame_says_nothing(self) -> None:
        accepted = self.acknowledgment(7)
        whole = [*self.closings, *(each.frame for each in self.refusals), *([] if accepted is None else [accepted])]
        for frame in whole:
            for cut in range(len(frame)):
                assert self.venue.control(frame[:cut]) is None

    # Markets.

    def test_the_markets_are_listed_by_the_venues_own_names(self) -> None:
        request = self.venue.markets_request()
        self.check_request(request)
        assert request.api_key is None
        assert self.venue.read_markets(self.markets_answer) == list(self.markets_listed)
        for listed in self.markets_listed:
            make_symbol(self.name, listed.market)

    def test_a_list_of_markets_that_cannot_be_read_is_an_error_that_says_which(self) -> None:
        path = self.venue.markets_request().path
        for body in (*UNREADABLE, *self.error_answers, self.markets_answer[:-2]):
            with pytest.raises(ContractError, match=path):
                self.venue.read_markets(body)

    # Its description.

    def test_the_description_names_markets_that_can_be_read(self) -> None:
        description = self.description
        for market in (description.example_market, *description.busiest_markets):
            make_symbol(self.name, market)
        assert description.busiest_markets
        assert description.title.strip() == description.title != ""
