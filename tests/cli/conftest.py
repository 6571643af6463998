"""Commands run in this process, as a user types them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ashi.cli.main import main
from ashi.runtime.settings import Settings


@pytest.fixture
def ashi(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command against the test's Kafka; its exit status and what it printed to stdout and to stderr."""
    monkeypatch.setenv("ASHI_KAFKA_BOOTSTRAP", kafka_settings.kafka_bootstrap)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return run
