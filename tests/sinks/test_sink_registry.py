from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

import pytest
from sink_certification import SinkCertification, a_candle

from ashi.contracts.errors import UsageError
from ashi.runtime.settings import Settings
from ashi_sinks.registry import STORES, make_sink, open_reader, remove_store, store_exists, store_name
from ashi_sinks.sqlite.file import sqlite_path
from ashi_sinks.worker import run_sink


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
def test_every_store_is_found_by_its_schemes_and_is_certified(store):
    assert {store_name(f"{scheme}://host/path") for scheme in store.schemes} == {store.name}
    for path in Path(__file__).parent.glob("test_*_sink.py"):
        importlib.import_module(path.stem)
    assert store.name in {suite.store for suite in SinkCertification.__subclasses__()}


def test_four_slashes_are_an_absolute_path_and_three_a_relative_one():
    assert sqlite_path("sqlite:////var/lib/candles.db") == Path("/var/lib/candles.db")
    assert sqlite_path("sqlite:///data/candles.db") == Path.cwd() / "data" / "candles.db"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://candles.db", "lacks the three or four slashes"),
        ("sqlite:candles.db", "lacks the three or four slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:////tmp/", "names no file"),
        ("sqlite:///:memory:", "would vanish"),
        ("sqlite:////tmp/candles.db?mode=ro", "has options"),
    ],
)
def test_a_wrong_sqlite_url_says_what_is_wrong_and_what_to_write(url, message):
    with pytest.raises(UsageError, match=message) as caught:
        make_sink(url)
    assert "sqlite:////absolute/path.db" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mongodb://me:hunter2@host/db", "lake+gs://bucket/x", "mongodb+srv://me:hunter2@host/db", "candles.db", ""]
)
def test_an_unknown_store_lists_those_there_are_and_never_shows_a_password(url):
    with pytest.raises(UsageError, match="known stores are sqlite") as caught:
        store_name(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql+psycopg2://me:hunter2@host/db", ("'+psycopg2'", "postgresql://")),
        ("postgres+asyncpg://me:hunter2@host/db", ("'+asyncpg'", "postgres://")),
        ("sqlite+pysqlite:////tmp/x.db", ("'+pysqlite'", "sqlite://")),
    ],
)
def test_a_driver_in_the_scheme_as_with_sqlalchemy_is_told_to_be_left_out(url, words):
    with pytest.raises(UsageError, match="leave out") as caught:
        store_name(url)
    assert all(word in str(caught.value) for word in words)
    assert "hunter2" not in str(caught.value)


def test_a_store_is_there_once_it_is_made_and_gone_once_it_is_removed(tmp_path):
    url = f"sqlite:///{tmp_path}/candles.db"

    async def fill() -> int:
        sink = make_sink(url)
        await sink.open()
        await sink.write([a_candle()])
        await sink.close()
        async with open_reader(url) as reader:
            return await reader.count()

    assert not store_exists(url)
    assert asyncio.run(fill()) == 1
    assert store_exists(url)
    remove_store(url)
    assert not store_exists(url)


def test_the_sink_of_another_store_than_the_urls_is_refused():
    settings = Settings.from_environment({"ASHI_STORAGE": "sqlite:////tmp/candles.db"})
    with pytest.raises(UsageError, match="is a URL of sqlite, and this is the sink postgresql: name its store"):
        run_sink(settings, "postgresql")
