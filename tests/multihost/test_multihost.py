"""A rehearsal of one fault on hosts of its own, in less than a minute and a half. `make rehearsal` is the whole one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from multihost.delays import Delay, longest, middle_and_worst_hundredth
from multihost.faults import FAULTS, ROLLS
from multihost.isolation import NOT_ALLOWED

TESTS = Path(__file__).parents[1]


def test_the_faults_have_names_of_their_own() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert set(names) >= ROLLS


def test_delays_of_candles_are_told_by_their_longest_their_middle_and_their_worst_hundredth() -> None:
    delays = [Delay("binance:A", float(number), number / 100) for number in range(101)]
    assert longest(delays) == 1.0
    assert middle_and_worst_hundredth(delays) == (0.5, pytest.approx(0.99, abs=0.01))
    assert (longest([]), middle_and_worst_hundredth(delays[5:6])) == (0.0, (0.05, 0.05))


@pytest.mark.kafka
@pytest.mark.processes
@pytest.mark.outside
@pytest.mark.timeout(400)
def test_a_broker_of_three_is_killed_and_every_row_is_the_oracles_and_every_worker_lives_on(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "multihost",
        "broker-killed",
        "--rate",
        "200",
        "--calm",
        "10",
        "--workdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False
    )
    if done.returncode == NOT_ALLOWED:
        pytest.skip(done.stdout.strip() or done.stderr.strip())
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "a broker that leads is killed (`broker-killed`)" in done.stdout
