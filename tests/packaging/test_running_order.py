"""The order in which several processes share the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from suite.running_order import LONGEST, SHARED, TESTS, in_order, module_of, scope_of


@dataclass(frozen=True)
class Item:
    """As much of a collected test as the order goes by."""

    nodeid: str
    marks: tuple[str, ...] = ()

    def iter_markers(self) -> list[Any]:
        return [getattr(pytest.mark, mark).mark for mark in self.marks]

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None


def item(module: str, number: int, *marks: str) -> Any:
    return Item(f"tests/{module}::test_{number}", marks)


def test_the_modules_that_are_named_exist_and_each_is_named_once() -> None:
    for names in (LONGEST, [name for modules in SHARED for name in modules]):
        assert len(set(names)) == len(names)
        assert [name for name in names if not (TESTS / name).is_file()] == []


def test_the_longest_begin_and_what_computes_lasts_as_long_as_what_waits() -> None:
    waiting = [item("runtime/test_some_kafka.py", number, "kafka") for number in range(30)]
    computing = [item("contracts/test_contracts.py", number) for number in range(300)]
    slow = [item(LONGEST[-1], number, "slow") for number in range(10)]
    long = [item(LONGEST[1], 0, "kafka"), item(LONGEST[0], 0, "kafka")]
    found = in_order([*computing, *waiting, *slow, *long])
    assert sorted(each.nodeid for each in found) == sorted(
        each.nodeid for each in (*computing, *waiting, *slow, *long)
    ), "each once"
    assert [each for each in found if each in long] == [long[1], long[0]]
    assert found[0] is long[1]
    assert found[1] is slow[0]
    assert found.index(slow[-1]) < found.index(computing[0])
    last = {module_of(each.nodeid) for each in found[-60:]}
    assert last == {"runtime/test_some_kafka.py", "contracts/test_contracts.py"}


def test_only_modules_that_share_something_stay_in_one_process() -> None:
    for modules in SHARED:
        assert {scope_of(f"tests/{module}::{test}") for module in modules for test in ("test_a[x::y]", "test_b")} == {
            modules[0]
        }
    assert scope_of("tests/contracts/test_contracts.py::test_a[1]") == "tests/contracts/test_contracts.py::test_a[1]"
