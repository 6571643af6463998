"""What a recording tells besides frames: what was fetched over REST, what waited for it, over which connection."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.trade import Trade, decode_trade
from ashi_ingest.publish.buffer import PublishBuffer
from ashi_ingest.recording import reader as module
from ashi_ingest.recording import replay as replay_module
from ashi_ingest.recording.feed_recorder import FeedRecorder
from ashi_ingest.recording.format import Line, read_recording
from ashi_ingest.recording.own_lines import PREFIX, TRADES_PER_LINE, own_line, repaired_lines
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.recorder import Recorder
from ashi_ingest.recording.replay import _Replay
from ashi_ingest.recording.sequence import RecordingSequence
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from pathlib import Path

    from ashi.runtime.kafka.producing.encoded_batches import EncodedBatch

T = 1_700_000_000_000_000
ETH = "binance:ETHUSDT"


class Publisher:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.trades: list[Trade] = []
        self.rejected: list[Any] = []
        self.published = self.dead = self.encoded = 0

    def expect(self, count: int) -> None:
        pass

    async def publish(self, trades: list[Trade]) -> None:
        self.trades += trades

    def partition_of(self, symbol: str) -> int:
        return len(symbol) % 2

    async def publish_encoded(self, partition: int, batch: EncodedBatch) -> None:
        records = [*DefaultRecordBatch(bytes(batch._build()))]
        trades = [decode_trade(record.value) for record in records]
        assert [record.key for record in records] == [trade.symbol.encode() for trade in trades]
        assert {self.partition_of(trade.symbol) for trade in trades} == {partition}
        self.encoded += len(trades)
        self.trades += trades

    async def reject(self, rejected: list[Any], source: str) -> None:
        self.rejected += rejected


class Lines:
    """A recorder that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def write(self, received_ns: int, frame: bytes) -> None:
        self.lines.append(Line(len(self.lines) + 1, received_ns // 1000, frame))


def trade(number: int) -> Trade:
    us = T + number * 1_000_000
    return Trade(ETH, str(number), Decimal("1.5"), Decimal(2), "buy", us, us + 100, number)


def trades(count: int) -> list[Trade]:
    return [trade(number) for number in range(count)]


def came(number: int) -> bytes:
    at_ms = T // 1000 + number * 1000
    event = {"e": "trade", "s": "ETHUSDT", "t": number, "p": "1.5", "q": "2", "T": at_ms, "m": False}
    return json.dumps({"stream": "ethusdt@trade", "data": event}).encode()


def fetched(*numbers: int) -> bytes:
    ((_, line),) = repaired_lines([trade(number) for number in numbers])
    return line


WAITS, PASSES = own_line("waits", ETH), own_line("passes", ETH)


def read(*frames: bytes, finish: bool = False) -> list[int]:
    reader = RecordingReader("binance")
    given = [each for number, frame in enumerate(frames, 1) for each in reader.read(Line(number, T, frame)).trades]
    return [each.sequence for each in given + (reader.finish() if finish else [])]


def replay(path: Path) -> Publisher:
    publisher = Publisher()
    given: Any = publisher

    async def main() -> None:
        run = _Replay(RecordingReader("binance"), given, asyncio.Event(), lambda _: None)
        await run.read(path)
        await run.finish()

    asyncio.run(main())
    return publisher


def recorded(*, with_connections: bool) -> tuple[Lines, FeedRecorder]:
    lines: Any = Lines()
    return lines, FeedRecorder(lines, with_connections=with_connections)


def test_what_no_connection_brought_is_recorded_and_replayed_as_it_was_published(tmp_path: Path) -> None:
    async def main() -> None:
        given: Any = Publisher()
        recorder = Recorder(tmp_path, "binance")
        feeds = FeedRecorder(recorder, with_connections=False)
        feeds.state(ETH, "repairing")
        feeds.frame(1, (T + 9_000_000) * 1000, came(9))
        buffer = PublishBuffer(given, feeds.fetched)
        buffer.put(trades(3), streamed=False)
        buffer.put([trade(9)], streamed=True)  # its frame is recorded as it came
        recorder.close()  # before the repair has ended

    asyncio.run(main())
    (path,) = tmp_path.iterdir()
    publisher = replay(path)
    assert [each.sequence for each in publisher.trades] == [0, 1, 2, 9]
    assert publisher.trades[:3] == trades(3)
    assert publisher.rejected == []


def test_many_trades_are_several_lines_and_each_is_read_again() -> None:
    lines = list(repaired_lines(trades(TRADES_PER_LINE + 1)))
    assert [received_ns for received_ns, _ in lines] == [
        trade(number).received_at * 1000 for number in (0, TRADES_PER_LINE)
    ]
    assert read(*(line for _, line in lines)) == list(range(TRADES_PER_LINE + 1))


def test_a_recording_of_frames_only_gives_them_as_they_stand() -> None:
    assert read(came(3), came(1), came(1), came(7)) == [3, 1, 1, 7]


def test_what_came_during_a_repair_is_given_after_what_the_repair_brought_and_once() -> None:
    assert read(came(1), WAITS, came(6), came(7), fetched(3, 4), fetched(5, 6), came(8), PASSES, came(9)) == [
        1, 3, 4, 5, 6, 7, 8, 9,
    ]  # fmt: skip


def test_what_waits_when_the_process_is_killed_waits_for_the_repair_of_the_next_one() -> None:
    assert read(came(1), WAITS, came(5), WAITS, came(9), fetched(2, 8), PASSES) == [1, 2, 8, 5, 9]


def test_what_is_fetched_while_the_feed_is_live_stands_where_it_was_published() -> None:
    assert read(WAITS, PASSES, came(1), came(4), fetched(2, 3), came(5)) == [1, 4, 2, 3, 5]


def test_what_still_waits_at_the_end_is_given_then() -> None:
    assert read(WAITS, came(5), came(7)) == []
    assert read(WAITS, came(5), came(7), finish=True) == [5, 7]


def test_several_recordings_are_one_sequence_with_what_still_waits_at_its_end(tmp_path: Path) -> None:
    frames = [came(0), b"{", b"{", WAITS, came(2)], [came(3), fetched(1)]
    paths = [tmp_path / name for name in ("first", "second")]
    for path, written in zip(paths, frames, strict=True):
        path.write_bytes(b"".join(b"%d000 %b\n" % (T, frame) for frame in written))
    notes: list[str] = []
    sequence = RecordingSequence([("binance", path) for path in paths])
    for _ in range(2):
        assert [(place, each.sequence) for place, each in sequence.trades(notes.append)] == [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 3),
        ]
    assert sequence.with_repairs == {ETH}
    [note] = set(notes)
    assert note.startswith(f"2 frames of {paths[0]} cannot be read as binance, the first in line 2 (")


def test_more_waits_than_a_feed_would_hold_so_its_end_was_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    assert read(WAITS, *(came(number) for number in range(5, 10))) == [5, 6, 7, 8, 9]


def test_when_trades_wait_is_recorded_once_and_not_again_while_they_do() -> None:
    lines, recorder = recorded(with_connections=False)
    for state in ("connected", "down", "repairing", "silent", "connected", "down"):
        recorder.state(ETH, state)
    assert [line.frame for line in lines.lines] == [WAITS, PASSES, WAITS]


def gmo(second: int) -> bytes:
    at = f"2023-11-14T22:13:{second:02}.601Z"
    execution = {"channel": "trades", "price": "5", "side": "BUY", "size": "1", "symbol": "BTC", "timestamp": at}
    return json.dumps(execution).encode()


def test_without_ids_the_same_execution_over_two_connections_is_one_and_two_equal_ones_are_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines, recorder = recorded(with_connections=True)
    for second in (1, 2):
        for connection in (1, 1, 2, 1, 2, 2):  # three equal executions in one millisecond, over both
            recorder.frame(connection, T * 1000, gmo(second))
    recorder.frame(2, T * 1000, gmo(2))  # the fourth

    def ids() -> list[str]:
        reader = RecordingReader("gmo")
        return [trade.trade_id for line in lines.lines for trade in reader.read(line).trades]

    assert len(ids()) == 13
    assert len(set(ids())) == 7
    monkeypatch.setattr(module, "CONNECTIONS", 2)
    assert len(set(ids())) == 7
    monkeypatch.setattr(module, "CONNECTIONS", 1)
    assert len(set(ids())) < 7, "of older connections nothing is kept"


def test_only_where_there_are_no_ids_it_is_recorded_which_connection_each_frame_came_over() -> None:
    lines, recorder = recorded(with_connections=False)
    recorder.frame(1, T * 1000, b"{}")
    recorder.frame(2, T * 1000, b"{}")
    assert [line.frame for line in lines.lines] == [b"{}", b"{}"]


@pytest.mark.parametrize("venue", VENUES)
def test_a_reader_from_before_such_lines_says_that_it_cannot_read_them(venue: str) -> None:
    for line in (WAITS, fetched(1), own_line("connection", "a-1")):
        assert line.startswith(PREFIX)
        assert VENUES[venue].parser().parse(line, T).rejected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"ashi.repaired":[7]}', "not a trade"),
        (b'{"ashi.repaired":[', "not valid JSON"),
        (b'{"ashi.slept":"binance:ETHUSDT"}', "ashi.slept"),
        (fetched(1).replace(b'"1.5"', b'"-1"'), "price"),
        (fetched(1).replace(b"binance:", b"gmo:"), "gmo:ETHUSDT in a recording of binance"),
        (own_line("waits", "gmo:BTC"), "gmo:BTC in a recording of binance"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_dead_letter(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "recording.txt"
    path.write_bytes(b"%d %b\n" % (T * 1_000, line))
    publisher = replay(path)
    assert publisher.trades == []
    (rejected,) = publisher.rejected
    assert rejected.value == line
    assert said in rejected.reason


frames = st.one_of(
    st.integers(1, 40).map(came),
    st.integers(1, 40).map(came),
    st.integers(1, 40).map(came),
    st.integers(1, 40).map(lambda number: came(number).replace(b"ETHUSDT", b"BTCUSDT1")),
    st.integers(1, 40).map(lambda number: came(number).replace(b'"1.5"', b'"x"')),
    st.integers(1, 40).map(fetched),
    st.sampled_from([WAITS, PASSES, b'{"result":null,"id":1}', b"{", b" ", b'{"e":"aggTrade"}']),
)
lines_of = st.one_of(
    st.tuples(st.just(b"%d " % (T * 1000 + 5_000)), frames),
    st.tuples(st.sampled_from([b"%d " % (T * 1000), b"%d " % (T // 1000), b"x ", b""]), frames),
)


@given(st.lists(lines_of, max_size=40), st.integers(1, 2_000), st.sampled_from([b"\n", b"\r\n"]))
def test_what_is_read_together_is_what_is_read_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[bytes, bytes]], step: int, end: bytes
) -> None:
    path = tmp_path_factory.mktemp("lines") / "recording.txt"
    path.write_bytes(end.join(time + frame for time, frame in lines) + end)
    reader = RecordingReader("binance")
    readings = [reader.read(line) for line in read_recording(path)]
    expected = [trade for reading in readings for trade in reading.trades] + reader.finish()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "STEP_BYTES", step)
        publisher = replay(path)
    for symbol in {trade.symbol for trade in expected} | {trade.symbol for trade in publisher.trades}:
        assert [each for each in publisher.trades if each.symbol == symbol] == [
            each for each in expected if each.symbol == symbol
        ]
    assert publisher.rejected == [bad for reading in readings for bad in reading.parsed.rejected]


def test_a_recording_of_nothing_but_trades_is_published_in_columns(tmp_path: Path) -> None:
    path = tmp_path / "recording.txt"
    path.write_bytes(b"".join(b"%d %b\n" % ((T + 60_000_000) * 1000, came(number)) for number in range(50)))
    publisher = replay(path)
    assert [each.sequence for each in publisher.trades] == [*range(50)]
    assert publisher.encoded == 50
