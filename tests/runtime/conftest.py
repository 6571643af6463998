from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from ashi.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def settings() -> Settings:
    return Settings.from_environment({"ASHI_LOG_FORMAT": "json"})


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**configuration)
