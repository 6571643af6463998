"""A lake for the tests of its sink: a folder that can be troubled, and what is written to it and read of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import contextmanager

import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType
from sink_certification import (
    a_candle,
    a_gap,
    opened,
    stored,
)

from ashi_sinks.lake.location import lake_of
from ashi_sinks.lake.reader import LakeReader
from ashi_sinks.lake.sink import LakeSink

DAY = 24 * 60


class LakeStage:
    refused = a_candle(9, trade_count=2**63)  # an integer of the message, but not of the table
    refused_gap = a_gap(9, trades_recovered=2**63)

    def __init__(self, folder):
        self.folder = folder
        self.url = f"lake:///{folder}"
        self.lake = lake_of(self.url)
        if os.geteuid() == 0:
            self.read_only = self._read_only

    def sink(self):
        return LakeSink(self.lake)

    def reader(self):
        return LakeReader(self.lake)

    @contextmanager
    def unavailable(self):
        away = self.folder.with_name(f"{self.folder.name} (not mounted)")
        self.folder.rename(away)
        yield
        assert not self.folder.exists(), "a place where nothing is mounted must stay empty"
        away.rename(self.folder)

    def empty(self, table):
        DeltaTable(self.lake.table(table)).delete()

    def alter(self):
        field = Field("mine", PrimitiveType("string"))
        DeltaTable(self.lake.table("candles")).alter.add_columns(field)

    @contextmanager
    def _read_only(self):
        mount = ["mount", "--bind", str(self.folder), str(self.folder)]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("this user cannot mount")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(self.folder)], check=True)
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def write(stage, *batches, gaps=()):
    async def scenario():
        async with opened(stage.sink()) as sink:
            for batch in batches:
                await sink.write(batch)
            if gaps:
                await sink.write_gaps(gaps)

    asyncio.run(scenario())


def read(stage):
    async def scenario():
        async with opened(stage.reader()) as reader:
            return await stored(reader)

    return asyncio.run(scenario())


def table(stage, name="candles"):
    return DeltaTable(str(stage.folder / name))
