from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from ashi.runtime.settings import Settings
from secured_kafka import SecuredKafka, secured_kafka

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def settings() -> Settings:
    return Settings.from_environment({"ASHI_LOG_FORMAT": "json"})


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A Kafka with TLS, logins and rights. `ashi` may do everything; nothing is granted to the users of stages."""
    users = ("ashi", "ingest", "replay", "aggregate", "sink", "strategy", "chart")
    with secured_kafka(tmp_path_factory.mktemp("secured"), users, masters=("ashi",)) as kafka:
        yield kafka


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**configuration)
