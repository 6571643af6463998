"""A command is declared once: a function whose parameters say what they are on the command line.

    def candles(
        *,
        symbol: Annotated[str, Positional("venue:MARKET, such as bitflyer:BTC_JPY")],
        limit: Annotated[int | None, Option("only the latest N", metavar="N", parse=values.positive)] = None,
    ) -> int: ...

A parameter's type says what may be written (see `Argument`), its default makes it optional, and the function gets the
values by name. It gives the exit status. A command with many options may have a dataclass of them instead, which its
function gets whole.

`ashi_cli.parser` makes argparse's parser of it, so that errors and help are worded by the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True, eq=False)
class OneOf:
    """Options of which only one may be given; one must be if it is `required`."""

    required: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """What the help says of a parameter, and how its text becomes a value.

    The parameter's type decides the rest: `bool` is a switch, a Sequence may be written several times, a Literal lists
    the choices, and the text is turned into an int, a float or a Path as it stands.

    Attributes:
        text: for the help.
        metavar: what the help calls the value; None for the parameter's name in capitals.
        parse: makes the value instead; raises argparse.ArgumentTypeError with a sentence about what is wrong.

    """

    text: str
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None


@dataclass(frozen=True, slots=True)
class Positional(Argument):
    """A value that is written without a name. A Sequence without a default needs one at least."""


@dataclass(frozen=True, slots=True)
class Option(Argument):
    """A value that is written after its name.

    Attributes:
        flag: the name, where it is not the parameter's.
        bare: the text that counts when nothing follows the name; None when something must.
        one_of: the options that exclude each other, this one among them.

    """

    flag: str | None = None
    bare: str | None = None
    one_of: OneOf | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or an action of one.

    Attributes:
        name: as it is written.
        text: what it does, in words that may follow the name.
        run: gets the values of the parameters by name and gives the exit status; None where an action must follow.
        options: a dataclass that `run` gets instead, made of its fields' values.
        given: the values of those parameters that are not on the command line.
        actions: what may follow the name.
        metavar: what the help calls them.
        about: the first sentence of the help; None for `text` as a sentence.
        epilog: the end of the help, such as examples.

    """

    name: str
    text: str
    run: Callable[..., int] | None = None
    options: Callable[..., Any] | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    actions: Sequence[Command] = ()
    metavar: str = "ACTION"
    about: str | None = None
    epilog: str | None = None

    def parameters(self) -> list[Parameter]:
        """What may be written after the name, in the order of the declaration."""
        declaring = self.options or self.run
        if declaring is None:
            return []
        defaults = _defaults(declaring)
        return [
            Parameter.of(name, hint, defaults)
            for name, hint in get_type_hints(declaring, include_extras=True).items()
            if get_origin(hint) is Annotated and name not in self.given
        ]

    def call(self, values: Mapping[str, Any]) -> int:
        """Run it with a value for each parameter; gives the exit status."""
        assert self.run is not None  # noqa: S101  (an action had to follow)
        if self.options is not None:
            return self.run(self.options(**values, **self.given))
        return self.run(**values, **self.given)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a command.

    Attributes:
        name: in Python.
        argument: what was declared about it.
        kind: the type of its value; of one value if there may be several.
        many: whether it may be written several times.
        required: whether it has no default.
        default: the value when it is not written.

    """

    name: str
    argument: Argument
    kind: Any
    many: bool
    required: bool
    default: Any

    @classmethod
    def of(cls, name: str, hint: Any, defaults: Mapping[str, Any]) -> Parameter:
        """Read what was declared: `hint` is an Annotated type with an Argument."""
        declared, argument = get_args(hint)[:2]
        kind = _without_none(declared)
        many = get_origin(kind) is Sequence
        return cls(
            name=name,
            argument=argument,
            kind=get_args(kind)[0] if many else kind,
            many=many,
            required=name not in defaults,
            default=defaults.get(name),
        )

    @property
    def choices(self) -> Sequence[str] | None:
        """What may be written, where it is one of a few words."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else None


def _defaults(declaring: Callable[..., Any]) -> Mapping[str, Any]:
    if isinstance(declaring, type):
        return {item.name: item.default for item in fields(declaring) if item.default is not MISSING}
    return getattr(declaring, "__kwdefaults__", None) or {}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in {Union, UnionType}:
        return hint
    (kind,) = (part for part in get_args(hint) if part is not NoneType)
    return kind
