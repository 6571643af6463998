"""What can be told of the pages without a browser: that they are whole, and that they fetch nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ashi_chart.pages.static_files import FOLDER, read_static_files
from ashi_chart.pages.web import PAGES

VENDORED = json.loads((FOLDER / "vendor/vendored.json").read_text())
SCRIPTS = sorted(FOLDER.glob("*.js"))
STYLES = sorted(FOLDER.glob("*.css"))


class Elements(HTMLParser):
    """The tags of a page, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed((FOLDER / page).read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def pages() -> list[str]:
    return sorted(set(PAGES.values()) & {path.name for path in FOLDER.glob("*.html")})


def words(script: Path) -> dict[str, set[str]]:
    """The keys of a file of words, by language."""
    found: dict[str, set[str]] = {}
    for language, block in re.findall(r"^  (en|ja): \{\n(.*?)^  \},$", script.read_text(), re.MULTILINE | re.DOTALL):
        found[language] = set(re.findall(r'^    (?:"([^"]+)"|\w+): ["`]', block, re.MULTILINE)) - {""}
    return found


def test_what_is_vendored_is_what_was_published() -> None:
    for name, known in VENDORED.items():
        folder = FOLDER / "vendor" / name
        there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        assert there == known["sha256"]
        assert "LICENSE.txt" in there
    assert {path.name for path in (FOLDER / "vendor").iterdir()} == {*VENDORED, "vendored.json"}
    version = VENDORED["lightweight-charts"]["version"]
    drawing = (FOLDER / "vendor/lightweight-charts/lightweight-charts.js").read_text()
    assert f"Lightweight Charts™ v{version}\n" in drawing


def test_the_chart_says_who_made_its_drawing() -> None:
    # The licence asks for a link and the notice on the page.
    links = [attributes for tag, attributes in Elements("chart.html").found if tag == "a"]
    assert [link["rel"] for link in links if link["href"] == "https://www.tradingview.com/"] == ["noopener noreferrer"]
    notice = (FOLDER / "vendor/lightweight-charts/NOTICE.txt").read_text().splitlines()[1]
    said = (FOLDER / "words.js").read_text()
    year = re.findall(r"20\d\d", notice)[0]
    assert said.count(f"Copyright © {year} TradingView, Inc.") == 4


@pytest.mark.parametrize("page", pages())
def test_a_page_asks_for_files_that_there_are_and_for_nothing_else(page: str) -> None:
    served = read_static_files()
    for tag, attributes in Elements(page).found:
        assert not {"style", "onclick", "onload", "onerror"} & set(attributes), f"{tag}: inline is refused by the CSP"
        name = attributes.get("src") if tag == "script" else attributes.get("href") if tag == "link" else None
        if tag == "script":
            assert name is not None, "inline is refused by the CSP"
        assert tag != "style"
        if name is not None:
            assert name.startswith("static/"), f"{name}: not relative, so wrong below a base path"
            assert name.removeprefix("static/") in served


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_module_imports_files_that_there_are(script: Path) -> None:
    text = script.read_text()
    for name in re.findall(r"""(?:\bfrom|^import) ["']([^"']+)["']""", text, re.MULTILINE):
        assert name.startswith("./")
        assert (FOLDER / name).is_file()
    text = text.replace("http://www.w3.org/2000/svg", "")  # the name of a namespace: nothing is asked there
    assert not re.findall(r"https?://|\beval\(|innerHTML|insertAdjacentHTML|document\.write", text)


@pytest.mark.parametrize("style", STYLES, ids=lambda path: path.name)
def test_a_style_asks_for_files_that_there_are(style: Path) -> None:
    text = style.read_text()
    assert "@import" not in text
    for name in re.findall(r'url\("?([^")]+)"?\)', text):
        assert (FOLDER / name).is_file()


def test_every_text_that_is_asked_for_has_words_in_both_languages() -> None:
    known: dict[str, set[str]] = {"en": set(), "ja": set()}
    for script in SCRIPTS:
        for language, keys in words(script).items():
            known[language] |= keys
    assert known["en"] == known["ja"] != set()
    for page in pages():
        for _, attributes in Elements(page).found:
            asked = {value for name, value in attributes.items() if name.startswith("data-i18n")}
            assert asked <= known["en"], page
    for script in SCRIPTS:
        assert set(re.findall(r'\bt\("([^"]+)"', script.read_text())) <= known["en"], script.name


def test_every_element_that_the_chart_looks_for_is_there_once() -> None:
    ids = [attributes["id"] for _, attributes in Elements("chart.html").found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for script in SCRIPTS:
        if not script.name.startswith(("markets", "spark")):
            assert set(re.findall(r'\bbyId\("([^"]+)"', script.read_text())) <= set(ids), script.name
