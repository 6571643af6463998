"""What modules of tests of the ingest stage ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ashi_ingest.feed.repair import comparison, repairs
from ashi_ingest.feed.symbol.opening import CLOCK_TOLERANCE_US


@pytest.fixture(scope="module")
def no_settling() -> Iterator[None]:
    """Repairs do not wait for a REST interface that lags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repairs, "SETTLE_S", 0.0)
        yield


@pytest.fixture(scope="module")
def believed_at_once() -> Iterator[None]:
    """Repairs do not wait for a REST interface that lags, and believe what it shows; where not, a test says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repairs, "SETTLE_S", 0.0)
        patch.setattr(repairs, "FIRST_S", 0.0)
        patch.setattr(repairs, "REST_AGE_S", 0.0)
        patch.setattr(comparison, "lag_allowance_us", lambda worst_us: 3 * worst_us - CLOCK_TOLERANCE_US)
        yield
