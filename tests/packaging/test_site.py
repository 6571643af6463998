"""The site that `make docs` makes of the pages: whole, and sufficient to itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from markdown_pages import ROOT

sys.path.insert(0, str(ROOT / "docs"))

from make_site import CONFIGURATION, PAGES, SITE, bent, make_site, place_of, write_pages


def test_links_are_bent_to_where_what_they_lead_to_stands() -> None:
    page = "see [a](up.md#x), [b](../README.md), ![c](images/c.svg) and `[d](e.md)`\n\n    [f](g.md)\n\n[h](#i) <https://j.example>"
    text, linked = bent(page, "docs/chart.md")
    assert text == page.replace("../README.md", "index.md")
    assert linked == {"docs/up.md", "README.md", "docs/images/c.svg"}
    text, _ = bent(
        "[a](docs/up.md) [b](tests/conftest.py) [c](docs/decisions) [d](tests/compatibility/released)", "README.md"
    )
    assert text == (
        "[a](up.md) [b](source/tests/conftest.py.txt) [c](decisions/index.md) "
        "[d](source/tests/compatibility/released/index.md)"
    )
    assert place_of("docs/decisions/0006-the-house.md") == "decisions/0006-the-house.md"


def test_every_page_is_in_the_menu_once(tmp_path: Path) -> None:
    write_pages(tmp_path)
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.md")}
    text = (ROOT / CONFIGURATION).read_text(encoding="utf-8")
    menu = yaml.safe_load(text[text.index("nav:") :])["nav"]
    named = [
        page for part in menu for value in part.values() for page in ([value] if isinstance(value, str) else value)
    ]
    pages = [page if isinstance(page, str) else next(iter(page.values())) for page in named]
    assert sorted(pages) == sorted(page for page in made if not re.match(r"source/|decisions/\d", page))


@pytest.mark.processes
def test_the_site_is_made_without_a_warning_its_links_lead_on_and_it_asks_no_other_host(tmp_path: Path) -> None:
    assert make_site(tmp_path) == 0
    site = tmp_path / SITE
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    assert len(pages) >= len(list((tmp_path / PAGES).rglob("*.md")))
    names = {path: set(re.findall(r'\sid="([^"]+)"', text)) for path, text in pages.items()}
    asked: set[str] = set()
    dead: set[tuple[str, str]] = set()
    for path, text in pages.items():
        loaded = re.findall(
            r"<(?:img|script|source|iframe)\b[^>]*\ssrc=\"([^\"]+)\"|<link\b[^>]*\shref=\"([^\"]+)\"", text
        )
        asked |= {one or other for one, other in loaded if re.match(r"(\w+:)?//", one or other)}
        for link in {*re.findall(r'<a\b[^>]*\shref="([^"]+)"', text), *(one or other for one, other in loaded)}:
            if re.match(r"\w+:|//", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.exists() or (anchor and target in names and anchor not in names[target] | {"__"}):
                dead.add((path.name, link))
    assert asked == set()
    assert dead == set()
    # By these a page would fetch something when it is looked at.
    assert not any(re.search(r'class="mermaid"|@import|url\((["\']?)https?:', text) for text in pages.values())
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"@import|url\(([\"']?)(https?:)?//", styles)
    assert (site / "search.json").stat().st_size > 100_000
