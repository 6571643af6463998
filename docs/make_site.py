"""Makes the site of these pages, dist/site, by Zensical: to be read in a browser, with a search, without a network.

    make docs

The pages are also read where they stand, and link to sources and tests beside them. So whatever they link to comes
along, as text, and the links are bent to where it then stands.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CONFIGURATION: Final = "mkdocs.yml"
PAGES, SITE = "build/docs", "dist/site"
"""`docs_dir` and `site_dir` there."""
OF_ROOT: Final = {
    "README.md": "index.md",
    "README.ja.md": "index.ja.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
}
LEFT_OUT: Final = {".py", ".pyc"}
"""Of what is in docs/, if no page links to it."""
_LINK: Final = re.compile(r"(\]\(\s*|<img src=\")([^)\s\"]+)")
_CODE: Final = re.compile(r"(`+.+?`+)", re.DOTALL)


def place_of(path: str) -> str:
    """Where a file or folder of the repository stands in the site."""
    if path in OF_ROOT:
        return OF_ROOT[path]
    if path == "docs/decisions":
        return "decisions/index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.txt"


def bent(text: str, page: str) -> tuple[str, set[str]]:
    """A page of the repository as it is in the site, and what it links to, both by their paths in the repository."""
    linked: set[str] = set()

    def bend(link: re.Match[str]) -> str:
        target, hash_, anchor = link[2].partition("#")
        if re.match(r"\w+:", target) or not target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        linked.add(path)
        place = posixpath.relpath(place_of(path), posixpath.dirname(place_of(page)) or ".")
        return f"{link[1]}{place}{hash_}{anchor}"

    lines: list[str] = []
    prose: list[str] = []
    fenced = False

    def end_prose() -> None:
        parts = _CODE.split("\n".join(prose))
        lines.extend(
            "".join(p if p.startswith("`") else _LINK.sub(bend, p) for p in parts).split("\n") if prose else ()
        )
        prose.clear()

    for line in text.split("\n"):
        fence = line.startswith("```")
        if fence or fenced or line.startswith("    "):
            end_prose()
            lines.append(line)
        else:
            prose.append(line)
        fenced ^= fence
    end_prose()
    return "\n".join(lines), linked


def write_pages(folder: Path) -> None:
    """All pages, with what they link to."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = [*OF_ROOT, *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]
    linked: set[str] = set()
    for page in pages:
        text, targets = bent((ROOT / page).read_text(encoding="utf-8"), page)
        linked |= targets
        _write(folder / place_of(page), text)
    decisions = [page for page in pages if page.startswith("docs/decisions/")]
    listed = "\n".join(f"- [{_title(page)}]({PurePosixPath(page).name})" for page in decisions)
    _write(folder / "decisions/index.md", f"# Decisions\n\n{listed}\n")
    for path in (ROOT / "docs").rglob("*"):
        if path.is_file() and path.suffix not in {".md", *LEFT_OUT}:
            _copy(path, folder / path.relative_to(ROOT / "docs"))
    for target in sorted(linked - set(pages) - {"docs/decisions"}):
        _bring(target, folder)


def _bring(target: str, folder: Path) -> None:
    path = ROOT / target
    if not path.is_dir():
        _copy(path, folder / place_of(target))
        return
    names = [each.name for each in sorted(path.iterdir()) if each.is_file() and each.suffix not in {".pyc", ".lib"}]
    for name in names:
        _copy(path / name, folder / place_of(target).removesuffix("index.md") / f"{name}.txt")
    listed = "\n".join(f"- [`{name}`]({name}.txt)" for name in names)
    _write(folder / place_of(target), f"# `{target}`\n\n{listed}\n")


def _title(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def make_site(folder: Path = ROOT) -> int:
    """Make pages and site below a folder; gives the exit status of Zensical, which is not 0 where it warns."""
    write_pages(folder / PAGES)
    shutil.rmtree(folder / SITE, ignore_errors=True)
    if folder != ROOT:
        _copy(ROOT / CONFIGURATION, folder / CONFIGURATION)
    zensical = Path(sys.executable).with_name("zensical")
    return subprocess.run([zensical, "build", "--strict", "--clean"], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(make_site())
