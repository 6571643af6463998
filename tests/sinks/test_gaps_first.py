"""Statuses wait until the gaps have been read that were told before them."""

from __future__ import annotations

from typing import Any, NamedTuple

from aiokafka import TopicPartition

from ashi.runtime.kafka.consuming.reading_state import ReadingState
from ashi.runtime.kafka.consuming.spans import Span
from ashi_sinks.gaps_first import GapsFirst


class Key(NamedTuple):
    partition: TopicPartition
    rebalances: int = 0


STATUS, GAPS, CANDLES = (Key(TopicPartition(topic, 3)) for topic in ("status", "gaps", "candles"))
TOLD = Span(0, 2, ["a", "b"])


class Reading:
    """A consumer that holds some partitions, and knows what it was answered of the gaps."""

    def __init__(self, *topics: str) -> None:
        self.topics = topics
        self.answered: ReadingState | None = None
        self.first = GapsFirst({"status": "gaps"})

    def partner(self, key: Any, topic: str) -> Any | None:
        return TopicPartition(topic, key.partition.partition) if topic in self.topics else None

    def state(self, partition: Any) -> ReadingState | None:
        assert partition == GAPS.partition
        return self.answered

    def hold(self, spans: dict[Any, Span]) -> tuple[dict[Any, Span], list[Any]]:
        return self.first.hold(spans, self.partner, self.state)

    def release(self) -> dict[Any, Span]:
        return self.first.release(self.partner, self.state)


def test_a_status_waits_for_two_answers_about_the_gaps_and_for_all_that_they_have() -> None:
    reading = Reading("status", "gaps")
    gaps = Span(5, 6, ["g"])
    assert reading.hold({STATUS: TOLD, GAPS: gaps, CANDLES: TOLD}) == ({GAPS: gaps, CANDLES: TOLD}, [STATUS])
    for answered in (
        None,
        ReadingState(position=6, end=6, answered_ms=10),  # may have been on its way before
        ReadingState(position=6, end=6, answered_ms=10),  # the same answer
        ReadingState(position=6, end=8, answered_ms=20),  # there is more
    ):
        reading.answered = answered
        assert reading.release() == {}
    reading.answered = ReadingState(position=8, end=8, answered_ms=20)
    assert reading.release() == {STATUS: TOLD}
    assert reading.release() == {}, "once"


def test_an_answer_from_before_the_status_is_none_of_the_two() -> None:
    reading = Reading("status", "gaps")
    reading.answered = ReadingState(position=6, end=6, answered_ms=10)
    reading.hold({STATUS: TOLD})
    assert reading.release() == {}
    reading.answered = ReadingState(position=6, end=6, answered_ms=20)
    assert reading.release() == {}
    reading.answered = ReadingState(position=6, end=6, answered_ms=30)
    assert reading.release() == {STATUS: TOLD}


def test_where_another_worker_reads_the_gaps_nothing_waits() -> None:
    reading = Reading("status")
    assert reading.hold({STATUS: TOLD}) == ({STATUS: TOLD}, [])
    both = Reading("status", "gaps")
    both.hold({STATUS: TOLD})
    both.topics = ("status",)
    assert both.release() == {STATUS: TOLD}


def test_what_comes_although_something_is_held_waits_with_it() -> None:
    reading = Reading("status", "gaps")
    reading.hold({STATUS: TOLD})
    assert reading.hold({STATUS: Span(2, 3, ["c"])}) == ({}, [STATUS])
    assert reading.hold({STATUS: Span(3, 5, [])}) == ({}, [STATUS]), "an end without a record is no shortcut"
    for answered_ms in (1, 2):
        reading.answered = ReadingState(position=0, end=0, answered_ms=answered_ms)
        released = reading.release()
    assert released == {STATUS: Span(0, 5, ["a", "b", "c"])}


def test_what_is_to_be_read_again_is_held_no_more() -> None:
    reading = Reading("status", "gaps")
    later = STATUS._replace(rebalances=1)
    reading.hold({STATUS: TOLD, later: TOLD})
    assert reading.first.forget(lambda key: key.rebalances != 1) == [STATUS]
    assert reading.first.forget() == [later]
    assert reading.first.forget() == []


def test_what_holds_no_record_passes() -> None:
    passed = Span(2, 4, [])
    assert Reading("status", "gaps").hold({STATUS: passed}) == ({STATUS: passed}, [])
