"""What is to be said of a store: pure. The command after what is wrong mends it, or shows what there is to decide.

A worker is named only where starting one mends it: another one, as a try, would join the group of those at work.
"""

from __future__ import annotations

import re
from collections import defaultdict
from shlex import quote
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from ashi_operations.doctor.report import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ashi_operations.doctor.facts import Facts
    from ashi_operations.doctor.report import State

ROOM_WARNING: Final = 0.1
ROOM_ERROR_BYTES: Final = 512 * 1024 * 1024

_RIGHT: Final = re.compile(r"(\w+) on (.+)")


def store_checks(facts: Facts) -> Iterator[Check]:
    """Whether it can be opened as it is, what its user may do there, and how much room it has."""
    url, kind = facts.store_url, facts.store_kind
    worker = f"ashi sink {kind} --storage {url}"
    if facts.store.why is not None:
        yield Check("store.open", "error", facts.store.why, _after_failure(facts.store.why, kind, url))
        return
    found = facts.store.value
    assert found is not None  # noqa: S101
    if found.version < found.latest:
        text = f"{found.where} has tables of version {found.version}, and this version of Ashi makes {found.latest}"
        yield Check("store.open", "warning", text, worker)
    else:
        yield Check("store.open", "ok", f"{found.where} has the tables that this version of Ashi knows")
    if found.lacking:
        text = f"this user may not do in {found.where} what a sink does: {', '.join(found.lacking)}"
        yield Check("store.rights", "error", text, _grant(found.lacking, kind, url))
    else:
        yield Check("store.rights", "ok", "this user may write there")
    yield _room(found.where, found.free, found.total)


def _after_failure(why: str, kind: str, url: str) -> str:
    if "--migrate" in why:
        return f"ashi sink {kind} --migrate --storage {url}"
    if "use the version that made it" in why:
        return "ashi --version"
    if "does not exist" in why and kind != "postgres":
        return f"ashi sink {kind} --storage {url}"
    return _look(kind, url)


def _look(kind: str, url: str) -> str:
    """What shows how it is there: a server, a folder, what is known of an account."""
    if kind == "postgres":
        return f"pg_isready --dbname {quote(url)} && psql {quote(url)} --command 'SELECT current_user'"
    if "s3:" in url.partition("//")[0]:
        return "env | grep '^AWS_' | cut -d= -f1"
    path = url.partition("://")[2].removeprefix("/").rstrip("/") or "/"
    folder = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    return f"id && ls -ld {quote(folder)} {quote(path)}"


def _grant(lacking: Sequence[str], kind: str, url: str) -> str:
    rights: defaultdict[str, list[str]] = defaultdict(list)
    for each in lacking:
        if kind == "postgres" and (match := _RIGHT.fullmatch(each)):
            rights[match[2]].append(match[1])
    if not rights:
        return _look(kind, url)
    parts = urlsplit(url)
    database = unquote(parts.path.strip("/"))
    user = unquote(parts.username or "") or "<the sink's user>"
    grants = [
        f'GRANT {", ".join(operations)} ON {f"DATABASE {database}" if on == "the database" else on} TO "{user}"'
        for on, operations in rights.items()
    ]
    place = parts.netloc.rpartition("@")[2]
    return f"psql {quote(f'postgresql://<owner>@{place}/{database}')} --command {quote('; '.join(grants))}"


def _room(where: str, free: int | None, total: int | None) -> Check:
    if free is None or not total:
        return Check("store.space", "skipped", "how much room is left there cannot be asked from here")
    text = f"{_gigabytes(free)} of {_gigabytes(total)} are free at {where}"
    if free >= max(ROOM_ERROR_BYTES, ROOM_WARNING * total):
        return Check("store.space", "ok", text)
    state: State = "error" if free < ROOM_ERROR_BYTES else "warning"
    return Check("store.space", state, text, f"df -h {quote(where.rpartition('/')[0] or '.')}")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
