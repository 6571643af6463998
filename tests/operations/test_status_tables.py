"""What the topics have said, summed up: feeds, candles, gaps, lag; and how it is drawn and written as JSON."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
from operations_samples import DAY, MINUTE, NOW, S, aggregate, lag, sink, snapshot, status
from rich.console import Console

from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap, FeedWorker
from ashi.contracts.late_gaps import LATE_REASON
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.kafka.cluster.survey import Range
from ashi.runtime.settings import Settings
from ashi.runtime.words import counted
from ashi_operations.problem import Problem
from ashi_operations.status.candles import KEPT_US, CandleWindow
from ashi_operations.status.feeds import FeedTable
from ashi_operations.status.gaps import GapTable
from ashi_operations.status.groups import Place, lag_of, stage_of
from ashi_operations.status.screen import draw, fitted
from ashi_operations.status.snapshot import Feed, Lag, Snapshot, Unknown, to_json
from ashi_operations.words import named, span
from samples.candles import a_candle


def candle(open_time: int, *, symbol: str = "binance:BTCUSDT", timeframe: str = "1m", version: int = 1) -> Candle:
    close_time = open_time + {"1m": MINUTE, "1h": 60 * MINUTE}[timeframe]
    at = {"open_time": open_time, "close_time": close_time}
    return a_candle(0, version, symbol, timeframe, "61837.63", **at)


def test_the_later_status_of_a_symbol_counts_and_old_ones_are_stale() -> None:
    table = FeedTable()
    table.take(status(state="down", reason="broken", age_s=30))
    table.take(status(age_s=1))
    table.take(status(state="silent", age_s=20))  # of a partition that it was in before
    table.take(status("gmo:BTC", age_s=61))
    feeds = table.view(NOW)
    assert feeds.states == {"stale": 1, "connected": 1}
    assert feeds.workers == 1
    assert [(venue.venue, venue.symbols, venue.states) for venue in feeds.venues] == [
        ("binance", 1, {"connected": 1}),
        ("gmo", 1, {"stale": 1}),
    ]
    [stale] = feeds.troubled
    assert stale == Feed(
        "gmo:BTC", "stale", NOW - 61 * S, "nothing was heard of it; it was connected", NOW - 62 * S, NOW - 63 * S, 0
    )


def test_the_venue_is_complete_up_to_where_all_its_living_feeds_are() -> None:
    table = FeedTable()
    table.take(status("binance:A", complete_until=NOW - 5 * S))
    table.take(status("binance:B", complete_until=NOW - 9 * S))
    table.take(status("binance:GONE", age_s=1_000, complete_until=1))
    [venue] = table.view(NOW).venues
    assert venue.complete_until == NOW - 9 * S
    table.take(status("binance:C", complete_until=None))
    [venue] = table.view(NOW).venues
    assert venue.complete_until is None


def test_feeds_that_are_asked_for_by_name_are_told_also_where_all_is_well() -> None:
    table = FeedTable()
    workers = tuple(FeedWorker(f"worker-{number}", "connected", NOW - number * 40 * S) for number in range(3))
    table.take(status("binance:A", workers=workers))
    table.take(status("binance:B"))
    feeds = table.view(NOW, {"binance:A"})
    assert [(feed.symbol, feed.state, feed.workers) for feed in feeds.troubled] == [("binance:A", "connected", 2)]
    assert feeds.symbols == 1


def test_delays_are_of_the_first_of_each_candle_that_closed_since_the_reading_began() -> None:
    window = CandleWindow(NOW - KEPT_US)
    close = (NOW - MINUTE) // MINUTE * MINUTE
    window.take(candle(close - 9 * MINUTE), NOW - KEPT_US + S)  # closed before: this may be its correction
    window.take(candle(close - MINUTE), close + 3 * S)
    window.take(candle(close - MINUTE, version=2), close + 50 * S)
    window.take(candle(close - 2 * MINUTE, version=2), close + 51 * S)
    window.take(candle(close - MINUTE, symbol="gmo:BTC"), close + 5 * S)
    delay = window.delay(NOW, 2 * S)
    assert delay is not None
    assert (delay.candles, delay.most, delay.p99, delay.median) == (2, 3.0, 3.0, 3.0)
    assert window.delay(NOW + 2 * KEPT_US, 2 * S) is None


def test_the_newest_candle_of_each_timeframe_or_of_a_symbol() -> None:
    window = CandleWindow(0)
    open_time = NOW // (60 * MINUTE) * 60 * MINUTE
    for symbol in ("binance:A", "binance:B"):
        window.take(candle(open_time, symbol=symbol), NOW)
        window.take(candle(open_time, symbol=symbol, timeframe="1h"), NOW)
    window.take(candle(open_time + MINUTE, symbol="binance:A"), NOW + S)
    found = [(each.timeframe, each.symbol, each.open_time, each.symbols, each.close) for each in window.newest()]
    assert found == [
        ("1m", "binance:A", open_time + MINUTE, 1, "61837.63"),
        ("1h", "binance:A", open_time, 2, "61837.63"),
    ]
    assert [(each.timeframe, each.symbol) for each in window.newest({"binance:B"})] == [
        ("1m", "binance:B"),
        ("1h", "binance:B"),
    ]


def test_gaps_of_the_last_day_are_counted_by_what_was_said_of_each_last() -> None:
    table = GapTable()

    def say(symbol: str, state: str, age_s: float, *, from_time: int = NOW - S, final: bool = False) -> None:
        gap = FeedGap(symbol, from_time, NOW, state, 0, "why", NOW - int(age_s * S), final)  # type: ignore[arg-type]
        table.take(gap)

    say("a:A", "repaired", 5)
    say("a:A", "open", 9)  # said before it was repaired
    say("a:B", "lost", 7)
    say("a:C", "lost", 7, final=True)
    say("a:D", "lost", 2 * 86_400)
    say("a:E", "open", 2 * 86_400)
    say("a:F", "lost", 7, from_time=EARLIEST_US)  # before it was first read
    table.take(FeedGap("a:G", NOW - S, NOW, "lost", 0, f"{LATE_REASON}: why", NOW - S, final=True))
    gaps = table.view(NOW)
    assert (gaps.open, gaps.lost, gaps.final, gaps.repaired, gaps.late) == (1, 1, 1, 1, 1)
    assert gaps.latest_late is not None
    assert gaps.latest_late.symbol == "a:G"
    assert table.view(NOW, {"a:B"}).latest_late is None
    assert [(gap.symbol, gap.state) for gap in gaps.worst] == [("a:B", "lost"), ("a:E", "open")]
    assert table.view(NOW, {"a:B"}).worst == gaps.worst[:1]


def test_lag_is_from_where_a_group_goes_on_to_the_end() -> None:
    ranges = {0: Range(0, 100), 1: Range(50, 80), 2: Range(0, 0), 3: Range(10, 20)}
    place = Place("trades", {0: 90, 1: 40, 3: 20}, ranges, {0: 5_000, 1: 2_000})
    assert lag_of(place, 12_000) == Lag("trades", 40, 10.0, 1, [1], [])


def test_only_what_a_reader_gets_counts_as_lag() -> None:
    """Behind the last record stand the markers of a transaction: nothing waits."""
    assert lag_of(Place("trades", {0: 98}, {0: Range(0, 100)}, {}), 0) == lag("trades", 0, 0.0)


def test_a_partition_that_was_never_committed_is_read_from_its_beginning() -> None:
    found = lag_of(Place("trades", {}, {0: Range(5, 9)}, {0: 1_000}), 2_000)
    assert (found.records, found.seconds, found.unread, found.lost) == (4, 1.0, [0], [])


@pytest.mark.parametrize(
    ("group", "stage"),
    [
        ("ashi-aggregate", "aggregate"),
        ("ashi-sink-lake-trades", "sink"),
        ("my-sinks", "sink"),
        ("ashi-strategy-ma_cross-1f", "strategy"),
        ("somebody-elses", None),
    ],
)
def test_groups_are_known_by_their_names(group: str, stage: str | None) -> None:
    assert stage_of(group, Settings.from_environment({"ASHI_SINK_GROUP": "my-sinks"})) == stage


def drawn(seen: Snapshot, width: int = 140) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(draw(seen), soft_wrap=True)
    return console.export_text()


def test_the_screen_has_what_is_wrong_first_and_below_each_the_command() -> None:
    problem = Problem("error", "feeds.down", "binance", "3 feeds of binance are not connected", "ashi status --once")
    unknown = [Unknown("stages and stores", "no answer within 10 s")]
    text = drawn(snapshot(problems=[problem], unknown=unknown, stages=None, stores=None))
    lines = [line.strip() for line in text.splitlines()]
    place = lines.index("✗ 3 feeds of binance are not connected  [feeds.down]")
    assert lines[place + 1] == "ashi status --once"
    assert "? not known: stages and stores (no answer within 10 s)" in lines
    assert text.index("feeds.down") < text.index("complete until")


def test_the_screen_of_a_deployment_that_is_well() -> None:
    text = drawn(snapshot(stages=[aggregate(lags=[lag(records=1_200, seconds=0.4)])], stores=[sink()]))
    lines = [line.split() for line in text.splitlines()]
    assert "✓ nothing is wrong" in text
    assert ["ashi-aggregate", "2", "4", "0.4", "s", "1,200"] in lines
    assert ["ashi-sink-sqlite", "1", "4", "0.0", "s", "0", "60", "s", "ago"] in lines
    assert "median 0.2 s, 99 % 0.4 s, most 0.5 s (10 candles in 3 min)" in text
    assert drawn(snapshot(unknown=[Unknown("feeds", "why")])).count("nothing is known to be wrong") == 1


def test_the_screen_stays_short_with_ten_thousand_feeds_in_trouble() -> None:
    table = FeedTable()
    for number in range(10_000):
        table.take(status(f"binance:M{number}", "down", reason="away"))
    text = drawn(snapshot(feeds=table.view(NOW)))
    assert len(text.splitlines()) < 45
    assert "and 9,992 feeds more" in text


def test_what_is_told_one_by_one_fits_the_terminal() -> None:
    table = FeedTable()
    for number in range(100):
        table.take(status(f"binance:M{number}", "down", reason="away"))
    seen = snapshot(feeds=table.view(NOW))
    for height, told in ((80, 40), (38, 8), (32, 3), (10, 0)):
        console = Console(width=140, height=height, record=True, file=io.StringIO())
        console.print(fitted(console, seen, "Ctrl-C ends it"), soft_wrap=True)
        text = console.export_text()
        assert text.count(": away") == told, text
        assert len(text.splitlines()) <= height or not told
        assert "Ctrl-C ends it" in text


def test_the_json_is_one_line_of_the_documented_fields() -> None:
    text = to_json(snapshot(problems=[Problem("error", "a", "b", "c", "d")]))
    assert "\n" not in text
    document = json.loads(text)
    assert document["schema"] == "ashi.status.v1"
    assert set(document) == {field.name for field in msgspec.structs.fields(Snapshot)}
    assert document["problems"] == [{"level": "error", "code": "a", "about": "b", "text": "c", "command": "d"}]
    assert document["stages"][0]["lags"][0]["records"] == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (42.4, "42 s"),
        (119, "119 s"),
        (150, "2 min"),
        (7_200, "2.0 h"),
        (50_000, "14 h"),
        (10 * 86_400, "10 d"),
        (-3, "-3.0 s"),
    ],
)
def test_times_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_many_names_are_counted() -> None:
    assert named(list("abcdef"), most=3) == "a, b, c and 3 more"
    assert named(["a"]) == "a"
    assert (counted(1, "feed"), counted(1_200, "feed")) == ("1 feed", "1,200 feeds")
    assert DAY == 86_400 * S
