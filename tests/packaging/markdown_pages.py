"""Pages of Markdown as tests look at them: sections, code, links and figures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEADING = re.compile(r"^(#+) (.*)$")
COMMENT = re.compile(r"(^|\s+)(#|--) .*$")
INLINE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)|<img src=\"([^\"]+)\"")
NUMBER = re.compile(r"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)(?![\d.]*\d)")
"""Not the 3 of S3."""
WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
"""What English writes in letters and Japanese in digits. One is left out in both: it is mostly an article."""
UNITS = {
    "trades a second": r"trades/s|件/秒",
    "candles a second": r"candles/s|本/秒",
    "µs": r"µs",
    "ms": r"ms",
    "s": r"s\b|seconds?\b|秒",
    "min": r"minutes?\b|分",
    "h": r"hours?\b|時間",
    "%": r"%",
    "MB": r"MB",
    "bytes": r"bytes|バイト",
    "symbols": r"symbols|markets|銘柄",
    "cores": r"cores|コア",
    "times": r"times\b|倍|回",
    "digits": r"digits|桁",
    "trades": r"trades\b|件",
    "candles": r"candles\b|本",
}
"""Each by its words in either language; the first that fits counts."""


@dataclass(frozen=True, slots=True)
class Section:
    """What stands below a heading, up to the next one.

    Attributes:
        level: 1 for the title of the page.
        code: the lines of its blocks of code, without comments, which are in the page's language.
        inline: what stands in its sentences as code.
        links: where its links and pictures lead, without the part after `#`, which is made of a heading.
        figures: each number of its sentences with the units that it has there.

    """

    level: int
    code: list[str]
    inline: set[str]
    links: set[str]
    figures: dict[str, set[str]]


def sections(text: str) -> list[Section]:
    """Those of a page, in order. What stands before the first heading is none."""
    found: list[tuple[int, list[str], list[str]]] = []
    fenced, before = False, ""
    for line in text.splitlines():
        fence = line.startswith("```")
        indented = line.startswith("    ") and (not before or before.startswith("    "))
        if fence:
            fenced = not fenced
        elif fenced or indented:
            found[-1][1].append(COMMENT.sub("", line).rstrip())
        elif (heading := HEADING.match(line)) is not None:
            found.append((len(heading[1]), [], []))
        elif found:
            found[-1][2].append(line)
        before = line
    return [_section(level, code, "\n".join(prose)) for level, code, prose in found]


def _section(level: int, code: list[str], prose: str) -> Section:
    inline = {" ".join(each[1].split()) for each in INLINE.findall(prose)}
    links = {(one or other).partition("#")[0] for one, other in LINK.findall(prose)}
    words = re.sub(r"<[^>]*>", "", re.sub(r"\]\([^)]*\)", "]", INLINE.sub("", prose)))
    return Section(level, code, inline, links, figures(" ".join(words.split())))


def figures(words: str) -> dict[str, set[str]]:
    """Each number, but for 1, with the units that follow it somewhere."""
    digits = re.sub(rf"\b({'|'.join(WORDS)})\b", lambda word: str(WORDS[word[0].lower()]), words, flags=re.IGNORECASE)
    found: dict[str, set[str]] = {}
    for number in NUMBER.finditer(digits):
        units = found.setdefault(number[1].rstrip(","), set())
        after = digits[number.end() :].lstrip()
        units |= {next((name for name, unit in UNITS.items() if re.match(unit, after)), "")} - {""}
    found.pop("1", None)
    return found


def anchors(text: str) -> list[str]:
    """The names of a page's headings in addresses, as GitHub makes them."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", without_code, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = sum(each == name or re.fullmatch(rf"{re.escape(name)}-\d+", each) is not None for each in found)
        found.append(f"{name}-{again}" if again else name)
    return found


def broken_links(page: Path) -> list[str]:
    """The links of a page to files and headings of this repository that are not there."""
    text = page.read_text(encoding="utf-8")
    prose = INLINE.sub("", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    broken = []
    for link in (one or other for one, other in LINK.findall(prose)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken
