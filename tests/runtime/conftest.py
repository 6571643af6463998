from __future__ import annotations

import pytest

from ashi.runtime.settings import Settings


@pytest.fixture
def settings() -> Settings:
    return Settings.from_environment({"ASHI_LOG_FORMAT": "json"})
