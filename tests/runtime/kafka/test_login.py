"""Passwords and tokens of logins: the newest is used, and the library's log holds none."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.protocol.admin import (
    SaslAuthenticateRequest_v1,
    SaslAuthenticateResponse_v1,
    SaslHandShakeRequest_v1,
)
from aiokafka.protocol.metadata import MetadataRequest_v5

from ashi.runtime.kafka.authentication.password import renew_login
from ashi.runtime.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


class FakeClient:
    """Notes the password that it holds when it connects."""

    def __init__(self) -> None:
        self._sasl_plain_password: str | None = None
        self.used: list[tuple[str, str | None]] = []

    async def bootstrap(self) -> None:
        self.used.append(("bootstrap", self._sasl_plain_password))

    async def _get_conn(self, node: int, *, group: int = 0) -> int:
        self.used.append((f"{node}-{group}", self._sasl_plain_password))
        return node


def test_each_connection_is_made_with_the_password_that_the_file_holds_then(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("first\n")
    settings = Settings.from_environment(
        {
            "ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "ASHI_KAFKA_SASL_MECHANISM": "PLAIN",
            "ASHI_KAFKA_USERNAME": "ashi",
            "ASHI_KAFKA_PASSWORD_FILE": str(path),
        }
    )

    async def main() -> list[tuple[str, str | None]]:
        client: Any = FakeClient()
        renew_login(client, settings)
        await client.bootstrap()
        path.write_text("second\n")
        assert await client._get_conn(3, group=1) == 3
        path.write_text("")
        await client._get_conn(3)
        return list(client.used)

    assert asyncio.run(main()) == [("bootstrap", "first"), ("3-1", "second"), ("3-0", "second")]


@pytest.mark.parametrize(
    "struct", [SaslAuthenticateRequest_v1(b"\0ashi\0hush"), SaslAuthenticateResponse_v1(0, None, b"hush", 60_000)]
)
def test_the_librarys_log_of_requests_shows_no_login(struct: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert "hush" in repr(struct), "or nothing needs to be hidden any more"
    with caplog.at_level(logging.DEBUG, logger="aiokafka"):
        log = logging.getLogger("aiokafka.conn")
        log.debug("Request to %s:%d %d: %s", "kafka", 9092, 3, struct)
        log.debug("Request to %s:%d %d: %s", "kafka", 9092, 4, SaslHandShakeRequest_v1("PLAIN"))
        log.debug("Request to %s:%d %d: %s", "kafka", 9092, 5, MetadataRequest_v5(["trades"], True))
        log.debug("without arguments")
    first, _, third, last = caplog.messages
    assert first == f"Request to kafka:9092 3: {type(struct).__name__}(***)"
    assert "trades" in third
    assert last == "without arguments"
