"""Test modules are compiled once for all processes that share the tests, and not by each of them.

pytest compiles a module itself, as it rewrites the assertions, and keeps the result; a new clone has none. To compile
all takes 7 s of a core, and processes that begin at once with the same one find little that another has kept. So each
first compiles a share of its own: four of them collect all tests in 26 s of a core instead of 38.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from _pytest.assertion import rewrite


def compile_share(config: pytest.Config, number: int, count: int) -> None:
    """Compile what nobody has compiled before, of the modules with tests that are asked for: every `count`-th."""
    if sys.dont_write_bytecode:
        return
    state = config.stash[rewrite.assertstate_key]
    for module in sorted(set(_modules(config.args)))[number::count]:
        folder = rewrite.get_cache_dir(module)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{module.stem}{rewrite.PYC_TAIL}"
        if rewrite._read_pyc(module, kept) is None:
            source, code = rewrite._rewrite_test(module, config)
            rewrite._write_pyc(state, code, source, kept)


def _modules(arguments: Iterable[str]) -> Iterator[Path]:
    for argument in arguments:
        path = Path(argument.partition("::")[0]).resolve()
        yield from path.rglob("test_*.py") if path.is_dir() else [path]
