"""What can go wrong on command: the names, their arguments, and the venues at which they make sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ashi.contracts.errors import UsageError
from ashi_simulator.rules import contiguous

if TYPE_CHECKING:
    from collections.abc import Sequence

Arguments: TypeAlias = dict[str, Any]

ALL: Final = "all"
ONE: Final = "one"

HTML: Final = "html"
NULL: Final = "null"
OTHER_SHAPE: Final = "other"
CUT: Final = "cut"
MAINTENANCE: Final = "maintenance"
SHAPES: Final = (HTML, NULL, OTHER_SHAPE, CUT, MAINTENANCE)
"""What a garbled answer of REST may be."""

REFUSALS: Final = (403, 404, 418, 429, 451, 500, 502, 503, 504)
LARGEST: Final = 1e9


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by name.

    Attributes:
        meaning: what it does, in a sentence.
        arguments: name to default; a given one must be of the default's type.
        draw: arguments for a random script.
        needs_ids: equal content is no proof that two trades are one, so a venue without ids cannot send a trade twice
            or in another order without telling another story: not for `gmo`.
        needs_contiguous_ids: nobody could notice the loss otherwise: only for markets with contiguous ids.
        partial: only a part fails (one market, REST, a clock), while everything seems to be well.
        may_be_negative: the arguments that may.
        choices: of an argument, if it is one of a few.
        new_market: its market is one that is not simulated yet.

    """

    meaning: str
    arguments: Arguments
    draw: Callable[[Random], Arguments]
    needs_ids: bool = False
    needs_contiguous_ids: bool = False
    partial: bool = False
    may_be_negative: frozenset[str] = frozenset()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: {"connections": (ALL, ONE)})
    new_market: bool = False


def _whose(random: Random) -> Arguments:
    return {"connections": random.choice((ALL, ALL, ONE))}


def _while(random: Random) -> Arguments:
    return {"seconds": round(random.uniform(0.5, 3.0), 2)}


