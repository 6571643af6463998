"""What the long runs by hand share: a seed, a folder that stays when something is wrong, and words on the terminal."""

from __future__ import annotations

import argparse
import logging
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rig.fleet import PromiseError


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """With the options that each long run has."""
    made = argparse.ArgumentParser(prog=name, description=description)
    made.add_argument("--seed", type=int, help="repeat the market and the faults of a run (default: a new one)")
    made.add_argument("--workdir", type=Path, help="where its files go (default: a temporary directory)")
    return made


def perform(name: str, options: argparse.Namespace, play: Callable[[Path, int], list[str]]) -> int:
    """Play a run in a folder, from a seed; what it gives is wrong with it, in sentences. The exit status.

    The folder of a run that is right is removed, unless the caller named it.
    """
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    directory = options.workdir or Path(tempfile.mkdtemp(prefix=f"ashi-{name}-{seed}-"))
    directory.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=directory / "harness.log")
    say(f"seed {seed}; all logs are in {directory}")
    try:
        wrong = play(directory, seed)
    except PromiseError as error:
        wrong = [str(error)]
    if wrong:
        say(f"seed {seed} FAILED, all logs are in {directory}:\n" + "\n".join(wrong))
        return 1
    say(f"seed {seed}: passed")
    if options.workdir is None:
        shutil.rmtree(directory)
    return 0


def say(line: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
