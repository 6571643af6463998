"""Which gaps are repaired by what has become known of a stretch of time, and what is left of the others. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ashi.contracts.feed import FeedGap


class Span(NamedTuple):
    """A time, µs, from inclusive, to exclusive."""

    from_us: int
    to_us: int


def without(spans: Iterable[Span], taken: Span) -> list[Span]:
    """What is left of some spans when another is taken out of them."""
    left = []
    for span in spans:
        pieces = (Span(span.from_us, min(span.to_us, taken.from_us)), Span(max(span.from_us, taken.to_us), span.to_us))
        left += [piece for piece in pieces if piece.from_us < piece.to_us]
    return left


def settle(
    gaps: Sequence[FeedGap], known: Iterable[Span], recovered: Mapping[int, int], *, now_us: int, reason: str
) -> list[FeedGap]:
    """The messages that tell what has become of a symbol's gaps (open and lost) when all of `known` is published.

    One that is known wholly is `repaired`. Of a lost one that is known in part, the part is `repaired`, and what is
    left is `lost` as before, each piece under the time at which it begins; pieces with new names come first, so that at
    no moment less is called lost than is. One that is open with an end belongs to a
    worker that asks for it: it is repaired wholly or left alone; so is one without an end. `recovered`: how many trades
    were published of the time of each gap, by its `from_time`. Of a gap that was read the message is but the next one,
    so that what a worker has said of it meanwhile, that it is longer, is later; pieces have the time `now_us`.
    """
    spans = [span for span in known if span.from_us < span.to_us]
    names = {gap.from_time for gap in gaps}
    pieces, messages = [], []
    for gap in gaps:
        if gap.to_time is None:
            continue
        whole = Span(gap.from_time, max(gap.to_time, gap.from_time + 1))
        left = [whole]
        for span in spans:
            left = without(left, span)
        if left == [whole] or (left and gap.state == "open"):
            continue
        count = recovered.get(gap.from_time, 0)
        updated_at = gap.updated_at + 1
        if not left:
            messages.append(_repaired(gap, gap.to_time, count, reason, updated_at))
            continue
        if left[0].from_us == gap.from_time:
            messages.append(replace(gap, to_time=left.pop(0).to_us, updated_at=updated_at))
        else:
            messages.append(_repaired(gap, left[0].from_us, count, reason, updated_at))
        for piece in left:
            begun = piece.from_us
            while begun in names:  # a gap is named by its beginning; rather too much is called lost than too little
                begun -= 1
            names.add(begun)
            new = replace(gap, from_time=begun, to_time=piece.to_us, trades_recovered=0)
            pieces.append(replace(new, updated_at=max(now_us, updated_at)))  # one of that name may have been repaired
    return [*pieces, *messages]


def _repaired(gap: FeedGap, to_us: int, recovered: int, reason: str, updated_at: int) -> FeedGap:
    return replace(
        gap,
        to_time=to_us,
        state="repaired",
        trades_recovered=recovered,
        reason=reason,
        updated_at=updated_at,
        final=False,
    )
