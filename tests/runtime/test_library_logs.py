"""What libraries repeat is held back, counted and told of; what Ashi says never is."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotEnoughReplicasError, NotLeaderForPartitionError

from ashi.runtime import library_logs
from ashi.runtime.library_logs import GRACE_S, QUIET_S, STEP_GRACE_S, LibraryFilter, StepFilter, limit_client_library
from ashi.runtime.logs import configure_logging, flush_logs, get_logger, get_weather_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ashi.runtime.settings import Settings


class Outage:
    """A filter under a clock of its own, with all that it let through and said."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.written: list[str] = []
        self.said: list[tuple[str, int, Mapping[str, int]]] = []
        self.filter = LibraryFilter(lambda *told: self.said.append(told), lambda: self.now_s)

    def log(self, template: str, *args: object, name: str = "aiokafka.client", level: int = logging.WARNING) -> bool:
        record = logging.LogRecord(name, level, __file__, 1, template, args, None)
        passed = self.filter.filter(record)
        if passed:
            more = getattr(record, "held_back", 0)
            self.written.append(record.getMessage() + (f" (+{more})" if more else ""))
        return passed

    def for_seconds(self, seconds: float, template: str, *args: object, **options: Any) -> None:
        for _ in range(int(seconds * 8)):
            self.log(template, *args, **options)
            self.now_s += 0.125

    def later(self, seconds: float) -> None:
        self.now_s += seconds
        self.filter.look()

    def close(self) -> None:
        self.filter.close()


@pytest.fixture
def outage() -> Any:
    outage = Outage()
    yield outage
    outage.close()  # its timer


def test_a_cause_is_written_once_a_minute_and_its_arguments_make_no_other(outage: Outage) -> None:
    for number in range(1_200):
        outage.log("Unable connect to node with id %s: %s", number % 3, OSError("refused"))
        outage.log("Failed fetch messages from %s", number % 3)
        outage.now_s += 0.125
    assert outage.written == [
        "Unable connect to node with id 0: refused",
        "Failed fetch messages from 0",
        "Unable connect to node with id 0: refused (+479)",
        "Failed fetch messages from 0 (+479)",
        "Unable connect to node with id 0: refused (+479)",
        "Failed fetch messages from 0 (+479)",
    ]


def test_when_all_is_quiet_one_line_tells_how_much_was_held_back(outage: Outage) -> None:
    outage.for_seconds(5, "one %s", 1)
    outage.for_seconds(2, "two %s", 2, name="faust.transport", level=logging.ERROR)
    outage.log("said once %s", 3)
    outage.later(QUIET_S - 1)
    assert outage.said == []
    outage.later(2)
    outage.later(100)
    causes = {"aiokafka.client: one %s": 39, "faust.transport: two %s": 15}
    assert outage.said == [(f"repeated warnings have ended, none for {QUIET_S:g} s", 54, causes)]


def test_an_outage_that_comes_again_soon_is_still_one_line_a_minute(outage: Outage) -> None:
    for _ in range(3):
        outage.for_seconds(1, "one %s", 1)
        outage.later(QUIET_S + 1)
    assert [count for _, count, _ in outage.said] == [7]  # no end without a beginning
    outage.for_seconds(1, "one %s", 1)  # the minute is over
    outage.later(QUIET_S + 1)
    assert outage.written == ["one 1", "one 1 (+16)"]
    assert [count for _, count, _ in outage.said] == [7, 23]


def test_the_end_of_one_cause_is_no_end_of_another_that_was_not_told_of_again(outage: Outage) -> None:
    outage.for_seconds(1, "one %s", 1)
    outage.later(QUIET_S + 1)
    for _ in range(8):
        outage.for_seconds(0.125, "one %s", 1)
        outage.for_seconds(0.125, "two %s", 2)
    outage.later(QUIET_S + 1)
    assert [causes for _, _, causes in outage.said] == [{"aiokafka.client: one %s": 7}, {"aiokafka.client: two %s": 7}]
    outage.close()
    assert outage.said[-1][1:] == (8, {"aiokafka.client: one %s": 8})


def test_what_ashi_says_is_never_held_back_nor_what_is_no_warning(outage: Outage) -> None:
    outage.for_seconds(1, "candles are %s", "wrong", name="ashi.runtime.service", level=logging.ERROR)
    outage.for_seconds(1, "candles are %s", "wrong", name="ashi_aggregate.pipeline")
    outage.for_seconds(1, "asyncpg says %s", "something", name="asyncpg")
    outage.for_seconds(1, "joined %s", "group", level=logging.INFO)
    assert len(outage.written) == 32


def test_different_warnings_are_different_causes(outage: Outage) -> None:
    assert outage.log("one %s", 1)
    assert outage.log("two %s", 1)
    assert outage.log("one %s", 1, name="aiokafka.conn")


def test_a_text_without_arguments_is_one_cause_whatever_its_numbers(outage: Outage) -> None:
    assert outage.log("Task <Task pending at 0x7f01> was destroyed\nlong", name="asyncio")
    assert not outage.log("Task <Task pending at 0xab99> was destroyed\nother", name="asyncio")


