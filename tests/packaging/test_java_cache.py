"""Java takes the tests' options, whether the file that they name is there or not."""

import os
import re
import subprocess

import pytest

from ashi_cli.onemachine.jars import java_executable
from suite import java_cache


@pytest.mark.processes
@pytest.mark.parametrize("is_there", [False, True])
def test_java_starts_with_the_options_of_the_tests_and_says_nothing_of_the_file(is_there, tmp_path, monkeypatch):
    if java_cache._path() is None:
        pytest.skip(f"there is no Java {java_cache.FIRST_VERSION} here, and an earlier one gets no such option")
    path = tmp_path / "a folder" / "kafka.aot"
    monkeypatch.setattr(java_cache, "_path", lambda: path)
    path.parent.mkdir()
    if is_there:
        path.write_bytes(b"of another Java")
    options = java_cache.java_options()
    done = subprocess.run(
        [java_executable(), "-version"],
        env=os.environ | {"JDK_JAVA_OPTIONS": options},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    note, version, *build = done.stderr.splitlines()
    assert note == f"NOTE: Picked up JDK_JAVA_OPTIONS: {options}"
    assert re.match(r'\w+ version "', version)  # openjdk, java
    assert not [line for line in build if line.startswith("[") or "warning" in line.lower()]
    assert not done.stdout
