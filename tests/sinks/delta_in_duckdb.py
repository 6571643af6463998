"""DuckDB with its extension `delta`, which comes in a package of its own: by itself DuckDB would download it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import duckdb_extension_delta


def connect():
    """A connection that can `delta_scan` a table, and thinks in UTC."""
    extensions = Path(duckdb_extension_delta.__file__).parent / "extensions" / f"v{duckdb.__version__}"
    duck = duckdb.connect()
    duck.execute(f"LOAD '{extensions / 'delta.duckdb_extension'}'")
    duck.execute("SET TimeZone = 'UTC'")
    return duck