FAULTS: Final[Mapping[str, Fault]] = {
    "drop": Fault("TCP reset of all connections, or of one", {"connections": ALL}, _whose),
    "close": Fault(
        "close frame with a code and a reason",
        {"connections": ALL, "code": 1001, "reason": "going away"},
        lambda random: _whose(random) | {"code": random.choice((1000, 1001, 1011, 1012, 1013))},
    ),
    "silence": Fault(
        "open connections stay and nothing is sent over them any more, while trades go on; broken after `seconds`",
        {"connections": ALL, "seconds": 30.0},
        lambda random: _whose(random) | {"seconds": round(random.uniform(0.3, 2.0), 2)},
    ),
    "half_frame": Fault(
        "half of a message, then TCP reset; `fragmented`: a first fragment of it",
        {"connections": ALL, "fragmented": False},
        lambda random: _whose(random) | {"fragmented": random.random() < 0.5},
    ),
    "garbage": Fault("messages that are no JSON, or JSON of a wrong shape; all trades come as well", {}, lambda _: {}),
    "error_frame": Fault("an error message nobody asked for; the default is the venue's", {"text": ""}, lambda _: {}),
    "duplicate": Fault(
        "the last messages once more",
        {"frames": 10},
        lambda random: {"frames": random.randint(1, 50)},
        needs_ids=True,
    ),
    "reorder": Fault(
        "the next messages of a market in reverse (any market when none is named)",
        {"market": "", "frames": 4},
        lambda random: {"frames": random.randint(2, 8)},
        needs_ids=True,
    ),
    "lifetime": Fault(
        "the venue's time limit is reached: the notice, where it has one, and after `notice_s` the close",
        {"connections": ALL, "notice_s": 1.0},
        lambda random: _whose(random) | {"notice_s": round(random.uniform(0.1, 1.0), 2)},
    ),
    "rest_429": Fault(
        "the next REST requests are answered 429 with Retry-After",
        {"requests": 2, "retry_after_s": 1},
        lambda random: {"requests": random.randint(1, 3)},
    ),
    "rest_timeout": Fault(
        "the next REST requests get no answer; their connections are broken after `seconds`",
        {"requests": 1, "seconds": 30.0},
        lambda random: {"requests": random.randint(1, 3), "seconds": round(random.uniform(0.2, 1.5), 2)},
    ),
    "rest_500": Fault(
        "the next REST requests fail with a status of 500 or above",
        {"requests": 2, "status": 500},
        lambda random: {"requests": random.randint(1, 3), "status": random.choice((500, 502, 503))},
    ),
    "rest_lag": Fault(
        "for `seconds`, REST does not know of the last `milliseconds` yet",
        {"milliseconds": 1000, "seconds": 5.0},
        lambda random: {"milliseconds": random.randint(50, 800), "seconds": round(random.uniform(0.5, 3.0), 2)},
    ),
    "refuse": Fault(
        "new TCP connections are refused for `seconds`, REST's too; `drop`: open ones are broken before",
        {"seconds": 1.0, "drop": True},
        lambda random: {"seconds": round(random.uniform(0.2, 1.0), 2)},
    ),
    "slow": Fault(
        "for `seconds` all messages come `delay_s` late, in order",
        {"seconds": 2.0, "delay_s": 0.3},
        lambda random: {"delay_s": round(random.uniform(0.05, 0.5), 2), "seconds": round(random.uniform(0.5, 2.0), 2)},
    ),
    "skip": Fault(
        "the next messages of a market are never sent: a hole in its ids, seen with the message after them",
        {"market": "", "frames": 3},
        lambda random: {"frames": random.randint(1, 5)},
        needs_contiguous_ids=True,
    ),
    "lose": Fault(
        "as `skip`, and in a market of any kind: where ids are not contiguous nothing shows the loss",
        {"market": "", "frames": 1},
        lambda _: {},
        partial=True,
    ),
    "mute": Fault(
        "a market's subscriptions stay and nothing comes of them, for `seconds` (0: for ever) or until the market has "
        "been subscribed to anew so many times; its neighbours trade on",
        {"market": "", "seconds": 0.0, "resubscriptions": 1},
        lambda random: {"seconds": random.choice((0.0, round(random.uniform(0.5, 5.0), 2)))},
        partial=True,
    ),
    "rest_refuse": Fault(
        "for `seconds`, REST answers every request with this status; `retry_after_s`: with Retry-After; `banned`: with "
        "the time until which the address is banned, as Binance writes it",
        {"status": 403, "seconds": 5.0, "retry_after_s": 0, "banned": False},
        lambda random: _while(random) | {"status": random.choice(REFUSALS), "retry_after_s": random.choice((0, 0, 2))},
        partial=True,
        choices={"status": REFUSALS},
    ),
    "rest_garbled": Fault(
        "for `seconds`, REST answers 200 with a page of HTML, null, JSON of another shape, half an answer, or the "
        "venue's word for maintenance",
        {"shape": HTML, "seconds": 5.0},
        lambda random: _while(random) | {"shape": random.choice(SHAPES)},
        partial=True,
        choices={"shape": SHAPES},
    ),
    "handshake_refused": Fault(
        "for `seconds`, whoever opens a websocket is answered with this status; `drop`: open ones are broken before",
        {"status": 403, "seconds": 5.0, "drop": True},
        lambda random: _while(random) | {"status": random.choice(REFUSALS)},
        partial=True,
        choices={"status": REFUSALS},
    ),
    "halt": Fault(
        "a market stops trading, listed as in a halt where the venue has a word for it, and trades again after "
        "`seconds`",
        {"market": "", "seconds": 5.0},
        _while,
        partial=True,
    ),
    "list_market": Fault(
        "a new market (a made-up one when none is named) is listed and trades",
        {"market": ""},
        lambda _: {},
        partial=True,
        new_market=True,
    ),
    "delist_market": Fault(
        "a market is listed no more and never trades again; the last one stays",
        {"market": ""},
        lambda _: {},
        partial=True,
    ),
    "clock": Fault(
        "for `seconds`, the venue's clock is off by `offset_s` (positive: ahead), over websocket and REST",
        {"offset_s": 80.0, "seconds": 5.0},
        lambda random: _while(random) | {"offset_s": random.choice((-90.0, -5.0, 3.0, 80.0))},
        partial=True,
        may_be_negative=frozenset({"offset_s"}),
    ),
    "subscribe_late": Fault(
        "for `seconds`, what clients send is taken note of, and answered, `delay_s` late",
        {"seconds": 5.0, "delay_s": 1.0},
        lambda random: _while(random) | {"delay_s": round(random.uniform(0.3, 3.0), 2)},
        partial=True,
    ),
    "subscribe_unanswered": Fault(
        "for `seconds`, a message that subscribes to the market, with others or alone, is ignored as a whole",
        {"market": "", "seconds": 5.0},
        _while,
        partial=True,
    ),
    "subscribe_refused": Fault(
        "for `seconds`, a message that subscribes to the market, with others or alone, is refused as a whole",
        {"market": "", "seconds": 5.0},
        _while,
        partial=True,
    ),
}
"""Every fault by its name."""


