"""Stages that the tests fork run and end as those that are started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from servers import forked_stages

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere stages are started"),
]

WHAT_IT_HAS = """
import json, os, resource, signal, sys
libraries = sorted({name.partition(".")[0] for name in sys.modules} & {"aiokafka", "ashi", "ashi_cli", "faust"})
print(json.dumps({
    "argv": sys.argv,
    "path": sys.path[0],
    "folder": os.getcwd(),
    "variable": os.environ.get("ASHI_PARTITIONS"),
    "name": __name__,
    "leads": os.getsid(0) == os.getpid(),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    "input": os.readlink("/proc/self/fd/0"),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "on_term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    "on_child": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    "ours": [name for name in libraries if name.startswith("ashi")],
}))
"""


def start(log: Path, *arguments: str, anew: bool = False, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    env = os.environ | {"ASHI_PARTITIONS": "3"} | ({"PYTHON_OF_NO_USE": "1"} if anew else {})
    with log.open("wb") as output:
        return forked_stages.start([sys.executable, *arguments], env=env, stdout=output, stderr=output, cwd=cwd)


def test_a_stage_has_what_one_has_that_is_started(tmp_path: Path) -> None:
    log, found = tmp_path / "log", []
    for anew in (False, True):
        stage = start(log, "-c", WHAT_IT_HAS, "an argument", anew=anew, cwd=tmp_path)
        assert isinstance(stage, forked_stages.ForkedStage) != anew
        assert stage.wait(30) == 0, log.read_text()
        found.append(json.loads(log.read_text()))
    forked, started = found
    started["path"] = str(tmp_path)  # as ""
    assert forked == started
    assert forked["argv"] == ["-c", "an argument"]
    assert forked["variable"] == "3"
    assert forked["ours"] == []


@pytest.mark.parametrize("anew", [False, True])
def test_a_stage_ends_as_one_that_is_started(tmp_path: Path, anew: bool) -> None:
    log = tmp_path / "log"
    for program, status, text in (
        (["-m", "ashi_cli.main", "--version"], 0, "ashi "),
        (["-m", "ashi_cli.main", "aggregate", "--nonsense"], 2, "unrecognized arguments"),
        (["-c", "import sys; sys.exit(75)"], 75, ""),
        (["-c", "import atexit; atexit.register(print, 'in the end'); raise ValueError('wrong')"], 1, "in the end"),
        (["-c", "raise ValueError('wrong')"], 1, "ValueError: wrong"),
        (["-c", "import os; os.abort()"], -signal.SIGABRT, ""),
    ):
        assert start(log, *program, anew=anew).wait(30) == status, log.read_text()
        assert text in log.read_text()


def test_a_stage_is_waited_for_signalled_and_killed(tmp_path: Path) -> None:
    stages = [start(tmp_path / str(number), "-c", "import time; time.sleep(60)") for number in range(3)]
    assert [stage.poll() for stage in stages] == [None] * 3
    with pytest.raises(subprocess.TimeoutExpired):
        stages[0].wait(0.1)
    stages[1].terminate()
    assert stages[1].wait(60) == -signal.SIGTERM
    stages[0].kill()
    assert (stages[0].wait(60), stages[0].poll(), stages[0].returncode) == (-signal.SIGKILL,) * 3
    assert stages[2].poll() is None
    stages[2].send_signal(signal.SIGINT)
    assert stages[2].wait(60) == -signal.SIGINT


def test_stages_die_with_who_started_them(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from servers import forked_stages; output = open(os.devnull, 'wb');"
        "argv = [sys.executable, '-c', 'import time; time.sleep(60)'];"
        "print(forked_stages.start(argv, env=os.environ, stdout=output, stderr=output).pid, flush=True); time.sleep(60)"
    )
    env = os.environ | {"PYTHONPATH": str(Path(forked_stages.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        stage = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    deadline = time.monotonic() + 60
    while stage.is_running() and stage.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)