NOT_YET = [
    ("Group Coordinator Request failed: %s", (GroupCoordinatorNotAvailableError(),)),
    ("Attempt to fetch offsets for partition %s failed due to: %s", ("trades/0", NotLeaderForPartitionError)),
    ("OffsetCommit failed for group %s - %s", ("ashi", "NotCoordinatorForGroupError")),
    ("Marking the coordinator dead (node %s)for group %s.", (1, "ashi")),
]


@pytest.mark.parametrize(("template", "arguments"), NOT_YET)
def test_a_cluster_that_is_making_something_is_no_warning_until_it_takes_too_long(
    outage: Outage, template: str, arguments: tuple[object, ...]
) -> None:
    outage.for_seconds(GRACE_S - 1, template, *arguments)
    outage.later(QUIET_S + 1)
    assert (outage.written, outage.said) == ([], [])
    outage.for_seconds(GRACE_S + 1, template, *arguments)
    assert outage.written == [template % arguments]


def test_another_reason_for_the_same_message_is_told_at_once(outage: Outage) -> None:
    assert outage.log("Group Coordinator Request failed: %s", OSError("no route"))


def test_the_number_of_causes_that_are_remembered_is_bounded(outage: Outage) -> None:
    for number in range(3_000):
        outage.log(f"{'x' * (number % 100)} {'y' * (number // 100)} %s", number)
        outage.now_s += 1
    assert len(outage.filter._causes) < 1_000


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_process_that_ends_tells_of_what_it_has_held_back(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings, "sink")
    for number in range(10):
        logging.getLogger("aiokafka.client").error("Unable connect to node with id %s", number)
        get_logger("x").warning("ours")
    flush_logs()
    flush_logs()
    found = lines(capsys)
    assert [line["event"] for line in found].count("ours") == 10
    assert [line["event"] for line in found if "logger" in line] == ["Unable connect to node with id 0"]
    assert (found[-1]["event"], found[-1]["held_back"]) == ("warnings were repeated", 9)
    assert found[-1]["causes"] == {"aiokafka.client: Unable connect to node with id %s": 9}


def test_at_level_debug_nothing_is_held_back(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(dataclasses.replace(settings, log_level="debug"), "sink")
    for number in range(10):
        logging.getLogger("aiokafka.client").error("Unable connect to node with id %s", number)
    assert len(lines(capsys)) == 10


@pytest.mark.processes
def test_what_is_logged_while_the_process_ends_starts_no_thread_and_does_not_keep_it() -> None:
    program = (
        "import logging\n"
        "from ashi.runtime.logs import configure_logging, flush_logs\n"
        "from ashi.runtime.settings import Settings\n"
        "log = logging.getLogger('asyncio')\n"
        "class Late:\n"
        "    def __del__(self, log=log):\n"  # as a task that was destroyed while pending
        "        for _ in range(3): log.error('destroyed %s', self)\n"
        "configure_logging(Settings.from_environment({}), 'sink')\n"
        "late = Late()\n"
        "flush_logs()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.count("destroyed") == 1


def test_our_own_weather_is_held_back_like_a_librarys_and_all_else_of_ours_is_not(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings, "test")
    for number in range(5):
        get_weather_logger("ashi_sinks.consumer").warning("Kafka does not answer a commit", number=number)
        get_logger("ashi_sinks.worker").warning("message cannot be stored", number=number)
    flush_logs()
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    said = [(line["event"], line.get("number")) for line in found[:-1]]
    assert said == [
        ("Kafka does not answer a commit", 0),
        *[("message cannot be stored", number) for number in range(5)],
    ]
    assert found[-1]["event"] == "warnings were repeated"
    assert found[-1]["causes"] == {"weather.ashi_sinks.consumer: Kafka does not answer a commit": 4}


def test_a_program_that_reads_by_our_client_gets_a_warning_of_the_library_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    library = logging.getLogger("aiokafka.consumer.fetcher")
    limit_client_library()
    limit_client_library()
    try:
        for _ in range(100):
            library.error("Failed fetch messages from %s", 1)
        assert [record.name for record in caplog.records] == [library.name]
        library_logs._OF_CLIENTS.close()
        assert [record.name for record in caplog.records] == [library.name, "ashi.client"]
        # Other tests of this process may have added warnings of their own.
        assert "'aiokafka.consumer.fetcher: Failed fetch messages from %s': 99" in caplog.records[-1].getMessage()
    finally:
        for name, logger in logging.root.manager.loggerDict.items():
            if name.startswith("aiokafka") and isinstance(logger, logging.Logger):
                logger.removeFilter(library_logs._OF_CLIENTS)


def test_what_kafka_says_while_it_ends_the_step_before_is_told_only_when_it_lasts() -> None:
    now_s = 100.0
    of_steps = StepFilter(lambda: now_s)

    def passes(error: type[Exception]) -> bool:
        template = "Got error produce response on topic-partition %s, retrying. Error: %s"
        at = ("signals", 0)
        return of_steps.filter(
            logging.LogRecord("aiokafka.producer.sender", logging.WARNING, __file__, 1, template, (at, error), None)
        )

    assert passes(NotEnoughReplicasError), "of another writer, as none of ours is at work"
    of_steps.began_s = now_s
    assert not passes(NotEnoughReplicasError)
    assert passes(NotLeaderForPartitionError)
    now_s += STEP_GRACE_S
    assert passes(NotEnoughReplicasError)
