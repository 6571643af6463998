"""Whether a table is still the one that was written to: its number, its file, its columns, a few of its rows.

Asked in the transaction that writes, before it does: the question locks the table against being altered, truncated or
dropped until the transaction ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ashi.contracts.errors import StorageError
from ashi_sinks.postgres.schema import altered, changed_columns
from ashi_sinks.protocol import RowsLostError
from ashi_sinks.seen_rows import MOST, SeenRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_sinks.postgres.address import Address
    from ashi_sinks.postgres.tables import PostgresTable


class TableGuard:
    """Looks at one table."""

    def __init__(self, table: PostgresTable, address: Address) -> None:
        self._table = table
        self._address = address
        self._number: int | None = None
        self._file: int | None = None
        self._columns: str | None = None
        self._rows = SeenRows()
        self._look = _look_statement(table)

    async def begin(self, connection: Any, number: int) -> None:
        """Take the table as it is, known by its `number`, for the one that is written to."""
        self._number, self._file, self._rows = number, None, SeenRows()
        for order in ("ASC", "DESC"):
            key = ", ".join(f"{name} {order}" for name in self._table.key)
            fields = ", ".join(self._table.key)
            found = await connection.fetch(f"SELECT {fields} FROM {self._table.name} ORDER BY {key} LIMIT 1")  # noqa: S608
            self._rows.found(map(tuple, found))
        await self.look(connection)

    async def look(self, connection: Any) -> None:
        """Raise RowsLostError when the table was emptied or replaced, StorageError when its columns are not ours."""
        keys = self._rows.keys
        columns: list[list[Any]] = [list(values) for values in zip(*keys, strict=True)] or [[] for _ in self._table.key]
        [found] = await connection.fetch(self._look, *columns)
        if self._columns != found["columns"]:
            if changed := await changed_columns(connection, self._table):
                raise StorageError(altered(self._address, self._table, changed))
            self._columns = found["columns"]
        # TRUNCATE gives a table another file; so do VACUUM FULL and CLUSTER.
        rewritten = self._file not in {None, found["file"]}
        self._file = found["file"]
        if self._number != found["number"]:
            self._number, self._rows = found["number"], SeenRows()
            raise RowsLostError(
                f"{self._address} has other tables than before: {self._table.name} was dropped or renamed, and made "
                "anew, or the whole database was"
            )
        if not self._rows.look([keys[place - 1] for place in found["there"]], rewritten=rewritten):
            raise RowsLostError(
                f"{self._address}: table {self._table.name} was truncated or emptied"
                + (", or made compact before a row of this worker could tell" if rewritten else "")
            )

    def replace(self) -> None:
        """Take it that the table is another one, though it has the number of the one before: the next look says so."""
        self._number = None

    def wrote(self, rows: Sequence[tuple[Any, ...]], changed: int) -> None:
        """Take rows, the fields of the key first, of which a transaction that was committed has changed so many."""
        latest = (row[: len(self._table.key)] for row in rows[-MOST:])
        self._rows.wrote(latest, all_changed=changed == len(rows))


def _look_statement(table: PostgresTable) -> str:
    *series, last = table.key
    arrays = ", ".join(f"${place}::{table.kinds[name].split()[0]}[]" for place, name in enumerate(table.key, 1))
    # A later row of the series will do; LIMIT keeps the planner from reading the whole table instead.
    same = [f"{table.name}.{name} = seen.{name}" for name in series]
    same.append(f"{table.name}.{last} {'>=' if series else '='} seen.{last}")
    return (
        f"SELECT to_regclass('{table.name}')::oid AS number, "  # noqa: S608
        f"pg_relation_filenode(to_regclass('{table.name}')) AS file, ("
        "SELECT string_agg(concat(attname, ' ', atttypid, ' ', atttypmod, ' ', attnotnull, ' ', atthasdef), ',' "
        f"ORDER BY attnum) FROM pg_attribute WHERE attrelid = to_regclass('{table.name}') AND attnum > 0 "
        "AND NOT attisdropped) AS columns, "
        f"ARRAY(SELECT place FROM unnest({arrays}) WITH ORDINALITY AS seen ({', '.join(table.key)}, place) "
        f"CROSS JOIN LATERAL (SELECT FROM {table.name} WHERE {' AND '.join(same)} LIMIT 1) AS found) AS there"
    )
