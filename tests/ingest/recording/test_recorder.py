"""Recording beside a live feed: what is in the files, rotation, disks that are full, slow or gone, and a kill."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import RecordingError, UsageError
from ashi_ingest.recording import recorder as module
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.format import BadLine, Line, preflight, read_recording
from ashi_ingest.recording.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

NS = 1_723_161_254_340_863_867
START = "20240808T235414Z"
"""NS as it stands in names."""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


def frames(path: Path) -> list[bytes]:
    """The frames of a recording, whole or cut."""
    return [line.frame for line in received(path)]


def received(path: Path) -> list[Line]:
    found = []
    with suppress(RecordingError):
        for line in read_recording(path):
            assert isinstance(line, Line)
            found.append(line)
    return found


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written as fast as can be, instead of every second."""
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0.002)


def test_what_is_recorded_is_what_was_received(tmp_path: Path) -> None:
    (path, *_) = BUNDLED["bitflyer"]
    lines = [line for line in read_recording(path) if isinstance(line, Line)]
    recorder = Recorder(tmp_path / "new" / "directory", "bitflyer")
    for line in lines:
        recorder.write(line.received_at * 1_000, line.frame)
    recorder.close()
    (written,) = (tmp_path / "new" / "directory").iterdir()
    assert written.name == "bitflyer-20211212T230530Z-1.txt.gz"
    preflight(written)
    assert list(read_recording(written)) == lines
    assert (recorder.lost, recorder.altered, recorder.failing) == (0, 0, None)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.binary(max_size=40)), max_size=12))
