"""Tokens of a command: shared by all clients of a process, and no secret of the command line in an error."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from ashi.runtime.kafka.authentication import tokens
from ashi.runtime.kafka.authentication.tokens import TokenError, make_token_provider
from ashi.runtime.settings import Settings

pytestmark = pytest.mark.processes

LOGIN = {"ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "ASHI_KAFKA_SASL_MECHANISM": "OAUTHBEARER"}


def by_command(command: str) -> Settings:
    return Settings.from_environment(LOGIN | {"ASHI_KAFKA_TOKEN_COMMAND": command})


def test_clients_of_a_process_share_the_token_of_a_command(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    settings = by_command(f'{sys.executable} -c \'open("{runs}", "a").write("x"); print("token")\'')

    async def main() -> list[str]:
        return await asyncio.gather(*(make_token_provider(settings).token() for _ in range(12)))

    assert asyncio.run(main()) == ["token"] * 12
    assert runs.read_text() == "x"


def test_a_command_that_hangs_is_told_without_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "COMMAND_TIMEOUT_S", 0.2)
    hangs = make_token_provider(by_command(f"{sys.executable} -c 'import time; time.sleep(9)' hunter2"))
    with pytest.raises(TokenError, match=r"printed no token within 0.2 s") as hung:
        asyncio.run(hangs.token())
    assert "hunter2" not in str(hung.value)
