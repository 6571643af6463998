"""Values on the command lines of benchmarks, for argparse: what is wrong is said in a sentence."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def seconds(text: str) -> float:
    """Seconds, more than none."""
    number = _number(text)
    if number <= 0:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds, such as 0.05")
    return number


def exponent(text: str) -> float:
    """A number of 0 or more."""
    number = _number(text)
    if number < 0:
        raise ArgumentTypeError(f"{text!r} is not a number of 0 or more, such as 1 or 0.5")
    return number


def several(parse: Callable[[str], _T]) -> Callable[[str], list[_T]]:
    """A parser of one or more values with commas between them."""
    return lambda text: [parse(each) for each in text.split(",")]


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser of one of these words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ArgumentTypeError(f"{text!r} is not {' or '.join(choices)}")
        return text

    return parse


def _number(text: str) -> float:
    """Minus infinity for what is no finite number."""
    try:
        number = float(text)
    except ValueError:
        return -math.inf
    return number if math.isfinite(number) else -math.inf
