"""Recording the feeds of one process: frames as they come, and what besides them has to be known to replay them."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

from ashi_ingest.recording.own_lines import own_line, repaired_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.feed import FeedState
    from ashi.contracts.trade import Trade
    from ashi_ingest.recording.own_lines import Key
    from ashi_ingest.recording.recorder import Recorder

WAITING_STATES: Final = frozenset({"down", "repairing"})
"""In these a feed holds the trades that come, until what is missing before them has been published."""


class FeedRecorder:
    """Records frames, what was fetched, and when trades wait. As with `Recorder`, nothing of it waits or fails."""

    def __init__(self, recorder: Recorder, *, with_connections: bool) -> None:
        """`with_connections`: the venue gives no ids, so a reader has to know over which connection each frame came."""
        self._recorder = recorder
        self._with_connections = with_connections
        self._process = secrets.token_hex(4)  # several processes may record to one directory
        self._connection = 0
        self._waiting: dict[str, bool] = {}

    def frame(self, connection: int, received_ns: int, frame: bytes) -> None:
        """A frame came over this connection, at this time, ns."""
        if self._with_connections and connection != self._connection:
            self._connection = connection
            self._recorder.write(received_ns, own_line("connection", f"{self._process}-{connection}"))
        self._recorder.write(received_ns, frame)

    def fetched(self, trades: Sequence[Trade]) -> None:
        """Trades that came over no connection are published."""
        for received_ns, line in repaired_lines(trades):
            self._recorder.write(received_ns, line)

    def state(self, symbol: str, state: FeedState) -> None:
        """A feed is in this state."""
        waits = state in WAITING_STATES
        if waits != self._waiting.get(symbol, False):
            self._waiting[symbol] = waits
            key: Key = "waits" if waits else "passes"
            self._recorder.write(time.time_ns(), own_line(key, symbol))
