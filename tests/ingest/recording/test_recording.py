"""Reading recordings: plain and compressed, cut and damaged, and what is refused before anything is started."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import RecordingError, UsageError
from ashi_ingest.recording import format as recording
from ashi_ingest.recording.format import BadLine, Line, preflight, read_recording

TIME = 1_723_161_254_340_863_867
LINE = b"1723161254340863867 {}"


def write(directory: Path, content: bytes, name: str = "recording.txt") -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def read_until_error(path: Path) -> tuple[list[Line | BadLine], RecordingError]:
    lines: list[Line | BadLine] = []
    with pytest.raises(RecordingError) as raised:
        lines.extend(read_recording(path))  # keeps what was given before the error
    return lines, raised.value


def numbered(count: int) -> bytes:
    """Lines that compress badly, so that a cut or a flipped bit lies somewhere in the middle of them."""
    return b"".join(b"%d %s\n" % (TIME + number, os.urandom(40).hex().encode()) for number in range(count))


def test_a_line_is_a_number_a_time_in_microseconds_and_a_frame(tmp_path: Path) -> None:
    path = write(tmp_path, b'1723161254340863867 {"a": 1}\n1723161254340864999 b c\n')
    assert list(read_recording(path)) == [
        Line(1, 1_723_161_254_340_863, b'{"a": 1}'),
        Line(2, 1_723_161_254_340_864, b"b c"),
    ]


@pytest.mark.parametrize("name", ["recording.txt", "recording.gz"])
@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_compression_is_told_by_the_content_not_by_the_name(tmp_path: Path, name: str, compress: object) -> None:
    path = write(tmp_path, compress(LINE + b"\n"), name)  # type: ignore[operator]
    assert list(read_recording(path)) == [Line(1, TIME // 1000, b"{}")]


def test_blank_lines_are_ignored_and_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, b"\n" + LINE + b"\n\n  \r\n" + LINE + b"\n\n")
    assert [line.number for line in read_recording(path)] == [2, 5]


def test_windows_line_ends_are_no_part_of_the_frame(tmp_path: Path) -> None:
    path = write(tmp_path, LINE + b"\r\n" + LINE + b"\r\n")
    assert [line.frame for line in read_recording(path) if isinstance(line, Line)] == [b"{}", b"{}"]


def test_a_last_line_without_a_newline_is_handed_on(tmp_path: Path) -> None:
    path = write(tmp_path, LINE + b"\n" + LINE[:-1])
    assert list(read_recording(path)) == [Line(1, TIME // 1000, b"{}"), Line(2, TIME // 1000, b"{")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{}", "does not begin with a receive time"),
        (b'{"a": 1}', "does not begin with a receive time"),
        (b"1639350330.082294: {}", "does not begin with a receive time"),
        (b" 1723161254340863867 {}", "does not begin with a receive time"),
        (b"-1723161254340863867 {}", "does not begin with a receive time"),
        (b"1723161254340863867\t{}", "does not begin with a receive time"),
        (b"\xff\x00 {}", "does not begin with a receive time"),
        (b"9" * 5000 + b" {}", "does not begin with a receive time"),
        (b"1723161254 {}", "looks like seconds, not nanoseconds"),
        (b"1723161254340 {}", "looks like milliseconds, not nanoseconds"),
        (b"1723161254340863 {}", "looks like microseconds, not nanoseconds"),
        (b"0 {}", "is out of range, not nanoseconds"),
        (b"1723161254340863867", "no frame after the receive time"),
        (b"1723161254340863867  ", "no frame after the receive time"),
    ],
)
def test_a_line_of_another_form_is_given_whole_with_the_reason(tmp_path: Path, line: bytes, said: str) -> None:
    bad, good = read_recording(write(tmp_path, line + b"\n" + LINE + b"\n"))
    assert isinstance(bad, BadLine)
    assert bad.line == line
    assert said in bad.reason
    assert len(bad.reason) < 200
    assert good == Line(2, TIME // 1000, b"{}")


def test_an_endless_line_is_cut_and_the_next_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_LINE", 1_000)
    monkeypatch.setattr(recording, "_CHUNK", 300)
    longest = LINE[:20] + b"x" * 980
    path = write(tmp_path, longest + b"\n" + longest + b"y" * 5_000 + b"\n" + LINE + b"\n")
    fits, bad, good = read_recording(path)
    assert fits == Line(1, TIME // 1000, longest[20:])
    assert bad == BadLine(2, longest, "the line is longer than 1000 bytes")
    assert good == Line(3, TIME // 1000, b"{}")


def test_memory_for_an_endless_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_LINE", 1_000)
    pieces = [b"x" * 300 for _ in range(100)]
    ((line,),) = recording._split(iter(pieces))
    assert 1_000 < len(line) <= 1_300


@given(
    lines=st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b""))),
    cuts=st.lists(st.integers(1, 7), min_size=1),
)
def test_lines_are_the_same_however_the_bytes_are_cut_into_pieces(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(data[at : at + size])
        at += size
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line for lines in recording._split(iter(pieces)) for line in lines] == expected


@pytest.mark.parametrize("lost", [1, 8, 9, 1_000, 20_000])
def test_a_truncated_gz_gives_what_was_read(tmp_path: Path, lost: int) -> None:
    content = numbered(1_000)
    data = gzip.compress(content)[:-lost]
    readable = zlib.decompressobj(31).decompress(data)
    lines, error = read_until_error(write(tmp_path, data, "cut.gz"))
    assert sum(isinstance(line, Line) for line in lines) >= readable.count(b"\n")
    assert len(lines) == len(readable.splitlines()), "the line that was cut is handed on as well"
    assert "cut.gz" in str(error)
    assert f"after line {len(lines)} is cut off" in str(error)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_damaged_gz_gives_all_that_stands_before_the_damage(tmp_path: Path, part: float) -> None:
    content = numbered(5_000)
    data = bytearray(gzip.compress(content))
    place = int(len(data) * part)
    data[place : place + 400] = b"\xff" * 400
    stream, intact = zlib.decompressobj(31), bytearray()
    intact += stream.decompress(bytes(data[:place]))
    lines, error = read_until_error(write(tmp_path, bytes(data), "bad.gz"))
    complete = intact.count(b"\n")
    assert complete > 100
    assert [line.number for line in lines[:complete]] == list(range(1, complete + 1))
    assert all(isinstance(line, Line) for line in lines[:complete])
    assert "damaged" in str(error)


def test_a_wrong_checksum_is_told_after_everything_was_given(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(numbered(100)))
    data[-8] ^= 0xFF
    lines, error = read_until_error(write(tmp_path, bytes(data)))
    assert len(lines) == 100
    assert "after line 100 is damaged" in str(error)


def test_a_gz_that_was_appended_to_and_padded_is_read_whole(tmp_path: Path) -> None:
    member = gzip.compress(LINE + b"\n")
    path = write(tmp_path, member + member + b"\0" * 1_000 + member + b"\0" * 10)
    assert len(list(read_recording(path))) == 3


def test_what_follows_a_gz_and_is_none_is_an_error(tmp_path: Path) -> None:
    lines, error = read_until_error(write(tmp_path, gzip.compress(LINE + b"\n") + b"not gzip"))
    assert len(lines) == 1
    assert "damaged" in str(error)


def test_a_disk_that_fails_is_an_error_that_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path, on_read: object) -> object:
        yield LINE + b"\n" + LINE + b"\n"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(recording, "decompressed", failing)
    lines, error = read_until_error(tmp_path / "r.txt")
    assert len(lines) == 2
    assert "after line 2: Input/output error" in str(error)


@given(data=st.binary(max_size=300), compressed=st.booleans())
def test_any_bytes_are_lines_or_an_error_that_is_ours(
    data: bytes, compressed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp(), (b"\x1f\x8b" if compressed else b"") + data, "any")
    lines: list[Line | BadLine] = []
    try:
        lines.extend(read_recording(path))
    except RecordingError:
        assert path.read_bytes().startswith(b"\x1f\x8b"), "nothing can be wrong with plain text as a whole"
    assert all(isinstance(line, (Line, BadLine)) for line in lines)


def test_preflight_accepts_a_recording_whose_beginning_is_bad(tmp_path: Path) -> None:
    preflight(write(tmp_path, b"garbage\n" * 99 + LINE))
    preflight(write(tmp_path, gzip.compress(LINE * 3)))
    preflight(write(tmp_path, gzip.compress(LINE + b"\n" + numbered(100))[:-500], "cut.gz"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"garbage\n" * 100 + LINE, "is not a recording"),
        (b"1639350330.082294: {}\n", "is not a recording"),
        (b"1639350330 {}\n", "looks like seconds"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (gzip.compress(numbered(10), mtime=0)[:5], "cannot be read at all"),
        (b"\x1f\x8bnot gzip at all", "cannot be read at all"),
        (b"\x89PNG\r\n\x1a\n" + os.urandom(100), "is not a recording"),
    ],
)
def test_preflight_refuses_what_is_no_recording(tmp_path: Path, content: bytes, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UsageError, match=said) as raised:
        preflight(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("mark", "encoding"), [(b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16")])
def test_a_byte_order_mark_is_named_with_file_and_line_and_what_to_do(
    tmp_path: Path, mark: bytes, encoding: str, packed: bool
) -> None:
    content = mark + b'1700000000000000000 {"a":1}\n1700000000000000001 {"a":2}\n'
    path = write(tmp_path, gzip.compress(content) if packed else content)
    with pytest.raises(
        UsageError, match=f"recording.txt, line 1: it begins with a byte order mark.*as {encoding}.*save"
    ):
        preflight(path)


def test_preflight_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "missing", "there is no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "not a regular file"),
    ):
        with pytest.raises(UsageError, match=said):
            preflight(path)


def test_preflight_refuses_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, LINE)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may read everything, so no mode bits would do

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match="may not be read by this user"):
        preflight(path)