def test_whatever_is_received_is_one_line(sent: list[tuple[int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory), "gmo")
        for later_ns, frame in sent:
            recorder.write(NS + later_ns, frame)
        recorder.close()
        found = [line for path in Path(directory).iterdir() for line in read_recording(path)]
    assert len(found) == len(sent)
    for (later_ns, frame), line in zip(sent, found, strict=True):
        expected = frame.replace(b"\n", b" ").rstrip(b"\r")
        if isinstance(line, Line):
            assert (line.received_at, line.frame) == ((NS + later_ns) // 1_000, expected)
        else:
            assert isinstance(line, BadLine)
            assert expected.strip() == b""
    assert recorder.altered == sum(b"\n" in frame for _, frame in sent)


def test_nothing_received_makes_no_file(tmp_path: Path) -> None:
    Recorder(tmp_path, "gmo").close()
    assert names(tmp_path) == []


@pytest.mark.usefixtures("fast")
def test_a_file_that_is_large_enough_is_completed_and_the_next_one_begun(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "gmo", rotate_bytes=20_000)
    given = [os.urandom(1_000).replace(b"\n", b" ").replace(b"\r", b" ") for _ in range(95)]
    for number, frame in enumerate(given):
        recorder.write(NS + number, frame)
        until(lambda: recorder._taken == recorder._put)
    assert names(tmp_path)[-1].endswith(".part"), "the last one is still open"
    recorder.close()
    paths = [tmp_path / f"gmo-{START}-{number}.txt.gz" for number in range(1, 6)]
    assert sorted(tmp_path.iterdir()) == paths
    assert all(20_000 <= path.stat().st_size < 23_000 for path in paths[:-1])
    assert [frame for path in paths for frame in frames(path)] == given


@pytest.mark.usefixtures("fast")
def test_a_file_is_completed_when_it_is_old_enough_although_nothing_comes(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "gmo", rotate_s=0.05)
    recorder.write(NS, b"{}")
    until(lambda: names(tmp_path) == [f"gmo-{START}-1.txt.gz"])
    recorder.write(NS + 2_000_000_000, b"[]")
    until(lambda: names(tmp_path) == [f"gmo-{START}-1.txt.gz", "gmo-20240808T235416Z-1.txt.gz"])
    recorder.close()
    assert [frames(path) for path in sorted(tmp_path.iterdir())] == [[b"{}"], [b"[]"]]


def test_no_file_is_written_over(tmp_path: Path) -> None:
    for number, suffix in ((1, ""), (2, ".part"), (4, "")):
        (tmp_path / f"gmo-{START}-{number}.txt.gz{suffix}").write_bytes(b"precious")
    recorders = [Recorder(tmp_path, "gmo") for _ in range(3)]
    for number, recorder in enumerate(recorders):
        recorder.write(NS, b"%d" % number)
    for recorder in recorders:
        recorder.close()
    found = {int(path.name.split("-")[2].split(".")[0]): path for path in tmp_path.iterdir()}
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    assert all(found[number].read_bytes() == b"precious" for number in (1, 2, 4))
    assert sorted(frame for number in (3, 5, 6) for frame in frames(found[number])) == [b"0", b"1", b"2"]


@pytest.mark.processes
def test_a_process_that_is_killed_loses_about_a_second_and_the_rest_can_be_read(tmp_path: Path) -> None:
    script = """if True:
        import sys, time
        from pathlib import Path
        from ashi_ingest.recording.recorder import Recorder
        recorder = Recorder(Path(sys.argv[1]), "binance")
        for number in range(10**9):
            recorder.write(time.time_ns(), b'{"number":%d}' % number)
            print(number, flush=True)
            time.sleep(0.001)
    """
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    last, began = 0, time.monotonic()
    for line in process.stdout:
        last = int(line)
        if time.monotonic() > began + 2.5 and list(tmp_path.iterdir()):
            break
    killed_us = time.time_ns() // 1_000
    process.send_signal(signal.SIGKILL)
    *more, _ = process.communicate()[0].split(b"\n")  # what else it said until then, and half a line
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(".txt.gz.part")
    with pytest.raises(RecordingError, match="cut off"):
        list(read_recording(path))
    found = received(path)
    assert [line.frame for line in found] == [b'{"number":%d}' % number for number in range(len(found))]
    assert len(found) <= int(more[-1] if more else last) + 3
    assert found[-1].received_at > killed_us - 2_000_000
    preflight(path)


def test_a_directory_that_is_something_else_is_told_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(UsageError, match="file is not a directory: name the one"):
        Recorder(path, "gmo")


@pytest.mark.usefixtures("fast")
def test_a_directory_that_cannot_be_used_stops_nothing_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent = tmp_path / "parent"
    parent.write_text("in the way")
    recorder = Recorder(parent / "recordings", "gmo", rotate_s=0.1)
    recorder.write(NS, b"lost")
    until(lambda: recorder.failing is not None)
    assert recorder.failing == "Not a directory"
    recorder.write(NS, b"lost too")
    until(lambda: recorder.lost == 2)
    parent.unlink()

    def works_again() -> bool:
        recorder.write(NS, b"kept")
        return recorder.failing is None

    until(works_again)
    recorder.close()
    (path,) = (parent / "recordings").iterdir()
    found = frames(path)
    assert found
    assert set(found) == {b"kept"}
    errors = [record.getMessage() for record in caplog.records if "recording has stopped" in record.getMessage()]
    assert errors
    assert str(parent / "recordings") in errors[0]
    assert "make the directory writable" in errors[0]


@pytest.mark.usefixtures("fast")
def test_a_disk_that_is_full_leaves_a_file_that_can_be_read_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = 1_000

    def write(file: Any, data: memoryview) -> int:
        """As a disk that takes what it has room for, and only then fails."""
        nonlocal free
        if free == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = min(len(data), free)
        free -= size
        return os.write(file.fileno(), data[:size])

    class Disk:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: memoryview) -> int:
            return write(self.file, data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> None:
            self.file.__enter__()

        def __exit__(self, *error: object) -> None:
            self.file.__exit__(*error)

    original = module._File.__init__

    def init(self: Any, part: Path, final: Path) -> None:
        original(self, part, final)
        self._file = Disk(self._file)

    monkeypatch.setattr(module._File, "__init__", init)
    recorder = Recorder(tmp_path, "gmo", rotate_s=60.0)
    given = [os.urandom(100).hex().encode() for _ in range(40)]
    for frame in given:
        recorder.write(NS, frame)
        until(lambda: recorder._taken == recorder._put)
    assert recorder.failing == "No space left on device"
    assert recorder.lost > 20
    (part,) = tmp_path.iterdir()
    assert part.name == f"gmo-{START}-1.txt.gz.part"
    assert part.stat().st_size == 1_000
    kept = [frame for frame in frames(part) if len(frame) == 200]  # the last line may be a piece
    assert kept == given[: len(kept)]
    assert len(kept) >= 40 - recorder.lost
    assert "free space there" in caplog.text
    assert recorder._retry_at - time.monotonic() > 30.0
    recorder._retry_at = 0.0  # the minute is over
    free = 1_000_000

    def works_again() -> bool:
        recorder.write(NS, b"{}")
        return recorder.failing is None

    until(works_again)
    recorder.close()
    assert names(tmp_path) == [f"gmo-{START}-1.txt.gz.part", f"gmo-{START}-2.txt.gz"]
    assert set(frames(tmp_path / f"gmo-{START}-2.txt.gz")) == {b"{}"}


@pytest.mark.usefixtures("fast")
def test_a_disk_that_hangs_costs_frames_but_neither_memory_nor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 10_000)
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.01)
    hangs = threading.Event()
    goes_on = threading.Event()
    original = module._File.write

    def write(self: Any, lines: bytes) -> None:
        hangs.set()
        goes_on.wait(20)
        original(self, lines)

    monkeypatch.setattr(module._File, "write", write)
    recorder = Recorder(tmp_path, "gmo")
    recorder.write(NS, b"first")
    assert hangs.wait(20)
    for _ in range(1_000):
        recorder.write(NS, b"x" * 79)
    kept = 1 + 10_000 // 100
    assert sum(map(len, recorder._lines)) < 10_200
    assert recorder.lost == 1_001 - kept
    recorder.close()
    assert "the recording is not complete" in caplog.text
    goes_on.set()
    recorder._thread.join(20)
    (path,) = tmp_path.iterdir()
    assert len(frames(path)) == kept
    assert "the disk is too slow" in caplog.text


def test_an_unexpected_error_does_not_end_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0.002)
    recorder = Recorder(tmp_path, "gmo", rotate_s=0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_create", lambda *_: 1 / 0)
        recorder.write(NS, b"lost")
        until(lambda: recorder.lost == 1)
        assert recorder.failing == "division by zero"
    recorder.write(NS, b"kept")
    recorder.close()
    (path,) = tmp_path.iterdir()
    assert frames(path) == [b"kept"]
