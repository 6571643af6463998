"""What is to be run: a strategy by its name, its symbols, timeframes and parameters, checked before anything starts."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import operator
from collections.abc import Mapping, Sequence
from decimal import Decimal
from traceback import extract_tb
from typing import Any, Final, get_type_hints

import msgspec

from ashi.contracts.errors import UsageError
from ashi.contracts.signal import MAX_STRATEGY_LENGTH
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import Timeframe
from ashi_strategies.handed import SeriesKey
from ashi_strategies.strategy import Strategy

EXAMPLES: Final[Mapping[str, str]] = {
    "ma_cross": "ashi_strategies.examples.ma_cross:MaCross",
    "trend_pullback": "ashi_strategies.examples.trend_pullback:TrendPullback",
    "venue_spread": "ashi_strategies.examples.venue_spread:VenueSpread",
}
"""The strategies that come with Ashi, by name."""

_GIVEN_APART: Final = ("symbols", "timeframes")


@dataclasses.dataclass(frozen=True)
class Plan:
    """One strategy that is to be run, and how often as one likes: `make` gives a new instance each time.

    Attributes:
        strategy: its class.
        symbols: those that an instance gets.
        timeframes: those that an instance gets, in the order in which they were given.
        parameters: its other arguments.
        identity: its name with all of that by which its signals differ from another's: `ma_cross(fast=9,slow=21)`.
        startup: how many candles of each series it decides by; the series are in the order (timeframe, symbol).

    """

    strategy: type[Strategy]
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    parameters: Mapping[str, Any]
    identity: str
    startup: Mapping[SeriesKey, int]

    def make(self) -> Strategy:
        """A new instance, which knows of nothing yet."""
        return self.strategy(symbols=self.symbols, timeframes=self.timeframes, **self.parameters)

    @property
    def history(self) -> dict[SeriesKey, int]:
        """How many candles of each series an engine must have had before the first one whose signal counts.

        One less than twice `startup_candles`, as the first is to be decided by an instance that has been handed so
        many, each with what was before it; of finer series as many as there are in the time that the coarsest takes.
        Where a market has paused, candles of it are from longer ago, so that more of another series are needed.
        """
        span = max(count * timeframe.length_us for (_, timeframe), count in self.startup.items())
        return {key: count - 1 + -(-span // key[1].length_us) for key, count in self.startup.items()}


def plans_of(
    strategy: type[Strategy],
    symbols: Sequence[str],
    timeframes: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> tuple[Plan, ...]:
    """What is to be run of a strategy: one plan for all symbols if it wants them together, else one for each.

    Args:
        strategy: its class; see `load_strategy`.
        symbols: `venue:MARKET`.
        timeframes: none for the class's own. A strategy of one timeframe is planned for each that is given.
        parameters: by name, as values or as texts, which are read by the parameter's annotation.

    Raises UsageError for whatever it cannot be run with, and ContractError for symbols and timeframes that are none.

    """
    if not symbols:
        raise UsageError(f"{strategy.name} needs at least one symbol, such as bitflyer:BTC_JPY")
    for symbol in symbols:
        split_symbol(symbol)
    if len(set(symbols)) < len(symbols):
        raise UsageError(f"{strategy.name}: a symbol is given twice among {', '.join(symbols)}")
    own = strategy.timeframes
    lengths = [str(Timeframe.parse(timeframe)) for timeframe in timeframes or own]
    if len(set(lengths)) < len(lengths):
        raise UsageError(f"{strategy.name}: a timeframe is given twice among {', '.join(lengths)}")
    if len(own) > 1 and len(lengths) != len(own):
        raise UsageError(
            f"{strategy.name} takes {len(own)} timeframes together, such as {', '.join(own)}; {len(lengths)} are given"
        )
    values = read_parameters(strategy, parameters or {})
    return tuple(
        _plan(strategy, of_symbols, of_timeframes, values)
        for of_symbols in ([tuple(symbols)] if strategy.symbols_together else [(symbol,) for symbol in symbols])
        for of_timeframes in ([tuple(lengths)] if len(own) > 1 else [(length,) for length in lengths])
    )


def read_parameters(strategy: type[Strategy], given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a strategy, texts read by their annotations. Raises UsageError that names what is wrong."""
    fields = parameter_fields(strategy)
    try:
        hints = get_type_hints(strategy)
    except NameError as error:
        raise UsageError(
            f"{strategy.name}: {error}: what its parameters are annotated with must be imported where the class is read"
        ) from error
    if unknown := sorted(given.keys() - fields.keys()):
        there = ", ".join(fields) or "none"
        raise UsageError(
            f"{strategy.name} has no parameter {', '.join(unknown)}: there are {there}{_to_annotate(strategy, unknown)}"
        )
    values = {}
    for name, field in fields.items():
        value = given.get(name, field.default)
        if value is dataclasses.MISSING:
            raise UsageError(f"{strategy.name} needs a value for {name}")
        try:  # a default too: `edge: float = 2` is the same as 2.0, which is given
            values[name] = msgspec.convert(value, hints[name], strict=not isinstance(value, str))
        except (msgspec.ValidationError, TypeError) as error:
            raise UsageError(f"{strategy.name}: {name} is {value!r}: {error}") from None
    return values


