from __future__ import annotations

import dataclasses
import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ashi.runtime.logs import configure_logging, get_logger
from ashi.runtime.settings import Secret, Settings

if TYPE_CHECKING:
    import pytest


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_json_object_with_time_level_service_and_its_values(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings, "sink")
    get_logger("x").info("candles written", count=3, timeframe=settings.timeframes[0])
    [line] = lines(capsys)
    assert list(line)[:4] == ["time", "level", "service", "event"]
    when = datetime.fromisoformat(line.pop("time"))
    assert when.tzinfo == UTC
    assert line == {"level": "info", "service": "sink", "event": "candles written", "count": 3, "timeframe": "1m"}


def test_auto_is_json_when_stderr_is_no_terminal_and_console_is_readable(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(dataclasses.replace(settings, log_format="auto"), "sink")
    get_logger("x").info("one")
    assert lines(capsys)[0]["event"] == "one"
    configure_logging(dataclasses.replace(settings, log_format="console"), "sink")
    get_logger("x").info("two", count=3)
    text = capsys.readouterr().err
    assert "two" in text
    assert "count=3" in text
    assert not text.startswith("{")


def test_configuring_again_does_not_write_twice(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    log = get_logger("x")
    for service in ("first", "second"):
        configure_logging(settings, service)
    log.info("once")
    assert [line["service"] for line in lines(capsys)] == ["second"]


def test_libraries_log_the_same_way_but_only_from_warning_on(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings, "sink")
    for library in ("aiokafka.conn", "faust.app", "mode.worker"):
        logging.getLogger(library).info("chatter")
        logging.getLogger(library).warning("lost %s", "node 1")
    found = lines(capsys)
    assert [(line["level"], line["event"], line["service"]) for line in found] == [
        ("warning", "lost node 1", "sink")
    ] * 3
    assert [line["logger"] for line in found] == ["aiokafka.conn", "faust.app", "mode.worker"]


def test_at_level_debug_libraries_say_everything(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(dataclasses.replace(settings, log_level="debug"), "sink")
    logging.getLogger("aiokafka.conn").debug("chatter")
    get_logger("x").debug("detail")
    assert [line["event"] for line in lines(capsys)] == ["chatter", "detail"]


def test_events_below_the_level_are_not_written(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(dataclasses.replace(settings, log_level="error"), "sink")
    get_logger("x").warning("hidden")
    logging.getLogger("aiokafka").warning("hidden")
    get_logger("x").error("shown")
    assert [line["event"] for line in lines(capsys)] == ["shown"]


def test_a_traceback_stays_within_its_line(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings, "sink")
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("x").exception("failed")
        logging.getLogger("faust").exception("failed too")
    for line in lines(capsys):
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith("ValueError: broken")


def test_a_secret_that_is_logged_by_mistake_is_not_shown(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings, "sink")
    holds_secrets = Settings.from_environment({"ASHI_STORAGE": "postgresql://ashi:hunter3@db/ashi"})
    get_logger("x").info("login", password=Secret("hunter2"), raw=b"bytes", settings=holds_secrets)
    [line] = lines(capsys)
    assert "hunter" not in str(line)
    assert line["password"] == "Secret('***')"
    assert line["raw"] == "b'bytes'"


def test_nothing_reaches_stdout_before_logging_is_configured(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("x").warning("early")
    assert capsys.readouterr().out == ""
