"""The reader who knows the truth notices each lie."""

from __future__ import annotations

from decimal import Decimal

import pytest
from feed_reader import FeedReader

from ashi.contracts.feed import FeedGap, FeedStatus, encode_feed
from ashi.contracts.topics import FEED_GAPS, FEED_STATUS, TRADES, TRADES_DEAD
from ashi.contracts.trade import Trade, encode_trade
from ashi_simulator import TrueTrade

SYMBOL = "gmo:BTC"
T = 1_700_000_000_000_000


def second(number: float) -> int:
    return T + int(number * 1_000_000)


class Truth:
    """A market that trades once a second: trade 0 at second 0."""

    def __init__(self, amount: int = 10) -> None:
        self._left = [
            (TrueTrade(SYMBOL, str(number), Decimal(1), Decimal(1), "buy", second(number), 0), second(number))
            for number in range(amount)
        ]

    def new(self):
        left, self._left = self._left, []
        return iter(left)


def trade(number: int, price: int = 1) -> bytes:
    at = second(number)
    return encode_trade(Trade(SYMBOL, str(number), Decimal(price), Decimal(1), "buy", at, at, number))


def status(complete_until: int | None) -> bytes:
    return encode_feed(FeedStatus(SYMBOL, "connected", T, None, None, None, second(60), complete_until))


def gap(begin: float, end: float | None, state: str = "open", updated: int = 0) -> bytes:
    until = None if end is None else second(end)
    return encode_feed(FeedGap(SYMBOL, second(begin), until, state, 0, "a test", T + updated))  # type: ignore[arg-type]


@pytest.fixture
def reader() -> FeedReader:
    """It has been told of the opening gap, and nine of ten trades: number 5 is missing."""
    reader = FeedReader({SYMBOL: Truth()})  # type: ignore[dict-item]
    reader.on_record(FEED_GAPS, gap(-100, -50, "lost"), T)
    for number in range(10):
        if number != 5:
            reader.on_record(TRADES, trade(number), T)
    return reader


def test_a_window_that_is_called_complete_and_lacks_a_trade_is_noticed(reader: FeedReader) -> None:
    reader.on_record(FEED_STATUS, status(second(5)), T)
    reader.assert_never_misled()
    reader.on_record(FEED_STATUS, status(second(5) + 1), T)
    assert reader.misled_trades == 1
    with pytest.raises(AssertionError, match="trade 5"):
        reader.assert_never_misled()


def test_once_misled_is_misled_for_good(reader: FeedReader) -> None:
    reader.on_record(FEED_STATUS, status(second(9)), T)
    reader.on_record(TRADES, trade(5), T)
    reader.assert_truth()
    assert reader.misled_trades == 1


@pytest.mark.parametrize("state", ["open", "lost"])
def test_in_a_gap_nothing_is_promised_until_it_is_called_repaired(reader: FeedReader, state: str) -> None:
    reader.on_record(FEED_GAPS, gap(4.5, 5.5, state), T)
    reader.on_record(FEED_STATUS, status(second(9)), T)
    reader.assert_never_misled()
    reader.on_record(FEED_GAPS, gap(4.5, 5.5, "repaired", updated=1), T)
    assert reader.misled_trades == 1


def test_a_gap_beside_the_missing_trade_excuses_nothing(reader: FeedReader) -> None:
    reader.on_record(FEED_GAPS, gap(5.5, 7, "lost"), T)
    reader.on_record(FEED_STATUS, status(second(9)), T)
    assert reader.misled_trades == 1


def test_a_gap_that_is_called_repaired_lacks_nothing_even_before_its_time_is_called_complete(
    reader: FeedReader,
) -> None:
    reader.on_record(FEED_GAPS, gap(4.5, 5.5, "open"), second(20))
    reader.on_record(FEED_GAPS, gap(4.4, 4.6, "repaired", updated=20_000_000), second(20))
    reader.assert_never_misled()
    reader.on_record(FEED_GAPS, gap(4.5, 5.5, "repaired", updated=20_000_000), second(20))
    with pytest.raises(AssertionError, match="is called repaired, and trade 5"):
        reader.assert_never_misled()


def test_of_a_gap_the_message_made_last_counts_not_the_one_read_last(reader: FeedReader) -> None:
    reader.on_record(FEED_GAPS, gap(4.5, 5.5, "lost", updated=7), T)
    reader.on_record(FEED_GAPS, gap(4.5, 5.5, "repaired", updated=6), T)
    reader.on_record(FEED_STATUS, status(second(9)), T)
    reader.assert_never_misled()


def test_what_is_known_never_becomes_less(reader: FeedReader) -> None:
    reader.on_record(FEED_STATUS, status(second(3)), T)
    reader.on_record(FEED_STATUS, status(second(2)), T)
    with pytest.raises(AssertionError, match="went back"):
        reader.assert_never_misled()


def test_a_time_that_is_not_over_is_not_complete(reader: FeedReader) -> None:
    reader.on_record(TRADES, trade(5), T)
    reader.on_record(FEED_STATUS, status(second(62)), T)
    with pytest.raises(AssertionError, match="not over"):
        reader.assert_never_misled()


def test_what_is_missing_wrong_or_there_twice_is_not_the_truth(reader: FeedReader) -> None:
    with pytest.raises(AssertionError, match="1 of 10 trades are missing"):
        reader.assert_truth()
    reader.assert_truth(missing=[SYMBOL])
    reader.on_record(TRADES, trade(5), T)
    reader.assert_truth()
    reader.on_record(TRADES, trade(5), T)
    with pytest.raises(AssertionError, match="too often"):
        reader.assert_truth()
    reader.assert_truth(copies=2)
    reader.on_record(TRADES, trade(11), T)
    with pytest.raises(AssertionError, match="never traded so"):
        reader.assert_truth(copies=2)


def test_a_trade_of_another_price_is_not_the_one_that_was_traded() -> None:
    reader = FeedReader({SYMBOL: Truth(1)})  # type: ignore[dict-item]
    reader.on_record(TRADES, trade(0, price=2), T)
    with pytest.raises(AssertionError, match="never traded so"):
        reader.assert_truth()


def test_time_in_a_gap_in_which_nothing_is_missing_is_wasted(reader: FeedReader) -> None:
    reader.on_record(FEED_GAPS, gap(4.5, 5.5, "lost"), T)
    assert reader.waste(10_000_000) == 0
    reader.on_record(FEED_GAPS, gap(6, 7, "lost"), T)
    reader.on_record(FEED_GAPS, gap(7, 9, "repaired"), T)
    assert reader.waste(10_000_000) == pytest.approx(0.1)
    with pytest.raises(AssertionError):
        reader.assert_exact_gaps(10_000_000)


def test_other_topics_and_symbols_are_kept_apart(reader: FeedReader) -> None:
    reader.on_record(TRADES_DEAD, b"a letter", T)
    reader.on_record(FEED_STATUS, encode_feed(FeedStatus("gmo:ETH", "down", T, "x", None, None, T)), T)
    assert reader.others[TRADES_DEAD] == [b"a letter"]
    assert len(reader.others[FEED_STATUS]) == 1