def load_strategy(name: str) -> type[Strategy]:
    """A strategy by the name of an example (`ma_cross`) or by its place (`package.module:Class`).

    Raises UsageError that says what is wrong: what an import raises is told with it.
    """
    module_name, colon, class_name = EXAMPLES.get(name, name).partition(":")
    if not colon:
        there = ", ".join(EXAMPLES)
        raise UsageError(f"there is no strategy {name!r}: there are {there}, and your own as package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a module of somebody else does when it is imported
        raise UsageError(f"strategy {name}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise UsageError(
            f"strategy {name}: {module_name} has no subclass of ashi_strategies.Strategy named {class_name!r}"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise UsageError(f"strategy {name}: {class_name} lacks {missing}")
    return found


def parameter_fields(strategy: type[Strategy]) -> dict[str, dataclasses.Field[Any]]:
    """The parameters of a strategy by name, with their defaults."""
    return {field.name: field for field in dataclasses.fields(strategy) if field.name not in _GIVEN_APART}


def _plan(
    strategy: type[Strategy], symbols: tuple[str, ...], timeframes: tuple[str, ...], values: Mapping[str, Any]
) -> Plan:
    try:
        startup_candles = strategy(symbols=symbols, timeframes=timeframes, **values).startup_candles
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{strategy.name} raised {type(error).__name__} when it was made{told_of(error)}") from error
    said = [
        *(symbols if strategy.symbols_together else ()),
        *(timeframes if len(timeframes) > 1 else ()),
        *(f"{name}={value}" for name, value in values.items()),
    ]
    identity = f"{strategy.name}({','.join(said)})" if said else strategy.name
    if len(identity) > MAX_STRATEGY_LENGTH:
        raise UsageError(
            f"{identity[:80]}…: a strategy's name with its parameters has at most {MAX_STRATEGY_LENGTH} characters"
        )
    lengths = sorted(map(Timeframe.parse, timeframes))
    counts = {length: _startup_of(strategy, startup_candles, length, timeframes) for length in lengths}
    startup = {(symbol, length): counts[length] for length in lengths for symbol in sorted(symbols)}
    return Plan(strategy, symbols, timeframes, dict(values), identity, startup)


def _startup_of(strategy: type[Strategy], said: Any, timeframe: Timeframe, timeframes: Sequence[str]) -> int:
    wanted: Any = said.get(str(timeframe)) if isinstance(said, Mapping) else said
    try:
        count = operator.index(wanted)  # NumPy has integers of its own
    except TypeError:
        count = 0
    if count < 1:
        raise UsageError(
            f"{strategy.name}: startup_candles is {said!r}: write how many candles it decides by, at least 1, "
            f"or one number for each of {', '.join(timeframes)}"
        )
    return count


def _to_annotate(strategy: type[Strategy], names: Sequence[str]) -> str:
    """What to do where one of these is an attribute of the class, and would be a parameter if it were annotated."""
    for name in names:
        value = getattr(strategy, name, None)
        if isinstance(value, int | float | str | Decimal) and not hasattr(Strategy, name):
            return f"; annotate it to make it one, `{name}: {type(value).__name__} = {value!r}`"
    return ""


def told_of(error: BaseException) -> str:
    """Its text if it has one, and where it was raised: `: division by zero (/srv/ideas.py:12)`."""
    frame = extract_tb(error.__traceback__)[-1]
    text = f": {error}" if str(error) else ""
    return f"{text} ({frame.filename}:{frame.lineno})"
