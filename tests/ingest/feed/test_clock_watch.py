"""Three clocks compared: what is told, of whose, from when on, and that it ends."""

from __future__ import annotations

import logging

import pytest

from ashi.runtime.metrics.declare import REGISTRY
from ashi_ingest.feed.evidence.clock_watch import PERIOD_S, TOLERATED_US, ClockWatch

T = 1_700_000_000_000_000
S = 1_000_000


def see(watch: ClockWatch, *, venue_s: float | None = None, kafka_s: float | None = None) -> None:
    """What is seen of clocks that are so far ahead of ours, with some milliseconds on the way."""
    if venue_s is not None:
        watch.on_trade(T + round(venue_s * S), T + 5_000)
    if kafka_s is not None:
        watch.on_append(T + round(kafka_s * S), T + 5_000)


@pytest.mark.parametrize(
    ("venue_s", "kafka_s", "told"),
    [
        (0, 0, None),
        (-19, -19, None),
        (20, 20, None),
        (80, 0, "the clock of toy is 80 s ahead of Kafka's and this machine's"),
        (80, None, "the clock of toy is 80 s ahead of this machine's"),
        (-90, 0, "the clock of toy is 90 s behind Kafka's and this machine's, or its trades come late"),
        (30, 30, "the clock of this machine is 30 s behind Kafka's: set one of the two"),
        (-30, -30, "the clock of this machine is 30 s ahead of Kafka's: set one of the two"),
        (0, 40, "the clock of this machine is 40 s behind Kafka's: set one of the two"),
        (None, None, None),
    ],
)
def test_clocks_that_are_too_far_apart_are_told_of_with_whose_it_is(venue_s, kafka_s, told) -> None:
    watch = ClockWatch("toy")
    see(watch, venue_s=venue_s, kafka_s=kafka_s)
    assert watch.look(0.0) == told
    gauge = REGISTRY.get_sample_value("ashi_clock_ahead_seconds", {"venue": "toy", "kind": "venue"})
    assert gauge == pytest.approx(venue_s or 0, abs=0.01)


def test_it_is_told_before_the_first_trade_is_refused_and_one_that_is_refused_tells_it_too() -> None:
    assert TOLERATED_US < 60 * S
    watch = ClockWatch("toy")
    watch.on_refused(61 * S)
    assert watch.look(0.0) == "the clock of toy is 61 s ahead of this machine's"


def test_a_trade_that_came_late_says_nothing_while_others_come_in_time() -> None:
    watch = ClockWatch("toy")
    see(watch, venue_s=-300)
    see(watch, venue_s=0)
    see(watch, venue_s=-300)
    assert watch.look(0.0) is None


def test_once_the_clock_is_right_again_that_is_told_within_two_periods(caplog) -> None:
    caplog.set_level(logging.INFO)
    watch = ClockWatch("toy")
    see(watch, venue_s=70)
    assert watch.look(0.0) is not None
    for second in range(1, int(2 * PERIOD_S) + 2):
        see(watch, venue_s=0)
        warning = watch.look(float(second))
    assert warning is None
    assert [record.message.removesuffix(" venue=toy") for record in caplog.records] == [
        "the clock of toy is 70 s ahead of this machine's",
        "the clocks agree again",
    ]


def test_a_clock_that_drifts_is_told_of_again_only_after_ten_seconds_more(caplog) -> None:
    watch = ClockWatch("toy")
    for second in range(30, 55):
        see(watch, venue_s=second)
        assert watch.look(0.0) is not None
    assert len(caplog.records) == 3
