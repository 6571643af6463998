"""Standard streams that are closed, full or no longer read, with and without a buffer of Python's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = "/dev/full"
ASHI = f"{sys.executable} -m ashi_cli.main"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path(FULL).exists(), reason=f"this system has no {FULL}"),
    pytest.mark.parametrize("unbuffered", ["", "1"]),
]


def run(script: str, unbuffered: str) -> tuple[int, str, str]:
    """The status of a shell's last command that fails, what came out of it, and what it said."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script.format(ashi=ASHI)}"],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "script", ["{ashi} demo --help >&-", "{ashi} demo --help >&- <&- 2>&-", "{ashi} --version >&-"]
)
def test_a_closed_stdout_leaves_the_status_as_it_is(script: str, unbuffered: str) -> None:
    assert run(script, unbuffered) == (0, "", "")


def test_what_is_opened_later_does_not_become_standard_output(unbuffered: str, tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "from ashi_cli.standard_streams import prepare_streams\n"
        "prepare_streams()\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    subprocess.run(['sh', '-c', 'echo not for the file; echo nor this >&2'])\n"
        "    print('neither this', flush=True)\n"
    )
    (tmp_path / "program.py").write_text(program)
    written = tmp_path / "written"
    assert run(f"{sys.executable} {tmp_path}/program.py {written} <&- >&- 2>&-", unbuffered)[0] == 0
    assert written.read_text() == ""


@pytest.mark.parametrize("command", ["--version", "demo --help", "lake --help"])
def test_a_full_stdout_is_an_error_in_words(command: str, unbuffered: str) -> None:
    status, _, said = run(f"{{ashi}} {command} >{FULL}", unbuffered)
    assert (status, said.count("\n")) == (1, 1)
    assert "standard output cannot be written (No space left on device)" in said


def test_a_reader_who_has_had_enough_is_no_error(unbuffered: str) -> None:
    assert run("(sleep 1; {ashi} demo --help) | true", unbuffered) == (141, "", "")


@pytest.mark.parametrize("stderr", [FULL, "&-"])
def test_a_stderr_that_takes_nothing_leaves_the_status_as_it_is(stderr: str, unbuffered: str) -> None:
    assert run(f"{{ashi}} frobnicate 2>{stderr}", unbuffered)[0] == 2
    assert run(f"{{ashi}} broker status --workdir /nowhere 2>{stderr}", unbuffered)[0] == 1
