"""Where the native library is, if it was built for this machine."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from ashi.runtime.logs import get_logger
from ashi_aggregate.native.kernel import Kernel

PATH: Final = Path(__file__).with_name("kernel.lib")
"""By the same name on every system; `build_native.py` puts it there."""

_log = get_logger(__name__)


@cache
def load_kernel() -> Kernel | None:
    """The library, or None where there is none that runs here: all that it does Python does too, some times slower."""
    try:
        return Kernel(PATH)
    except OSError as error:
        _log.warning(
            "there is no native fold for this machine, so Python folds the trades, some times slower and with the same "
            "result; to install Ashi from source builds it",
            error=str(error),
        )
        return None
