"""Changes to an input that bits turned at random hardly ever come to: JSON that stays JSON, with odd values."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from targets import CUT

ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**40, 0.0, 1e300, 1e-300, "", " ", "0", "-0", "1e5",
    "NaN", "Infinity", "1_0", "+1", ".5", "1.", "01", "0x1F", "9" * 39, "0." + "0" * 37 + "1", "9" * 5_000, "\u0661",
    "\x00", "a\nb", "\u202e", "\ufeff", "\ud800", "'; --", "<img src=x>", "../../etc", "%2e%2e%2f", "a" * 300,
    [], {}, [[]], {"": {}}, "BUY", "SELL", "buy", "trade", "2025-04-30T13:09:43.601Z", "2025-02-30T25:61:61Z",
    1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000, 1_700_000_000_000_000_000,
)  # fmt: skip
_RAW: Final = (
    b"1e999999999",
    b"-0",
    b"1" * 5_000,
    b"[" * 2_000,
    b'{"a":' * 1_000,
    b"NaN",
    b"01",
    b'"\\ud800"',
    b"\xff",
)


def mutated(data: bytes, most: int, seed: int) -> bytes | None:
    """The input with a part of it changed; None where it has no JSON. The same seed makes the same of it."""
    try:
        return _mutated(data, most, seed)
    except RecursionError:  # it is nested deeply enough
        return None


def _mutated(data: bytes, most: int, seed: int) -> bytes | None:
    rng = random.Random(seed)
    parts = data.split(CUT)
    at = rng.randrange(len(parts))
    before, brace, text = parts[at].partition(b"{")
    try:
        value = json.loads(brace + text)
    except ValueError:
        return None
    places = list(_places(value))
    if rng.random() < 0.1 and places:
        holder, key = rng.choice(places)
        holder[key] = mark = f"mark{seed}"
        written = json.dumps(value).encode().replace(json.dumps(mark).encode(), rng.choice(_RAW))
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _change(rng, value)
        written = json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=(",", ":")).encode(
            errors="surrogatepass"
        )
    parts[at] = before + written
    if rng.random() < 0.1:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(parts))
    changed = CUT.join(parts)
    return changed if len(changed) <= most else None


def _places(value: Any) -> Any:
    """All that can be put something else into: what holds it, and where there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _odd(rng: random.Random) -> Any:
    return json.loads(json.dumps(rng.choice(ODD)))  # a list of its own


def _change(rng: random.Random, value: Any) -> None:
    places = list(_places(value))
    if not places:
        return
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(rng.choice(ODD))[:40]] = _odd(rng)
        case 2 if isinstance(holder, list):
            holder.insert(key, holder[key])
        case 3:
            other, there = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[there])) if there in other or isinstance(other, list) else None
        case 4 if isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] = rng.choice((holder[key] + 1, -holder[key], holder[key] * 1_000, str(holder[key])))
        case _:
            holder[key] = _odd(rng)
