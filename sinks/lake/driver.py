"""The libraries of the lake, imported here and nowhere else, with a word about how to get them."""

from __future__ import annotations

from ashi.contracts.errors import UsageError

try:
    import arro3.core as arrow
    import deltalake as delta
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
except ModuleNotFoundError as error:
    raise UsageError(
        f"the sink lake needs a library that is not installed ({error.name}): pip install 'ashi[lake]'"
    ) from error

__all__ = ["CommitFailedError", "DeltaError", "TableNotFoundError", "arrow", "delta"]
