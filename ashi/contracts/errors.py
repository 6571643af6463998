"""The errors of Ashi.

Every message says what was wrong, where, and what to do.

    AshiError                 exit status 1 of the `ashi` command
    ├── UsageError            2: the command or a setting is wrong; nothing was started
    ├── ContractError         a trade, candle, symbol or timeframe breaks the contract
    │   └── ClockError        a trade is stamped too far ahead of its receipt: one of two clocks is wrong
    ├── BrokerError           Kafka cannot be started, reached, or lacks a topic
    │   ├── BrokerUnreachableError   nobody answers there, or nobody that lets us in
    │   └── NotPermittedError        somebody does, and does not permit what is needed
    ├── RecordingError        a recording cannot be read
    ├── VenueError            an exchange cannot be reached, or has no such market
    ├── StrategyError         a strategy raises, or says what is no target
    ├── StorageError          a store refuses to be opened or written
    ├── ResourceError         this process may not have what it needs, such as file descriptors
    ├── InstanceTakenError    78: another worker has the instance id of this one, and its partitions
    └── StateError            continuing would lose or spoil candles
"""

from __future__ import annotations

from typing import ClassVar, Final

EXIT_PARTIAL: Final = 3
"""Exit status: a recording could be read only in part, and what was read is published (and, in the demo, stored)."""
EXIT_INTERRUPTED: Final = 130
"""Exit status: ended by SIGINT, as shells count it."""

_MAX_TEXT: Final = 450
"""Characters; no text that Ashi writes by itself is as long."""


def in_brief(text: str) -> str:
    """Give the text without its middle where it is longer than 450 characters."""
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2 - 25
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


class AshiError(Exception):
    """Base of all errors that Ashi raises on purpose."""

    exit_status: ClassVar[int] = 1

    @classmethod
    def logged_as(cls) -> str:
        """The name by which logs tell it, as field `error`: programs look for it."""
        return cls.__name__


class UsageError(AshiError):
    """The command line or a setting is wrong; nothing has been started."""

    exit_status: ClassVar[int] = 2


class ContractError(AshiError, ValueError):
    """A message or value breaks the public contract; the text names the field.

    A text that repeats much of what it was given is cut in the middle: it becomes a line of a log and a header of a
    dead letter, and who wrote the message chose its length.
    """

    def __init__(self, message: str) -> None:
        super().__init__(in_brief(message))


class ClockError(ContractError):
    """A trade is stamped so far ahead of its receipt that one of the two clocks is wrong.

    Attributes:
        ahead_us: how far, µs.

    """

    def __init__(self, message: str, ahead_us: int) -> None:
        super().__init__(message)
        self.ahead_us = ahead_us


class BrokerError(AshiError):
    """Kafka cannot be started, cannot be reached, or lacks what is needed."""


class BrokerUnreachableError(BrokerError):
    """Kafka cannot be reached now; that may pass by itself."""

    @classmethod
    def logged_as(cls) -> str:
        """As it was before it was told from the others."""
        return BrokerError.__name__


class NotPermittedError(BrokerError):
    """Kafka lets us in, and not do what is needed there."""

    @classmethod
    def logged_as(cls) -> str:
        """As it was before it was told from the others."""
        return BrokerError.__name__


class RecordingError(AshiError):
    """A recording cannot be read, in whole or from some place on."""


class VenueError(AshiError):
    """An exchange cannot be reached, refuses what is asked of it, or has no such market."""


class StrategyError(AshiError):
    """What somebody has written as a strategy raises, or gives something that is no target."""


class StorageError(AshiError):
    """A store cannot be opened or refuses what is written to it."""


class ResourceError(AshiError):
    """The process may not have what it needs of the machine, such as file descriptors."""


class InstanceTakenError(AshiError):
    """Another worker runs with the instance id of this one, and has its partitions."""

    exit_status: ClassVar[int] = 78
    """EX_CONFIG: starting me again only takes them back."""


class StateError(AshiError):
    """Going on would lose or spoil candles, so the worker stops instead."""