def possible_faults(venue: str, markets: Sequence[str], *, partial: bool = True) -> list[str]:
    """The faults that make sense for these markets of the venue; without `partial`, those that break everything."""
    return [
        name
        for name, fault in FAULTS.items()
        if (partial or not fault.partial)
        and not (fault.needs_ids and venue == "gmo")
        and not (fault.needs_contiguous_ids and not any(contiguous(venue, market) for market in markets))
    ]


def check_fault(name: str, arguments: Mapping[str, Any], venue: str, markets: Sequence[str]) -> Arguments:
    """The arguments of a fault, defaults filled in.

    Raises:
        UsageError: there is no such fault, it makes no sense at this venue, or an argument is unknown or of another
            type than its default.

    """
    if name not in FAULTS:
        raise UsageError(f"fault {name!r} is unknown: choose one of {', '.join(possible_faults(venue, markets))}")
    fault = FAULTS[name]
    if name not in possible_faults(venue, markets):
        why = "has no trade ids" if fault.needs_ids else "has no market here whose ids are contiguous"
        raise UsageError(f"fault {name!r}: {venue} {why}, so no client could tell what was meant")
    for argument, value in arguments.items():
        if argument not in fault.arguments:
            known = ", ".join(fault.arguments) or "none"
            raise UsageError(f"fault {name!r} has no argument {argument!r}; it has {known}")
        wanted = type(fault.arguments[argument])
        if not (isinstance(value, wanted) or (wanted is float and type(value) is int)) or (
            wanted is int and isinstance(value, bool)
        ):
            raise UsageError(f"fault {name!r}: {argument} must be of type {wanted.__name__}, not {value!r}")
        least = -LARGEST if argument in fault.may_be_negative else 0
        if wanted in {int, float} and not least <= value <= LARGEST:
            raise UsageError(f"fault {name!r}: {argument} must not be negative, and not {value!r}")
    chosen = {**fault.arguments, **arguments}
    for argument, choices in fault.choices.items():
        if argument in chosen and chosen[argument] not in choices:
            possible = " or ".join(map(repr, choices))
            raise UsageError(f"fault {name!r}: {argument} must be {possible}, not {chosen[argument]!r}")
    if chosen.get("market") and chosen["market"] not in markets and not fault.new_market:
        raise UsageError(
            f"fault {name!r}: market {chosen['market']!r} is not simulated; there are {', '.join(markets)}"
        )
    if chosen.get("market") and fault.needs_contiguous_ids and not contiguous(venue, chosen["market"]):
        raise UsageError(f"fault {name!r}: the ids of {chosen['market']} are not contiguous; nobody could see the hole")
    return chosen
