"""A secret in a URL, of a store, a venue or a proxy, is in no error and in no log line, however wrong the rest is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import VenueError
from ashi.runtime.logs import configure_logging
from ashi.runtime.settings import Settings
from ashi_cli.main import main
from ashi_ingest.rest.client import RestClient, RestError
from ashi_ingest.venues.registry import VENUES
from ashi_ingest.websocket.session import _CannotConnectError, _Chain

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "canary-7f3"
STORES = [
    f"postgresql://u:{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}@[::bad/db",
    f"postgresql://u:{SECRET}@host:{SECRET}/db",
    f"postgresql+psycopg://u:{SECRET}@h/d",
    f"postgres://u:{SECRET}@127.0.0.1:1,127.0.0.1:2/db?sslmode=no-such",
    f"postgresql://u:x@127.0.0.1:1/db?sslpassword={SECRET}&sslcert=/x&sslkey=/y",
    f"postgresql://u:pa{SECRET}/ss@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}@127.0.0.1:1",
    f"postgresql://u@127.0.0.1:1/db?password={SECRET}",
    f"mysql://u:{SECRET}@h/d",
    f"sqlite:///candles.db?password={SECRET}",
    f"sqlite://u:{SECRET}@host/candles.db",
    f"lake+s3://AKIA:{SECRET}@bucket/prefix",
    f"lake://u:{SECRET}@host/x",
    f"u:{SECRET}@h",
    f"POSTGRESQL://u:{SECRET}@h/d",
]
COMMANDS = [
    "candles binance:BTCUSDT 1m",
    "sink postgres --migrate",
    "sink sqlite --migrate",
    "verify --trades",
    "lake compact",
    "sink postgres --delete-older 1d",
]


@pytest.mark.parametrize("given_by", ["environment", "argument"])
@pytest.mark.parametrize("url", STORES)
def test_no_command_says_the_password_of_a_store(
    url: str, given_by: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    if given_by == "environment":
        monkeypatch.setenv("ASHI_STORAGE", url)
    for command in COMMANDS:
        arguments = command.split() + (["--storage", url] if given_by == "argument" else [])
        try:
            status: object = main(arguments)
        except SystemExit as end:
            status = end.code
        said = "".join(capsys.readouterr())
        assert status != 0
        assert said
        assert SECRET not in said, command


async def failing(url: str) -> str:
    """What is told of a venue whose REST interface cannot be reached."""
    venue = VENUES["bitflyer"].live(has_key=False)
    async with RestClient(venue, url, None) as rest:
        with pytest.raises(RestError) as told:
            await rest.get(venue.markets_request())
    return str(told.value)


def test_no_error_of_rest_says_a_password_of_its_address() -> None:
    told = asyncio.run(failing(f"http://u:{SECRET}@127.0.0.1:1/v1?key={SECRET}"))
    assert told.startswith("bitflyer: GET http://127.0.0.1:1/v1/v1/getmarkets failed")
    assert SECRET not in told


@pytest.mark.parametrize("proxy", [f"http://u:{SECRET}@127.0.0.1:1", f"nonsense://u:{SECRET}@127.0.0.1:1"])
def test_no_error_says_the_password_of_a_proxy(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    assert SECRET not in asyncio.run(failing("http://venue.example/"))


def session_at(url: str) -> Any:
    """As much of a chain of connections as an attempt to connect needs."""

    async def pass_by() -> None:
        pass

    limiter = SimpleNamespace(turn=pass_by, pause=lambda _: None)
    chain: Any = object.__new__(_Chain)
    chain._venue = VENUES["bitflyer"].live(has_key=False)
    chain._handler = SimpleNamespace(may_connect=pass_by, on_cannot_connect=lambda *_: None)
    chain._common = SimpleNamespace(url=url, connecting=limiter, has_connected=False)
    chain._markets = {"BTC_JPY": None}
    return chain


def test_neither_the_log_nor_an_error_says_the_password_of_a_websocket(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings.from_environment({"ASHI_LOG_LEVEL": "debug", "ASHI_LOG_FORMAT": "json"}), "ingest")

    async def attempt(url: str) -> Exception:
        chain = session_at(url)
        with pytest.raises((_CannotConnectError, VenueError)) as told:
            await chain._attempt()
        if isinstance(told.value, _CannotConnectError):
            chain._on_wait(told.value, 1.0)
        return told.value

    asyncio.run(attempt(f"ws://u:{SECRET}@127.0.0.1:1/x?key={SECRET}"))
    fatal = asyncio.run(attempt(f"ftp://u:{SECRET}@127.0.0.1:1/x"))
    said = capsys.readouterr().err + str(fatal)
    assert "cannot connect, trying again" in said
    assert "ws://127.0.0.1:1/x" in said
    assert "no websocket connection can be made to ftp://127.0.0.1:1/x" in said
    assert SECRET not in said
