"""Nothing is brought along whose licence is not known and accepted, and the page about licences is true."""

from __future__ import annotations

import re
from importlib.metadata import Distribution
from typing import Any

import pytest
from licences import ACCEPTED, ROOT, installed, licence_of, locked, page, parts


def test_every_package_has_a_licence_that_is_accepted() -> None:
    found = installed()
    assert len(found) > 30, "what is looked at is what is installed here"
    assert {name: licence for name, licence in found.items() if not licence or not parts(licence) <= ACCEPTED} == {}


def test_the_page_of_licences_says_what_the_packages_say() -> None:
    """Some are installed for one version of Python or one system only, so those that are here are compared."""
    rows = dict(re.findall(r"^\| ([\w.-]+) \| (.+) \|$", (ROOT / "docs/licences.md").read_text("utf-8"), re.MULTILINE))
    rows.pop("package")
    here = installed()
    assert {name: rows.get(name) for name in here} == here, "run tests/packaging/licences.py"
    assert rows.keys() <= set(locked())
    head = page().partition("| package")[0]
    assert (ROOT / "docs/licences.md").read_text("utf-8").startswith(head)


class Described(Distribution):
    """A package that says this of itself."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT"),
        ("License: BSD", "BSD-3-Clause"),
        ("License: GPLv3", "GPLv3"),
        (
            "Classifier: License :: OSI Approved :: GNU Affero General Public License v3",
            "GNU Affero General Public License v3",
        ),
        ("Summary: nothing", ""),
    ],
)
def test_what_a_package_says_is_read_and_what_is_not_accepted_is_told(text: str, licence: str) -> None:
    found = licence_of(Described(f"Name: x\n{text}\n"))
    assert found == licence
    assert (bool(found) and parts(found) <= ACCEPTED) == ("GPL" not in text and "Affero" not in text and bool(licence))
