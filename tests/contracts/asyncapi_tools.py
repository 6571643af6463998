"""AsyncAPI's own tools for `docs/contracts/asyncapi.json`: its parser, and a page of it that needs no network.

    PYTHONPATH=tests/contracts .venv/bin/python -m asyncapi_tools dist/contracts.html    (`make contracts-page`)

Of each package one file is used, in which its authors have put all it needs; nothing else is fetched, and npm runs no
script of a package.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs" / "contracts" / "asyncapi.json"
BOUND_S: Final = 60

MISSING: Final = [program for program in ("node", "npm") if shutil.which(program) is None]
needs_node = pytest.mark.skipif(
    bool(MISSING),
    reason=f"there is no {' and no '.join(MISSING)}: ASYNCAPI'S OWN PARSER IS NOT ASKED (apt-get install nodejs npm)",
)


class Package(NamedTuple):
    """A package of npm, pinned: the checksum is that of its archive, as npm has it."""

    name: str
    version: str
    integrity: str


PARSER: Final = Package(
    "@asyncapi/parser",
    "3.6.6",
    "sha512-DppE3OStajt6gHc+RsVf9VxRwW9WACagHnFvkOML5rZGwS9hXxtFYTxnsH3mHPRgHom0rClMs6DpbjNY65Y54A==",
)
COMPONENT: Final = Package(
    "@asyncapi/react-component",
    "3.2.1",
    "sha512-k5ZqJd6+oxYaQ2o6F3rGWJ1MTIjXdpsUYB3NKQbVqr4yzrN0Ovj5c7eZx8NGd3wfKPhbOrLREtYl9K2OPfnSsA==",
)

_PARSE: Final = """
globalThis.self = globalThis.window = globalThis;  // it is built for browsers
const Parser = require(process.argv[1]);
const text = require("fs").readFileSync(0, "utf8");
new Parser().parse(text).then(({ document, diagnostics }) => {
  const messages = document ? document.allMessages().all() : [];
  console.log(JSON.stringify({
    diagnostics: diagnostics.map(({ severity, code, path, message }) => ({ severity, code, path, message })),
    channels: document ? document.allChannels().all().map((one) => one.address()) : [],
    operations: document ? document.allOperations().all().map((one) => one.id()) : [],
    messages: messages.map((one) => one.name()),
  }));
});
"""

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; \
style-src 'unsafe-inline'; img-src data:">
<title>Ashi: contracts</title>
<style>{style}</style>
<div id="asyncapi"></div>
<script>{script}</script>
<script>
AsyncApiStandalone.render({{ schema: {document}, config: {{ show: {{ sidebar: true, errors: true }} }} }},
                          document.getElementById("asyncapi"));
</script>
</html>
"""


def fetch(package: Package, folder: Path, *files: str) -> list[Path]:
    """Files of a package, in `folder`. Raises RuntimeError with what npm says, and ValueError for another archive."""
    options = [
        "--silent",
        "--cache",
        str(folder / "cache"),
        "--pack-destination",
        str(folder),
    ]  # nothing stays elsewhere
    command = ["npm", "pack", *options, f"{package.name}@{package.version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BOUND_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    archive = (folder / done.stdout.strip().splitlines()[-1]).read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != package.integrity:
        raise ValueError(f"{package.name} {package.version} is {found} and must be {package.integrity}")
    unpacked = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for name in files:
            member = opened.extractfile(f"package/{name}")
            assert member is not None, name
            unpacked.append(folder / f"{package.name.rpartition('/')[2]}-{Path(name).name}")
            unpacked[-1].write_bytes(member.read())
    return unpacked


def parse(parser: Path, text: str) -> dict[str, Any]:
    """What AsyncAPI's parser finds in a document, and what it has to say of it."""
    done = subprocess.run(
        ["node", "-e", _PARSE, "--", str(parser)],
        input=text,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def page(folder: Path) -> str:
    """The document as a page in one file, which asks nobody for anything."""
    script, style = fetch(COMPONENT, folder, "browser/standalone/index.js", "styles/default.min.css")
    # A script in a page ends at the first `</script`, wherever that stands.
    texts = [path.read_text(encoding="utf-8").replace("</script", r"<\/script") for path in (script, DOCUMENT)]
    return _PAGE.format(style=style.read_text(encoding="utf-8"), script=texts[0], document=texts[1])


if __name__ == "__main__":
    if MISSING:
        sys.exit(f"there is no {' and no '.join(MISSING)}: apt-get install nodejs npm")
    made = Path(sys.argv[1])
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        made.write_text(page(Path(scratch)), encoding="utf-8")
