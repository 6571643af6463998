"""What other writers than Ashi's have done to a table: read from the entries that its log has got since.

Workers merge and append, upkeep compacts and vacuums; whatever takes rows away is somebody else's. The operations:
https://github.com/delta-io/delta/blob/master/PROTOCOL.md#commit-provenance-information
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ashi.runtime.logs import get_logger
from ashi_sinks.protocol import RowsLostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_UNNAMED: Final = "an operation without a name"
_CHANGES_ROWS: Final = frozenset({"DELETE", "UPDATE", _UNNAMED})

_ALL: Final = {None, "", "[]", '["true"]'}
"""The condition of a DELETE without one, by delta-rs and by Spark."""

_log = get_logger(__name__)


def judge(where: str, entries: Iterable[Mapping[str, Any]], *, went_back: bool, empty: bool) -> None:
    """Raise RowsLostError where an entry took rows away as a whole; of one that did by a condition write to the log.

    `went_back`: whether the table has fewer versions than before. `empty`: whether no row is left, whatever the
    condition was.
    """
    if went_back:
        raise RowsLostError(f"{where} is of an earlier version than before: it was restored by a copy, or made anew")
    for entry in entries:
        operation = entry.get("operation") or _UNNAMED  # the format leaves to each writer what it says
        what = f"{operation} in version {entry['version']}"
        if _takes_all(operation, entry.get("operationParameters") or {}) or (
            empty and operation in {"DELETE", _UNNAMED}
        ):
            raise RowsLostError(f"{where} was emptied, overwritten or taken back by another writer ({what})")
        if operation in _CHANGES_ROWS:
            _log.warning(
                "another writer changed the table; what it took away is stored again by a start with --from-beginning",
                table=where,
                reason=what,
            )


def _takes_all(operation: str, parameters: Mapping[str, Any]) -> bool:
    if operation == "WRITE":
        return str(parameters.get("mode")).lower() == "overwrite" and not parameters.get("predicate")
    if operation == "DELETE":
        return parameters.get("predicate") in _ALL
    return operation in {"RESTORE", "TRUNCATE"} or "REPLACE" in operation
