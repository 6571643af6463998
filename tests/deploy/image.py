"""The image: built by buildah on a base made of Debian's packages, and its processes run on its files, read-only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests import ROOT

NEEDED = ("buildah", "mmdebstrap", "unshare", "chroot")
PACKAGES = "python3,python3-venv,libstdc++6,ca-certificates"
KEPT = ROOT / ".ashi/tests/image"
"""The base is the same until Debian's packages are others: it is kept for a week."""
KEPT_S = 7 * 86_400
ENVIRONMENT = {"BUILDAH_ISOLATION": "chroot"}
"""What works without a daemon, and without rights that a container has not."""


def lacking() -> list[str]:
    """What is missing here to build and run images."""
    missing = [name for name in NEEDED if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") is None]
    return missing + ([] if os.geteuid() == 0 else ["the rights of root"])


def run(*command: str | Path, timeout_s: float = 600) -> str:
    """What a command prints; its words and errors are in the AssertionError if it fails."""
    done = subprocess.run(
        [*map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=os.environ | ENVIRONMENT,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def buildah(root: Path, *arguments: str | Path) -> str:
    return run("buildah", f"--root={root}/storage", f"--runroot={root}/run", *arguments)


def base_of_debian() -> Path:
    """A Debian with Python, as a tar archive: stands in for the public image, which cannot be had everywhere."""
    archive = KEPT / "base.tar"
    if archive.exists() and time.time() - archive.stat().st_mtime < KEPT_S:
        return archive
    KEPT.mkdir(parents=True, exist_ok=True)
    making = KEPT / f"making-{os.getpid()}.tar"
    excluded = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
    try:
        run(
            "mmdebstrap",
            "--quiet",
            "--variant=essential",
            f"--include={PACKAGES}",
            *(f"--dpkgopt=path-exclude={path}" for path in excluded),
            "bookworm",
            making,
        )
        making.replace(archive)
    finally:
        making.unlink(missing_ok=True)
    return archive


@dataclass(frozen=True)
class Image:
    """An image that was built.

    Attributes:
        files: where its files can be seen.
        config: what it says of user, entrypoint, variables and labels, in OCI's words.
        seconds: how long the parts of its building took.

    """

    files: Path
    config: dict[str, Any]
    seconds: dict[str, float]

    @property
    def size_mb(self) -> float:
        """Of all files, MB."""
        return _size(self.files) / 1e6

    def size_of(self, folder: str) -> float:
        """Of the files below a folder, MB."""
        return _size(self.files / folder) / 1e6


def _size(folder: Path) -> int:
    found = (path.lstat() for path in folder.rglob("*"))
    return sum({stat.st_ino: stat.st_size for stat in found}.values())


@contextmanager
def built_image(root: Path) -> Iterator[Image]:
    """Build it as `make image` does, in a storage of its own below `root`."""
    began = time.monotonic()
    archive = base_of_debian()
    seconds = {"base": time.monotonic() - began}
    began = time.monotonic()
    container = buildah(root, "from", "scratch")
    buildah(root, "add", "--quiet", container, archive, "/")
    buildah(root, "commit", "--quiet", "--rm", container, "localhost/base")
    seconds["import"] = time.monotonic() - began
    began = time.monotonic()
    run(
        sys.executable,
        ROOT / "deploy/image.py",
        "--builder=buildah",
        "--base=localhost/base",
        "--tag=localhost/ashi",
        "--",
        f"--root={root}/storage",
        f"--runroot={root}/run",
        "--network=host",
        "--pull=never",
    )
    seconds["build"] = time.monotonic() - began
    config = json.loads(buildah(root, "inspect", "--type=image", "localhost/ashi"))["OCIv1"]["config"]
    container = buildah(root, "from", "--pull-never", "localhost/ashi")
    try:
        yield Image(Path(buildah(root, "mount", container)), config, seconds)
    finally:
        buildah(root, "umount", container)
        shutil.rmtree(root, ignore_errors=True)


IN_IMAGE = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs -o size=256m,mode=1777 tmpfs "$1/tmp"
mount -t proc proc "$1/proc"
mount --bind /dev "$1/dev"
root=$1 user=$2
shift 2
exec chroot --userspec="$user" "$root" "$@"
"""


class InImage:
    """A process on the image's files: as its user, with its variables, on a root that nobody can write to but /tmp."""

    def __init__(self, image: Image, log: Path, arguments: Sequence[str], **variables: str) -> None:
        self.log = log
        own = dict(each.split("=", 1) for each in image.config["Env"])
        shell = ["sh", "-c", IN_IMAGE, "sh", str(image.files), image.config["User"]]
        inside = ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in (own | variables).items())]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["unshare", "--mount", *shell, *inside, *image.config["Entrypoint"], *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self, timeout_s: float = 60) -> int:
        """Until it has ended; its status."""
        return self.process.wait(timeout_s)

    def wait_until_ready(self, port: int, timeout_s: float = 60) -> str:
        """What `/ready` says when it says yes."""
        deadline_s = time.monotonic() + timeout_s
        said = "nothing"
        while time.monotonic() < deadline_s:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log.read_text()}"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as error:
                said = error.read().decode()
            except OSError as error:
                said = str(error)
            time.sleep(0.1)
        raise AssertionError(f"not ready after {timeout_s:g} s, it says {said}: {self.log.read_text()}")

    def resident_mb(self) -> float:
        """Its memory, MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) / 1e3

    def user(self) -> str:
        """The numbers of its user and group."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = {line.split()[0]: line.split()[1] for line in lines if line.startswith(("Uid:", "Gid:"))}
        return f"{found['Uid:']}:{found['Gid:']}"

    def kept(self) -> list[str]:
        """The files that it has written, all of which are in its /tmp."""
        folder = Path(f"/proc/{self.process.pid}/root/tmp")
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def stop(self) -> int:
        """Tell it to stop, as Kubernetes does; its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(25)

    def end(self) -> None:
        """Whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
