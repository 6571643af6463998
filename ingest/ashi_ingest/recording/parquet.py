"""Parquet files of trades, read as the rows of a CSV with a header, some at a time. Needs the extra `parquet`."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import RecordingError, UsageError
from ashi_ingest.recording.contents import Content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

MAGIC: Final = b"PAR1"
ROWS: Final = 200_000
"""Read at once."""


def is_parquet(path: Path) -> bool:
    """Whether it is such a file, by its first bytes. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def as_content(path: Path, named: Mapping[str, str], on_read: Callable[[int], None]) -> Content:
    """Its columns as CSV, without those of lists and structures. `named`: of fields, the columns that there must be.

    Numbers that are floats are written with as few digits as tell them apart, which are those that they were made of;
    times as microseconds.

    Raises:
        UsageError: the library is missing, the file is none, or it has no such column.

    """
    if importlib.util.find_spec("polars") is None:
        raise UsageError(
            f"{path} is a Parquet file, and to read it needs the extra 'parquet': pip install 'ashi-candles[parquet]'"
        )
    import polars

    try:  # a file that contradicts itself makes the library panic, which is no Exception
        scan = polars.scan_parquet(path, glob=False)
        schema, count = scan.collect_schema(), scan.select(polars.len()).collect().item()
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        raise UsageError(f"{path} is not a whole Parquet file ({error}): get a complete copy") from error
    if missing := [column for column in named.values() if column not in schema]:
        raise UsageError(f"{path} has no column {', '.join(missing)}: there are {', '.join(schema)}")
    wanted = [column for column, kind in schema.items() if not kind.is_nested()]
    return Content(str(path), path.name, lambda: _rows(path, wanted, schema, count, on_read))


def _rows(
    path: Path, wanted: list[str], schema: Mapping[str, Any], count: int, on_read: Callable[[int], None]
) -> Iterator[bytes]:
    import polars

    yield ",".join('"' + name.replace('"', '""') + '"' for name in wanted).encode() + b"\n"
    size = path.stat().st_size
    columns = [_as_text(polars, name, schema[name]) for name in wanted]
    for begin in range(0, count, ROWS):
        try:
            frame = polars.scan_parquet(path, glob=False).slice(begin, ROWS).select(columns).collect()
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
            raise RecordingError(
                f"{path}: reading failed after row {begin}: {error}; everything before was read"
            ) from error
        on_read(size * len(frame) // max(count, 1))
        yield frame.write_csv(include_header=False, null_value="").encode()


def _as_text(polars: Any, name: str, kind: Any) -> Any:
    column = polars.col(name)
    if isinstance(kind, polars.Datetime):
        return column.dt.epoch("us").alias(name)
    if kind == polars.Boolean:
        return polars.when(column).then(polars.lit("true")).when(~column).then(polars.lit("false")).alias(name)
    return column.cast(polars.String)
