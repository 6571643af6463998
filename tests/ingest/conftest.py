"""What modules of tests of the ingest stage ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ashi_ingest.feed.repair import repairs


@pytest.fixture(scope="module")
def no_settling() -> Iterator[None]:
    """Repairs do not wait for a REST interface that lags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repairs, "SETTLE_S", 0.0)
        yield
