"""The libraries of the lake, imported here and nowhere else, with a word about how to get them."""

from __future__ import annotations

import os

from ashi.contracts.errors import UsageError

# The driver logs to stderr. Where no region is set it looks for the one of a machine of Amazon's, and on any other
# machine says three times, in long lines of its own language, that it is none.
os.environ.setdefault("RUST_LOG", "warn,aws_config=error")

try:
    import arro3.core as arrow
    import deltalake as delta
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
except ModuleNotFoundError as error:
    raise UsageError(
        f"the sink lake needs a library that is not installed ({error.name}): pip install 'ashi-candles[lake]'"
    ) from error

__all__ = ["CommitFailedError", "DeltaError", "TableNotFoundError", "arrow", "delta"]
