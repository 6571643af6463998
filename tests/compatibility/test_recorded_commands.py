"""Command lines that need no broker give the exit statuses and the words that they gave in the version before."""

from __future__ import annotations

from typing import Any

import pytest
from command_lines import ADDED, COMMANDS, HELP, SECRET, WAIT_FOR_KAFKA, Command, options_in, run_in_folders
from recorded import read_json

from ashi import __version__

pytestmark = pytest.mark.processes

RECORDED = {line["command"]: line for line in read_json("command_lines.json")}
END = [command for command in COMMANDS if str(command) not in WAIT_FOR_KAFKA]
OPTIONS = read_json("options.json")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each prints now."""
    commands = (*END, *HELP)
    results = run_in_folders(commands, tmp_path_factory.mktemp("commands").resolve())
    return {str(command): result for command, result in zip(commands, results, strict=True)}


def test_every_command_line_is_recorded_once() -> None:
    assert len(RECORDED) == len(COMMANDS)
    assert set(RECORDED) == {str(command) for command in COMMANDS}
    assert set(RECORDED) >= WAIT_FOR_KAFKA
    assert set(OPTIONS) == {str(command) for command in HELP}


@pytest.mark.parametrize("command", END, ids=str)
def test_a_command_line_gives_the_status_and_the_words_it_gave(command: Command, found: dict[str, Any]) -> None:
    now = {"command": str(command)} | found[str(command)]
    for added, before in ADDED:
        now["stderr"] = now["stderr"].replace(added, before)
    now["stdout"] = now["stdout"].replace(f"ashi {__version__}\n", "ashi 0.1.0\n")  # which was the one before
    assert now == RECORDED[str(command)]


@pytest.mark.parametrize("command", HELP, ids=str)
def test_a_command_takes_every_option_it_took(command: Command, found: dict[str, Any]) -> None:
    recorded = OPTIONS[str(command)]
    assert found[str(command)]["status"] == recorded["status"] == 0
    assert set(recorded["options"]) <= set(options_in(found[str(command)]["stdout"]))


def test_no_secret_is_in_what_was_recorded() -> None:
    """Names of commands aside, which hold what was typed."""
    assert not [line for line in RECORDED.values() if SECRET in line["stdout"] + line["stderr"]]
