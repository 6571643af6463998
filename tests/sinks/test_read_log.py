from __future__ import annotations

import asyncio
import dataclasses
from typing import NamedTuple

import pytest

from ashi.contracts.errors import StateError
from ashi.runtime.kafka.cluster.log_identity import Standing, fingerprint_of
from ashi.runtime.kafka.cluster.offsets import Committed
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.kafka.consuming.spans import Span
from ashi_sinks.read_log import ReadLog


class At(NamedTuple):
    topic: str
    partition: int


AT, OTHER = At("candles", 0), At("candles", 1)


@dataclasses.dataclass
class Record:
    offset: int
    value: bytes
    key: bytes = b"key"
    timestamp: int = 1_789


def records(text, first=0):
    return [Record(first + place, letter.encode()) for place, letter in enumerate(text)]


def span(read):
    return Span(read[0].offset, read[-1].offset + 1, read)


class Topic:
    """Partitions whose records are letters, as a probe sees them."""

    def __init__(self, *texts, begin=0, topic_id="an-id"):
        self.logs = [records(text) for text in texts]
        self.begin = begin
        self.topic_id = topic_id

    async def identity(self):
        return TopicIdentity(self.topic_id, {})

    async def standing(self, offsets):
        return {
            number: Standing(
                self.begin,
                len(self.logs[number]),
                {each.offset: fingerprint_of(each) for each in self.logs[number][self.begin :] if each.offset in asked},
            )
            for number, asked in offsets.items()
        }


class Group:
    """What outlives a worker: the topic and what the group has committed."""

    def __init__(self, *texts):
        self.topic = Topic(*texts)
        self.committed = {}
        self.now_s = 1_000.0

    def worker(self):
        return ReadLog("a-group", "The way out.", lambda _: self.topic, lambda: self.now_s)

    def take_over(self, worker, *held):
        return asyncio.run(worker.take_over(held, self.committed))

    def read(self, worker, at=AT, upto=None):
        begin = self.committed[at].offset if at in self.committed else 0
        worker.take(at, span(self.topic.logs[at.partition][begin:upto]))

    def commit(self, worker, offset, at=AT):
        asyncio.run(worker.check([at]))
        self.committed[at] = Committed(offset, asyncio.run(worker.note(at, offset)))
        worker.committed(at, offset)


@pytest.fixture
def group():
    """A group that has read, stored and committed five of the letters."""
    group = Group("abcdefgh", "")
    worker = group.worker()
    group.take_over(worker, AT)
    group.read(worker, upto=5)
    group.commit(worker, 5)
    return group


def test_the_same_log_goes_on_also_when_it_has_grown_or_lost_its_beginning(group):
    for letters, begin in (("abcde", 0), ("abcdexyz", 0), ("abcdexyz", 4), ("abcdexyz", 5), ("abcdexyz", 7)):
        group.topic = Topic(letters, "", begin=begin)
        assert group.take_over(group.worker(), AT, OTHER) == set()


@pytest.mark.parametrize(
    ("letters", "begin", "what"),
    [
        ("abcd", 0, "and now the log ends at offset 4"),
        ("", 0, "and now the log ends at offset 0"),
        ("abcdX", 0, "offset 4 held a record of 1789 ms with checksum .* and now holds one of 1789 ms with"),
        ("ABCDEFGHIJKLM", 0, "and now holds one of 1789 ms with"),
        ("ABCDEFGHIJKLM", 7, "the topic's id was an-id and is another"),
    ],
    ids=["cut", "emptied", "cut-and-grown", "made-anew-and-outgrown", "made-anew-and-expired"],
)
def test_another_log_is_refused_at_every_start_with_what_was_found_where_and_the_way_out(group, letters, begin, what):
    group.topic = Topic(letters, "", begin=begin, topic_id="another")
    for _ in range(2):
        worker = group.worker()
        refusal = f"candles/0 is not the log any more that group a-group has read: .*{what}.*The way out"
        with pytest.raises(StateError, match=refusal):
            group.take_over(worker, AT, OTHER)


STATUS = At("feed.status", 0)


def compacted(letters, gone, topic_id="an-id"):
    """A topic with these records, of which some are gone because newer ones of their keys replaced them."""
    topic = Topic(letters, topic_id=topic_id)
    standing = topic.standing

    async def without_gone(offsets):
        found = await standing(offsets)
        left = {place: each for place, each in found[0].found.items() if place not in gone}
        return {0: found[0]._replace(found=left)}

    topic.standing = without_gone
    return topic


def test_of_a_compacted_topic_the_record_read_last_may_be_gone_but_not_be_another_nor_the_log_end_before_it(caplog):
    group = Group("abcdefgh")
    worker = group.worker()
    group.take_over(worker, STATUS)
    group.read(worker, STATUS, upto=5)
    group.commit(worker, 5, STATUS)
    group.topic = compacted("abcdefghij", gone={4, 5})
    worker = group.worker()
    group.take_over(worker, STATUS)
    worker.take(STATUS, Span(5, 8, group.topic.logs[0][6:8]))
    group.now_s += 1
    worker.take(STATUS, span(group.topic.logs[0][8:]))
    group.topic = compacted("abcdefghij", gone={4, 5, 7})
    asyncio.run(worker.check([STATUS]))
    assert not caplog.records
    for topic in (
        compacted("abcdXfgh", gone=()),
        compacted("abc", gone={4}),
        compacted("abcdefgh", gone={4}, topic_id="another"),
    ):
        group.topic = topic
        with pytest.raises(StateError, match=r"feed\.status/0 is not the log any more"):
            group.take_over(group.worker(), STATUS)


