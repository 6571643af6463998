"""Links in all pages lead somewhere, both languages say the same, and what a newcomer is told to type can be typed."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from pathlib import Path

import pytest
from markdown_pages import ROOT, broken_links, figures, sections

from ashi import __version__
from ashi_cli.commands import ASHI
from ashi_cli.main import main
from ashi_cli.parser import read_command_line
from ashi_sinks.sqlite.tables import TABLES

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
IN_JAPANESE = ["README.md", "docs/getting-started.md", "docs/data-architecture.md"]
START = "docs/getting-started.md"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def in_japanese(page: str) -> str:
    return page.removesuffix(".md") + ".ja.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_there_are(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text(
        "# A heading, twice\n\n# A heading, twice\n\n    # no heading\n", encoding="utf-8"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "# 足\n[a](other.md#a-heading-twice) [b](other.md#a-heading-twice-1) [c](#足) <https://a.example> `[d](e.md)`\n"
        "[f](gone.md) [g](other.md#no-heading)\n",
        encoding="utf-8",
    )
    assert broken_links(page) == ["gone.md", "other.md#no-heading"]


@pytest.mark.parametrize("page", IN_JAPANESE)
def test_both_languages_have_the_same_headings_commands_links_and_figures(page: str) -> None:
    english, japanese = sections(text_of(page)), sections(text_of(in_japanese(page)))
    assert [section.level for section in japanese] == [section.level for section in english]
    for place, (ours, theirs) in enumerate(zip(english, japanese, strict=True)):
        assert theirs.code == ours.code, f"code of section {place}"
        assert theirs.inline == ours.inline, f"code in the sentences of section {place}"
        either = [{link.replace(".ja.md", ".md") for link in section.links} for section in (ours, theirs)]
        own = {Path(page).name} if place == 0 else set()  # at the top each page names the other
        assert either[1] - own == either[0] - own, f"links of section {place}"
        assert theirs.figures.keys() == ours.figures.keys(), f"numbers of section {place}"
        for number, units in ours.figures.items():
            same = units <= theirs.figures[number] or units >= theirs.figures[number]
            assert same, f"units of {number} in section {place}: {units} and {theirs.figures[number]}"


@pytest.mark.parametrize("page", IN_JAPANESE)
def test_each_language_names_the_other_at_its_top(page: str) -> None:
    name = Path(page).name
    assert in_japanese(name) in sections(text_of(page))[0].links
    assert name in sections(text_of(in_japanese(page)))[0].links


@pytest.mark.parametrize("page", IN_JAPANESE)
def test_a_page_in_japanese_leads_to_pages_in_japanese_where_there_are_some(page: str) -> None:
    folder = (ROOT / page).parent
    links = {link for section in sections(text_of(in_japanese(page))) for link in section.links} - {Path(page).name}
    assert {link for link in links if link.endswith(".md") and (folder / in_japanese(link)).exists()} == set()


def test_figures_are_compared_whatever_the_language() -> None:
    english = "On two cores 773,000 trades/s for 0.63 µs, 26 to 30 ms, in 99 % of 50 symbols on S3; four times, once."
    japanese = "2 コアで 773,000 件/秒、0.63 µs、26 から 30 ms、50 銘柄の 99 %、S3 でも。毎秒 4 回、1 度。"
    assert figures(english) == figures(japanese)
    assert figures("0.26 秒") != figures("0.26 ms")
    assert figures("0.26 s").keys() != figures("0.27 秒").keys()


CODE = {
    page: [each for section in sections(page.read_text(encoding="utf-8")) for each in section.code] for page in PAGES
}
# Behind two blanks stands what a line is for, before the command what it is told by the environment.
COMMANDS = {
    typed[1]
    for code in CODE.values()
    for line in re.sub(r" \\\n\s*", " ", "\n".join(code)).splitlines()
    if (typed := re.match(r"\s*(?:[A-Z_]+=\S+ )*ashi (\S.*?)(?:\s{2,}| [|>&]|$)", line))
}


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_the_commands_are_those_of_this_version(line: str) -> None:
    words = shlex.split(line)
    assert words[0] in read_command_line(ASHI, __version__, words).name


def test_make_has_the_targets_that_are_typed() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    typed = {
        target for code in CODE.values() for line in code for target in re.findall(r"^\s*(?:\$ )?make ([a-z-]+)", line)
    }
    assert {"demo", "up", "test", "setup", "release"} <= typed <= targets


def test_the_reader_is_the_one_that_the_page_of_the_client_has() -> None:
    """That one is run by `tests/client/test_client_kafka.py`."""
    scripts = [re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL) for page in (START, "docs/client.md")]
    assert scripts[0] == scripts[1][:1]


def test_the_query_answers_from_a_store(tmp_path: Path) -> None:
    path = tmp_path / "candles.db"
    query = next(each[1] for each in re.finditer(r'sqlite3 -readonly \S+ "(.*?)"', text_of(START), re.DOTALL))
    example = next(
        text for text in re.findall(r"```json\n(.*?)```", text_of("docs/messages.md"), re.DOTALL) if "1m" in text
    )
    candle = json.loads(example)
    with sqlite3.connect(path) as db:
        db.execute(TABLES["candles"].create)
        names = ", ".join(candle)
        db.execute(f"INSERT INTO candles ({names}) VALUES ({', '.join('?' * len(candle))})", list(candle.values()))
        rows = db.execute(query).fetchall()
    prices = tuple(candle[name] for name in ("open", "high", "low", "close", "volume"))
    assert rows == [("2024-08-08 23:53:00", *prices)]


def test_the_backtest_prints_what_stands_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    pattern = r"^    ashi (strategy backtest [^`]*?gz)\n\n```text\n(.*?)```"
    [(command, printed)] = re.findall(pattern, text_of(START), re.DOTALL | re.MULTILINE)
    assert main(shlex.split(command.replace("\\\n", " "))) == 0
    assert capsys.readouterr().out == printed
