"""The browser of the tests of the chart's pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from chromium import Chromium, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    """A Chromium for the tests of a module. Each page has a profile of its own."""
    with asyncio.Runner() as runner:
        opening = chromium()
        opened = runner.run(opening.__aenter__())
        yield Chromium(runner, opened)
        runner.run(opening.__aexit__(None, None, None))
