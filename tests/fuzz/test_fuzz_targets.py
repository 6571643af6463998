"""What is fuzzed, by the inputs that are kept: seeds, and what fuzzing has once found. `make fuzz` looks for more."""

from __future__ import annotations

import json
import time

import pytest
from inputs import HERE, findings, seeds
from mutations import mutated
from targets import CUT, TARGETS

BOUND_S = 5.0
"""For one input of some kilobytes, on a machine that is busy."""


@pytest.mark.parametrize("target", TARGETS)
def test_every_parser_takes_its_seeds_and_what_was_found(target: str) -> None:
    run = TARGETS[target]
    began_s = time.monotonic()
    accepted = [run(seed) for seed in seeds(target)]
    assert any(accepted), "a target whose seeds are all refused fuzzes nothing but that"
    for finding in findings(target):
        run(finding)
    run(b"")
    assert time.monotonic() - began_s < BOUND_S * len(accepted)


def test_inputs_are_kept_for_targets_that_there_are() -> None:
    files = [*(HERE / "seeds").iterdir(), *(HERE / "findings").iterdir()]
    assert {path.stem for path in files} <= TARGETS.keys()
    assert {path.stem for path in files if path.parent.name == "seeds"} == TARGETS.keys()
    assert sum(path.stat().st_size for path in files) < 200_000


def test_changes_keep_json_what_it_is_and_come_to_every_value() -> None:
    seed = json.dumps({"symbol": "a:B", "price": "1", "deep": [{"x": 1}]}).encode()
    changed = [mutated(b"before" + CUT + seed, 4_096, number) for number in range(400)]
    parts = {part for each in changed if each is not None for part in each.split(CUT)}
    assert b"before" in parts
    assert sum(1 for each in parts if b'"price"' in each and b'"price": "1"' not in each) > 50
    assert mutated(b"no JSON", 4_096, 1) is None
    assert all(len(each) <= 4_096 for each in changed if each)
    assert mutated(seed, 4_096, 7) == mutated(seed, 4_096, 7)


@pytest.mark.parametrize("target", TARGETS)
def test_json_that_is_odd_in_one_place_is_taken_or_refused(target: str) -> None:
    """A few hundred of what `make fuzz` does by the million."""
    for number, seed in enumerate(seeds(target)[:3]):
        for change in range(60):
            if (changed := mutated(seed, 8_192, 1_000 * number + change)) is not None:
                TARGETS[target](changed)


@pytest.mark.parametrize("target", [name for name in TARGETS if name not in {"address", "settings", "klines-file"}])
def test_what_is_deep_or_long_ends_soon(target: str) -> None:
    run = TARGETS[target]
    began_s = time.monotonic()
    for bomb in (b"[" * 200_000, b'{"a":' * 100_000, b"1" * 1_000_000, b'"' + b"\\u0041" * 200_000 + b'"'):
        run(bomb)
        for seed in seeds(target)[:2]:
            run(seed[:-1] + b',"x":' + bomb)
    assert time.monotonic() - began_s < 8 * BOUND_S
