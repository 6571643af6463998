"""One Delta table: opening and making it, changing it, and what its errors mean.

The format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md. A change is one entry of the table's log, so it
is there as a whole or not at all. Where another writer was faster, the table is read again and the change repeated.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote

import msgspec

from ashi.contracts.errors import StorageError
from ashi.runtime.descriptors import lack_of_descriptors
from ashi_sinks.lake.driver import CommitFailedError, DeltaError, TableNotFoundError, delta
from ashi_sinks.lake.foreign import judge
from ashi_sinks.protocol import RefusedError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ashi_sinks.lake.driver import arrow
    from ashi_sinks.lake.location import Lake
    from ashi_sinks.lake.tables import Columns, LakeTable

_T = TypeVar("_T")

LOG: Final = "_delta_log"
LONGEST_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""How long at most to wait, at random, after each commit that another writer was faster than."""
READ_ANEW_EVERY: Final = 100
"""After so many versions a table is read anew.

The driver keeps what it has read of the log in one piece for each entry that it has seen by itself, some 33 kB of our
tables, and each look goes through all of them: in an hour a worker would take 12 MB more, and each commit longer. Read
anew it is one piece, from the checkpoint that the driver makes with every hundredth version and the few entries since.
"""

_CONFIGURATION: Final = {
    # Entries older than that are removed with a checkpoint. It bounds the log, and how far one can travel back in time.
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_BACKTRACE: Final = re.compile(r"\n\s*0: <?\w.*", re.DOTALL)
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_STORE_ERROR: Final = re.compile(r"Generic (S3|LocalFileSystem) error|error sending request|timed out")
_FORBIDDEN: Final = re.compile(r"append-only|[Ff]eature|[Uu]nsupported")
_DENIED: Final = re.compile(r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|NoSuchBucket|Forbidden|credentials")
_NO_KEYS: Final = re.compile(
    r"no credentials found|loading credentials|://[^/ ]+/latest/(api|meta-data)/|Missing (Secret)?Access"
)

_SPACE: Final = "the disk is full: free some space, or raise the quota"
_RIGHTS: Final = "it is read-only: this user must have the right to write the folder and all in it"
_KEYS: Final = (
    "no keys for S3 are found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or see that this machine of Amazon's "
    "has a role"
)
_REMEDIES: Final = {28: _SPACE, 27: _SPACE, 122: _SPACE, 30: _RIGHTS, 13: _RIGHTS, 1: _RIGHTS}  # Linux's errno


class DeltaTable:
    """A table of a lake. Not for use by two threads at once; any number of processes may use the same table."""

    def __init__(self, lake: Lake, table: LakeTable) -> None:
        self.lake = lake
        self.table = table
        self.where = lake.table(table.name)
        self._folder = None if lake.folder is None else lake.folder / table.name
        self._opened: delta.DeltaTable | None = None
        self._identity: tuple[int, int] | None = None
        self._looked_at = 0
        self._read_from = 0  # the version in which it was read as a whole

    def exists(self) -> bool:
        """Whether there is a Delta table. Raises StorageError when that cannot be found out."""
        with self.errors(opening=True):
            try:
                # Not `is_deltatable`, which lets no other thread run while it waits for S3.
                delta.DeltaTable(self.where, storage_options=self.lake.options)
            except TableNotFoundError:
                return False
            return True

    def open(self) -> None:
        """Open the table. Raises StorageError when there is none, or one with other columns than ours."""
        self._identity = self._identity_now()
        with self.errors(opening=True):
            self._opened = delta.DeltaTable(self.where, storage_options=self.lake.options)
        try:
            self._check()
        except StorageError:
            self.close()
            raise
        self._looked_at = self._read_from = self.now.version()

    def open_or_make(self) -> None:
        """Open the table, or make it where there is nothing; one of an older version gets the columns that it lacks.

        Raises StorageError; RetryableError when S3 is away.
        """
        if not self.exists():
            self._make()
        self.open()
        if self.lacking:
            self.commit(self._add_columns)

    @property
    def lacking(self) -> frozenset[str]:
        """The columns that the table lacks because an older version made it."""
        return self.table.added - {column.name for column in self.now.schema().fields}

    def _add_columns(self, table: delta.DeltaTable) -> None:
        missing = self.lacking  # none when another worker was faster
        if missing:
            ours = delta.Schema.from_arrow(self.table.schema).fields
            table.alter.add_columns([column for column in ours if column.name in missing])

    def _make(self) -> None:
        folder = self._folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                strangers = [path.name for path in folder.iterdir() if path.name != LOG]
            except OSError as error:
                reason = lack_of_descriptors(error) or error.strerror
                raise StorageError(f"folder {folder} cannot be made or read: {reason}") from error
            if strangers:
                raise StorageError(
                    f"{folder} holds {min(strangers)} and is no Delta table: name another folder, or move that away"
                )
        configuration = _CONFIGURATION | {"delta.dataSkippingStatsColumns": ",".join(self.table.statistics)}
        with self.errors(opening=True), contextlib.suppress(CommitFailedError):  # another worker has just made it
            delta.DeltaTable.create(
                self.where,
                self.table.schema,
                mode="ignore",
                partition_by=list(self.table.partitions),
                name=self.table.name,
                description=self.table.description,
                configuration=configuration,
                storage_options=self.lake.options,
                commit_properties=delta.CommitProperties(max_commit_retries=0),  # else it makes it a second time
            )
        self.make_durable(range(1))

    def _check(self) -> None:
        found = self.now
        columns, partitions = found.schema(), found.metadata().partition_columns
        ours = delta.Schema.from_arrow(self.table.schema).fields
        needed = [column for column in ours if column.name not in self.lacking]
        if columns.fields != needed or tuple(partitions) != self.table.partitions:
            names = ", ".join(field.name for field in columns.fields)
            raise StorageError(
                f"{self.where} is a table with other columns than Ashi's (there are: {names}): "
                "undo the change, or name another place and fill it from the topic"
            )

    @property
    def now(self) -> delta.DeltaTable:
        """The table as it was when it was last looked at. Raises StorageError when it is not open."""
        if self._opened is None:
            raise StorageError(f"{self.where} is not open: call open() first")
        return self._opened

    def refresh(self) -> delta.DeltaTable:
        """The table as it is now.

        Raises RetryableError when it is away, and StorageError when another one stands in its place.
        """
        with self.errors():
            identity = self._identity_now()
            if self._folder is not None and identity is None:
                raise RetryableError(f"{self.where} is not there: mount it, or put it back")
            if identity != self._identity or self._is_in_pieces:
                again = delta.DeltaTable(self.where, storage_options=self.lake.options)
                if again.metadata().id != self.now.metadata().id:
                    raise StorageError(
                        f"{self.where} was replaced by another table while in use: start again, to fill that one"
                    )
                self._opened, self._identity, self._read_from = again, identity, again.version()
            else:
                self.now.update_incremental()
        return self.now

    @property
    def _is_in_pieces(self) -> bool:
        """Whether so much has been read of the log bit by bit that it is time to read the table anew.

        Counted from multiples of `READ_ANEW_EVERY`, as that is where there is a checkpoint.
        """
        return self.now.version() // READ_ANEW_EVERY != self._read_from // READ_ANEW_EVERY

    def look(self) -> delta.DeltaTable:
        """The table as it is now, if others only did to it what workers and upkeep do.

        Raises as `refresh`; RowsLostError when rows were taken away as a whole, StorageError when its columns are not
        ours any more.
        """
        table = self.refresh()
        since = self._looked_at
        if since != table.version():
            with self.errors():
                self._check()
                news, empty = self._entries(since, table), not table.file_uris()
            self._looked_at = table.version()
            judge(self.where, news, went_back=table.version() < since, empty=empty)
        return table

    def _entries(self, since: int, table: delta.DeltaTable) -> list[dict[str, Any]]:
        """What was done to the table after a version: of each entry of its log what it says of itself."""
        if self._folder is None:
            entries = table.history(max(table.version() - since, 1))
            return [entry for entry in reversed(entries) if entry["version"] > since]
        # The driver finds no history in a folder with a space or a # in its name.
        return [
            {**line["commitInfo"], "version": version}
            for version in range(since + 1, table.version() + 1)
            for line in _lines(self._folder / LOG / f"{version:020d}.json")
            if "commitInfo" in line
        ]

    def _identity_now(self) -> tuple[int, int] | None:
        if self._folder is None:
            return None
        try:
            status = (self._folder / LOG).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_dev, status.st_ino

    def rows(self, columns: Columns) -> arrow.Table:
        """The rows as Arrow. Raises RefusedError when a column cannot hold one of the values."""
        try:
            return self.table.rows(columns)
        except (OverflowError, UnicodeError) as error:
            raise RefusedError(f"{self.where} refuses the row: {error}") from error

    def merge(self, columns: Columns) -> int:
        """Add the rows, and let each replace the one of its name if that has a smaller guard; the number changed."""
        rows, guard = self.rows(columns), self.table.guard

        def change(table: delta.DeltaTable) -> int:
            merge = table.merge(
                rows, self.table.same_row(columns), source_alias="s", target_alias="t", streamed_exec=False
            )
            merge = merge.when_matched_update_all(f"s.{guard} > t.{guard}").when_not_matched_insert_all()
            counts = merge.execute()
            return int(counts["num_target_rows_inserted"] + counts["num_target_rows_updated"])

        return self.commit(change)

    def commit(self, change: Callable[[delta.DeltaTable], _T]) -> _T:
        """Do a change to the table as it is now, again and again while others are faster, and make it durable."""
        for longest_s in (*LONGEST_PAUSES_S, None):
            table = self.look()
            before = table.version()
            try:
                with self.errors():
                    result = change(table)
            except CommitFailedError as error:
                if _FORBIDDEN.search(str(error)):
                    raise StorageError(
                        f"{self.where} forbids what the sink does: undo that setting of the table, or name another "
                        f"place and fill it from the topic ({_words(error)})"
                    ) from error
                if longest_s is None:
                    raise RetryableError(
                        f"{self.where}: other writers were faster {len(LONGEST_PAUSES_S) + 1} times in a row: "
                        f"let fewer workers write to it ({_words(error)})"
                    ) from error
                time.sleep(random.uniform(0, longest_s))  # noqa: S311 - so that two do not meet again
                continue
            self.make_durable(range(before + 1, table.version() + 1))
            if table.version() == before + 1:
                self._looked_at = before + 1  # ours
            return result
        raise AssertionError

    def make_durable(self, versions: range = range(0)) -> None:
        """Let the disk have what entries of the log added, and then the entries: the driver leaves that to chance."""
        folder = self._folder
        if folder is None:
            return
        log = folder / LOG
        files = [log / "_last_checkpoint"]
        for version in versions:
            entry = log / f"{version:020d}.json"
            files += [*_added(entry, folder), entry, log / f"{version:020d}.checkpoint.parquet"]
        folders = {parent for file in files for parent in file.parents if parent.is_relative_to(folder.parent)}
        with self.errors():
            for path in [*files, *sorted(folders, reverse=True)]:
                with contextlib.suppress(FileNotFoundError):  # there is not always a checkpoint
                    _sync(path)

    def close(self) -> None:
        """Let go of the table."""
        self._opened = None

    @contextlib.contextmanager
    def errors(self, *, opening: bool = False) -> Iterator[None]:
        """Raise errors of the driver as those of `ashi_sinks.protocol`, but for CommitFailedError; see `explain`."""
        try:
            yield
        except (CommitFailedError, StorageError):
            raise
        except (DeltaError, OSError, ValueError) as error:
            raise self.explain(error, opening=opening) from error

    def explain(self, error: Exception, *, opening: bool = False) -> StorageError:
        """Sort an error of the driver into those of `ashi_sinks.protocol`.

        What a person can put right while the worker waits is retryable, except at the start: whoever has just started
        it is still there to read that the folder cannot be written.
        """
        words = _words(error)
        if isinstance(error, TableNotFoundError):
            return StorageError(f"{self.where} does not exist: name the lake that `ashi sink lake` writes")
        number = error.errno if isinstance(error, OSError) else None
        if match := _OS_ERROR.search(words):
            number = int(match[1])
        if number is not None or isinstance(error, OSError) or _STORE_ERROR.search(words):
            no_keys = self._folder is None and _NO_KEYS.search(words) is not None
            fatal = opening and (self._folder is not None or no_keys or _DENIED.search(words) is not None)
            remedy = lack_of_descriptors(error) or (
                _KEYS if no_keys else _REMEDIES.get(number or 0, "see that it can be reached and written")
            )
            kind = StorageError if fatal else RetryableError
            return kind(f"{self.where} cannot be {'opened' if opening else 'used'}: {remedy} ({words})")
        if "Invalid table version" in words:
            return StorageError(f"{self.where} was removed while in use: put it back, or start again with a new one")
        return StorageError(
            f"{self.where} cannot be used: if its last change was cut short by a power cut, remove the last file of "
            f"{LOG}; otherwise name another place and fill it from the topic ({words})"
        )


def _words(error: Exception) -> str:
    text = _BACKTRACE.sub("", _COLOUR.sub("", str(error)))
    return " ".join(text.replace("↳", "").split())[:600]


def _added(entry: Path, folder: Path) -> Iterator[Path]:
    """The files that an entry of the log adds to the table."""
    for line in _lines(entry):
        added = line.get("add")
        if added is not None:
            yield folder / unquote(added["path"])


def _lines(entry: Path) -> list[dict[str, Any]]:
    """The actions in an entry of the log; none of one that has expired."""
    try:
        return [msgspec.json.decode(line) for line in entry.read_bytes().splitlines()]
    except FileNotFoundError:
        return []


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
