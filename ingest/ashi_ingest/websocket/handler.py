"""Between the connections of a venue and whoever wants their frames: what each of the two may ask of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_ingest.errors import Reason


class Connection(Protocol):
    """A connection, as far as a handler needs it."""

    @property
    def number(self) -> int:
        """It counts from 1 in the process."""

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets it is for, without those that the venue has refused."""

    def drop(self, reason: Reason) -> None:
        """Close it on purpose; the session opens another one afterwards.

        No frame of it is handed over any more, but those that are just being.
        """

    def resubscribe(self, market: str) -> None:
        """Unsubscribe from a market (where the venue has a message for that) and subscribe again, at the venue's pace.

        Nothing changes for its neighbours. `on_subscribed` is called again for it when the venue has accepted it,
        `on_deferred` or `on_refused` when it does not. Nothing happens while it is being subscribed to anyway.
        """

    def has_traded(self, market: str) -> None:
        """A trade of this market has come, so it is subscribed: the venue may only not have said so. Else nothing."""


class SessionHandler(Protocol):
    """Whoever wants the frames. Only `may_connect` may wait; what another method raises ends the session."""

    async def may_connect(self) -> None:
        """Called before each attempt to connect, which waits for it."""

    def on_cannot_connect(self, markets: Sequence[str], reason: Reason, detail: str) -> None:
        """No connection could be made for these; it is tried again. One that is to be replaced may still deliver."""

    def on_open(self, connection: Connection) -> None:
        """Called first for each connection."""

    def on_subscribed(self, connection: Connection, markets: Sequence[str]) -> None:
        """The venue has accepted these: their trades come over this connection from now on.

        Called again for a market after `resubscribe`, and when the venue refuses for now what seemed accepted, and then
        accepts it.
        """

    def on_deferred(self, connection: Connection, market: str, reason: str) -> None:
        """The venue does not accept this one for now: it refuses it for a reason that passes, or does not answer.

        It is asked for again after waits that grow, and the others go on. Called each time. A connection that is being
        replaced may still deliver it.
        """

    def on_refused(self, market: str, reason: str) -> None:
        """There is no such market: it is not subscribed to again. The others go on. Called once for a market."""

    def on_frames(self, connection: Connection, frames: Sequence[bytes], received_ns: int) -> int:
        """Frames came, the first at `received_ns`, each of the others a nanosecond later.

        Gives how many from the first on were about trades, readable or not. The one after these was not, and those
        behind it are handed over again when it has been seen to.
        """

    def on_silent(self, connection: Connection, silent: bool) -> None:
        """No frame for half of `Limits.silence_s`, or a frame again after that."""

    def on_closed(
        self, connection: Connection, reason: Reason, detail: str, last_frame_ns: int | None, *, replaced: bool
    ) -> None:
        """Called last for each connection.

        `replaced`: another one is open and delivers its markets, but for those that are deferred there.
        """
