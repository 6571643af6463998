"""Signals as they go out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.signal import SIGNAL_SCHEMA, encode_signal
from ashi.contracts.topics import SIGNALS
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.kafka.producing.transactions import Message

if TYPE_CHECKING:
    from ashi.contracts.signal import Signal


def message_of(signal: Signal) -> Message:
    """The message that holds a signal, as the contract has it."""
    return Message(SIGNALS, signal.symbol.encode(), encode_signal(signal), message_headers(SIGNAL_SCHEMA))
