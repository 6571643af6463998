"""A PostgreSQL store for tests, and its server."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

from sink_certification import a_candle, a_gap, opened, stored, stored_gaps

from ashi.contracts.topics import CANDLES, FEED_GAPS
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi_sinks.postgres.reader import PostgresReader
from ashi_sinks.postgres.sink import PostgresSink
from ashi_sinks.postgres.store import STORE
from ashi_sinks.worker import sink_group

numbers = itertools.count()


def migrate(url):
    assert STORE.migrate is not None
    return STORE.migrate(url)


class PostgresStage:
    """A schema of its own in one database."""

    refused = a_candle(9, trade_count=2**63)  # an integer of the message, but not of bigint
    refused_gap = a_gap(9, trades_recovered=2**63)

    def __init__(self, server):
        self.server = server
        self.schema = f"stage_{next(numbers)}"
        server.execute(f"CREATE SCHEMA {self.schema}")
        self.url = server.url(schema=self.schema)
        self.migrated = False

    def sink(self):
        if not self.migrated:
            migrate(self.url)
            self.migrated = True
        return PostgresSink(self.url)

    def reader(self):
        return PostgresReader(self.url)

    @contextmanager
    def unavailable(self):
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()

    @contextmanager
    def read_only(self):
        self._set_read_only("on")
        try:
            yield
        finally:
            self._set_read_only("off")

    def _set_read_only(self, value):
        # As the superuser's own session is read-only too, it must say otherwise.
        self.server.execute(
            "SET default_transaction_read_only = off",
            f"ALTER SYSTEM SET default_transaction_read_only = {value}",
            "SELECT pg_reload_conf()",
        )
        # Sessions take it up between two statements, so each is asked until it has.
        while self.server.execute("SHOW default_transaction_read_only")[0][0] != value:
            pass

    def empty(self, table):
        self.execute(f"TRUNCATE {table}" if next(numbers) % 2 else f"DELETE FROM {table}")

    def delete_first(self):
        self.execute("DELETE FROM candles WHERE open_time = (SELECT min(open_time) FROM candles)")

    def alter(self):
        self.execute("ALTER TABLE candles ALTER close TYPE numeric(20, 2)")

    def execute(self, *statements):
        # What a person would have to do first: a column that a view reads cannot be given another type.
        if any("ALTER close TYPE" in statement for statement in statements):
            self.server.execute("DROP VIEW latest_candles", schema=self.schema)
        return self.server.execute(*statements, schema=self.schema)


async def everything_is_committed(settings):
    for topic in (CANDLES, FEED_GAPS):
        committed = await committed_offsets(settings, sink_group("postgres"), topic)
        ends = await end_offsets(settings, topic)
        if not all(committed.get(partition, 0) == end for partition, end in ends.items()):
            return False
    return True


async def contents(stage):
    """The candles and the gaps that are stored."""
    async with opened(stage.reader()) as reader:
        return await stored(reader), await stored_gaps(reader)
