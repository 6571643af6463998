"""The short chaos run: less than two minutes in which everything fails at least once. `make chaos` is the long one."""

from __future__ import annotations

import secrets

import pytest

from ashi_sinks.registry import STORES
from chaos.harness import run
from chaos.schedule import ROUND


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_whatever_fails_the_stored_candles_are_the_oracles_and_every_record_is_accounted_for(tmp_path):
    seed = secrets.randbelow(10**6)  # printed, and in the error: `make chaos SEED=… MINUTES=0` repeats it
    result = run(tmp_path, seed)
    assert set(ROUND) <= set(result.faults)
    kinds = ["counted", "duplicates", "late", "dead", "flat", *(f"candles in {name}" for name in STORES)]
    assert min(result.numbers[kind] for kind in kinds) > 0
    assert sum(result.restarts.values()) >= ROUND.count("restart store")
    assert result.numbers["waits for a store"] > 0
    zombies = [end for end in result.ends if end == "aggregate: 75 after zombie"]
    assert zombies