def test_a_topic_restored_record_by_record_is_the_same_log_whatever_its_id(group):
    group.topic.topic_id = "another"
    assert group.take_over(group.worker(), AT) == set()


def test_an_offset_committed_by_a_version_without_notes_is_gone_on_from_unless_the_log_ends_before_it(group):
    group.committed[AT] = Committed(5, "")
    worker = group.worker()
    group.take_over(worker, AT)
    group.read(worker)
    group.commit(worker, 8)
    assert '"last":[7,1789,' in group.committed[AT].note
    group.committed[AT] = Committed(9, "")
    with pytest.raises(StateError, match="it ends at offset 8, and 9 was to be read next"):
        group.take_over(group.worker(), AT)


def test_records_that_come_again_below_what_was_read_are_those_of_another_log(group):
    worker = group.worker()
    group.take_over(worker, AT)
    with pytest.raises(StateError, match="it ended before offset 5, which was to be read next, and begins again at 0"):
        worker.take(AT, span(records("AB")))
    worker.forget()  # told to begin anew
    worker.take(AT, span(records("AB")))


@pytest.mark.parametrize("read", [False, True], ids=["since it was committed", "since more was read"])
def test_a_client_that_lost_its_place_in_a_log_that_still_stands_goes_on_where_it_was(group, read, caplog):
    worker = group.worker()
    group.take_over(worker, AT)
    expected = 5
    if read:
        group.read(worker)
        expected = 8
    again = span(group.topic.logs[0][:2])
    assert asyncio.run(worker.where_to_go_on(AT, again)) == expected
    assert "the client went back" in caplog.text
    assert asyncio.run(worker.where_to_go_on(AT, Span(expected, expected, []))) is None
    assert asyncio.run(worker.where_to_go_on(STATUS, again)) is None, "of which nothing was read"
    group.topic = Topic("abcdX", "")  # but where what was read does not stand any more it was the log
    assert asyncio.run(worker.where_to_go_on(AT, again)) is None
    with pytest.raises(StateError, match=f"it ended before offset {expected}, which was to be read next"):
        worker.take(AT, again)


def test_a_log_cut_while_it_is_read_and_grown_beyond_is_found_before_anything_more_is_committed(group):
    worker = group.worker()
    group.take_over(worker, AT)
    group.read(worker)  # up to offset 8, all of the old log
    group.commit(worker, 8)
    group.topic = Topic("abXYZXYZXYZXYZ", "")
    group.read(worker)
    group.now_s += 1
    for _ in range(2):
        with pytest.raises(StateError, match="offset 7 held"):
            group.commit(worker, 14)
    assert group.committed[AT].offset == 8
    with pytest.raises(StateError, match="offset 7 held"):
        group.take_over(group.worker(), AT)


@pytest.fixture
def looks(group):
    """When which offsets of which partitions were looked at."""
    looks, standing = [], group.topic.standing

    async def noting(offsets):
        looks.append((group.now_s, {number: sorted(asked) for number, asked in offsets.items()}))
        return await standing(offsets)

    group.topic.standing = noting
    return looks


def test_while_records_come_what_was_committed_of_a_partition_is_looked_at_once_a_second(group, looks):
    worker = group.worker()
    group.take_over(worker, AT, OTHER)
    looks.clear()
    for offset, now_s in ((6, 1_000.5), (7, 1_000.9), (8, 1_001.0)):
        group.now_s = now_s
        group.read(worker, upto=offset)
        group.commit(worker, offset)
    assert looks == [(1_001.0, {0: [6]})]
    group.topic.logs = [records("abcdefghi"), records("xyz")]
    group.now_s = 1_001.5  # the first commit of a partition has nothing to look at
    group.read(worker, OTHER, 2)
    group.commit(worker, 2, OTHER)
    group.read(worker)
    group.commit(worker, 9)
    assert len(looks) == 1
    group.now_s = 1_002.4
    group.read(worker, OTHER)
    group.commit(worker, 3, OTHER)
    assert looks[1:] == [(1_002.4, {1: [1]})]


def test_what_was_read_before_a_pause_must_stand_before_what_came_after_it_is_committed(group, looks):
    """Also what is not committed yet: a store may be away while the log is cut."""
    worker = group.worker()
    group.take_over(worker, AT)
    group.read(worker, upto=7)
    group.now_s += 0.9
    worker.take(AT, span(records("h", 7)))
    looks.clear()
    group.now_s += 1
    group.topic = Topic("abcdefgXYZ", "")  # cut above what is committed
    worker.take(AT, span(records("YZ", 8)))
    for _ in range(2):
        with pytest.raises(StateError, match="offset 7 held a record"):
            group.commit(worker, 10)
    assert group.committed[AT].offset == 5


def test_a_look_just_before_does_not_excuse_what_comes_after_a_pause(group, looks):
    worker = group.worker()
    group.take_over(worker, AT)
    group.read(worker, upto=8)
    group.now_s += 1.5
    group.commit(worker, 8)
    group.topic.logs[0] += records("i", 8)
    group.read(worker)
    group.commit(worker, 9)
    group.now_s += 0.5
    group.topic.logs[0] += records("j", 9)
    group.read(worker)
    group.commit(worker, 10)
    assert looks[1:] == [(1_001.5, {0: [4]}), (1_001.5, {0: [7, 7]})]


def test_a_topic_whose_committed_offsets_went_with_it_is_read_from_its_beginning_and_named(group):
    worker = group.worker()
    group.take_over(worker, AT)
    group.read(worker)
    group.commit(worker, 8)
    group.committed.clear()
    group.topic = Topic("AB", "")
    assert group.take_over(worker, AT, OTHER) == {"candles"}
    worker.take(AT, span(records("AB")))
    assert group.take_over(worker, AT, OTHER) == set(), "said once"
