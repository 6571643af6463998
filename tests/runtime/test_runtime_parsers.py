from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.runtime.settings.parsers import (
    MICROSECONDS,
    format_duration,
    integer_between,
    parse_bootstrap,
    parse_duration,
    parse_existing_file,
    parse_port,
    parse_switch,
    redact_url,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "duration_us"),
    [("500ms", 500_000), ("2s", 2_000_000), ("15m", 900_000_000), ("6h", 21_600_000_000), ("1d", 86_400_000_000)],
)
def test_a_duration_is_read_in_microseconds(text: str, duration_us: int) -> None:
    assert parse_duration(text) == duration_us


@given(st.integers(min_value=0, max_value=10**8), st.sampled_from(sorted(MICROSECONDS)))
def test_a_duration_that_was_written_reads_back_the_same(count: int, unit: str) -> None:
    duration_us = count * MICROSECONDS[unit]
    assert parse_duration(format_duration(duration_us)) == duration_us


@pytest.mark.parametrize("text", ["", "5", "s", "1.5s", "-1s", "1 s", "1S", "1us", "٣s", "1s1s"])
def test_a_duration_without_a_whole_number_and_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number and a unit, such as 500ms"):
        parse_duration(text)


def test_a_duration_is_written_in_the_largest_unit_that_is_whole() -> None:
    written = [format_duration(us) for us in (0, 250, 1_500_000, 120_000_000, 86_400_000_000)]
    assert written == ["0s", "250us", "1500ms", "2m", "1d"]


@pytest.mark.parametrize("text", ["0", "9", "-1", "1e1", "1_0", "٣", "3.0"])
def test_an_integer_out_of_bounds_or_not_plain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 8"):
        integer_between(1, 8)(text)


def test_the_bounds_of_an_integer_are_allowed() -> None:
    assert [integer_between(1, 8)(text) for text in ("1", "8")] == [1, 8]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("localhost:9092", "localhost:9092"),
        (" a:1 , b-c.example:65535,", "a:1,b-c.example:65535"),
        ("[::1]:9092", "[::1]:9092"),
    ],
)
def test_brokers_are_read_as_a_list_of_addresses(text: str, addresses: str) -> None:
    assert parse_bootstrap(text) == addresses


@pytest.mark.parametrize(
    "text", ["", ",", "localhost", "localhost:", ":9092", "a:0", "a:65536", "kafka://a:9092", "::1:9"]
)
def test_brokers_without_host_and_port_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_bootstrap(text)


def test_a_port_set_by_kubernetes_for_a_service_is_told_apart() -> None:
    with pytest.raises(ValueError, match="enableServiceLinks"):
        parse_port("tcp://10.0.0.1:9090")


def test_a_switch_is_on_or_off_in_either_case() -> None:
    assert (parse_switch("ON"), parse_switch("off")) == (True, False)
    with pytest.raises(ValueError, match="write on or off"):
        parse_switch("true")


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a file that exists"):
        parse_existing_file(str(tmp_path / "missing.pem"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ashi:hunter2@db:5432/ashi", "postgresql://ashi:***@db:5432/ashi"),
        ("postgresql://ashi:hun:t@er2@db/ashi", "postgresql://ashi:***@db/ashi"),
        ("postgresql://ashi@db/ashi", "postgresql://ashi@db/ashi"),
        ("sqlite:////var/lib/a:b@c.db", "sqlite:////var/lib/a:b@c.db"),
        ("'postgresql://a:p/s:@t@db/ashi' is none", "'postgresql://a:***@db/ashi' is none"),
        ("postgresql:/ashi:hunter2@db/ashi cannot be read", "postgresql:/ashi:***@db/ashi cannot be read"),
        ("at 12:30 a mail of me@here, http://127.0.0.1:80/x", "at 12:30 a mail of me@here, http://127.0.0.1:80/x"),
    ],
)
def test_the_password_of_a_url_is_not_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown
