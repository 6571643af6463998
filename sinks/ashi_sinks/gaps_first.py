"""A feed's status waits until the gaps are read that were told before it.

`complete_until` rests on the gaps that were told before it, in another topic. Partitions are read independently, so a
store that begins anew, or whose partition of gaps cannot be read for a while, would have the status long before the
gaps, and whoever asks it would be told of complete candles that lack trades. So what is read of the statuses is held
until the gaps of the same partition have been read to an end that they had after it came.

Where the group has given the two partitions to two workers nothing is held: this one cannot see how far the other is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ashi.runtime.kafka.consuming.reading_state import ReadingState
    from ashi.runtime.kafka.consuming.spans import Span

ANSWERS: Final = 2
"""So many answers to fetches of the gaps must have come since: the first may have been on its way before."""


class _Held:
    def __init__(self, span: Span, state: ReadingState | None) -> None:
        self.span = span
        self._answered_ms = None if state is None else state.answered_ms
        self._answers = 0

    def is_over(self, state: ReadingState | None) -> bool:
        """Whether the gaps have been read far enough by now."""
        if state is None:
            return False
        if state.answered_ms != self._answered_ms:
            self._answered_ms = state.answered_ms
            self._answers += 1
        return self._answers >= ANSWERS and state.position >= state.end


class GapsFirst:
    """Holds spans of one topic until another one has been read as far."""

    def __init__(self, before: Mapping[str, str]) -> None:
        """`before`: of a topic, the one that is to be read first."""
        self._before = before
        self._held: dict[Any, _Held] = {}

    def hold(
        self,
        spans: Mapping[Any, Span],
        partner: Callable[[Any, str], Any | None],
        state: Callable[[Any], ReadingState | None],
    ) -> tuple[dict[Any, Span], list[Any]]:
        """Of what has just been read, what may be handed out now; and the keys of what is held from now on.

        `partner(key, topic)`: the partition of the other topic, None where it is not read here. Of a key that is held
        nothing more should be read until it is released.
        """
        ready: dict[Any, Span] = {}
        held: list[Any] = []
        for key, read in spans.items():
            span = read
            topic = self._before.get(key.partition.topic)
            is_news = bool(span.records) or key in self._held
            other = partner(key, topic) if topic is not None and is_news else None
            if other is None:
                ready[key] = span
            else:
                if (earlier := self._held.get(key)) is not None:
                    span = earlier.span.joined(span)
                self._held[key] = _Held(span, state(other))
                held.append(key)
        return ready, held

    def release(
        self, partner: Callable[[Any, str], Any | None], state: Callable[[Any], ReadingState | None]
    ) -> dict[Any, Span]:
        """What was held and may be handed out now."""
        released: dict[Any, Span] = {}
        for key, held in list(self._held.items()):
            other = partner(key, self._before[key.partition.topic])
            if other is None or held.is_over(state(other)):
                released[key] = self._held.pop(key).span
        return released

    def forget(self, keys: Callable[[Any], bool] = lambda _: True) -> list[Any]:
        """What of all, or of these keys, is held is so no more: it is read again. The keys of what was."""
        held = [key for key in self._held if keys(key)]
        for key in held:
            del self._held[key]
        return held
