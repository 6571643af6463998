"""What a strategy answers a candle with: the position that it wants from its close on."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from ashi.contracts.signal import SignalTarget, check_target


class Target(msgspec.Struct, frozen=True):
    """The position that is wanted. The engine makes a signal of it, with the candle it came from.

    Attributes:
        target: `long`, `short` or `flat`.
        strength: how much of the position, 0 to 1; None: not said.
        reason: why, in words; None: not said.
        labels: more by name, such as the values it was decided by.

    """

    target: SignalTarget
    strength: Decimal | None = None
    reason: str | None = None
    labels: dict[str, str] = {}


def long(reason: str | None = None, *, strength: Decimal | float | str | None = None, **labels: object) -> Target:
    """To have bought, as in `long("crossed above", fast=fast[-1], slow=slow[-1])`.

    Args:
        reason: why, in words, at most 500 characters.
        strength: how much of the position, 0 to 1; a float by its shortest text, 0.1 as 0.1.
        labels: at most 16 values by name, as texts of at most 200 characters; floats likewise.

    Raises ContractError for what no signal may hold, as for the next two.

    """
    return _target("long", reason, strength, labels)


def short(reason: str | None = None, *, strength: Decimal | float | str | None = None, **labels: object) -> Target:
    """To have sold what one does not own. Arguments as of `long`."""
    return _target("short", reason, strength, labels)


def flat(reason: str | None = None, *, strength: Decimal | float | str | None = None, **labels: object) -> Target:
    """To have nothing. Arguments as of `long`."""
    return _target("flat", reason, strength, labels)


def _target(
    target: SignalTarget, reason: str | None, strength: Decimal | float | str | None, labels: dict[str, object]
) -> Target:
    exact = strength if strength is None or isinstance(strength, Decimal) else Decimal(str(strength))
    made = Target(target, exact, reason, {name: str(value) for name, value in labels.items()})
    check_target(made.strength, made.reason, made.labels)
    return made
