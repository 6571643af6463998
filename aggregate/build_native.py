"""Builds the native fold: `aggregate/ashi_aggregate/native/kernel.zig` into one library that every Python loads.

The compiler is a package as others are (`ziglang`), pinned, so that building needs pip and no compiler of the machine's
own. A wheel and an editable install build by this, as hatchling's hook; `python aggregate/build_native.py` builds for
this machine into its place, as after a change of the sources, and with TARGET FILE for one of `TARGETS`. With
`ASHI_BUILD_NATIVE=off` there is none, and the wheel is for every machine.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER: Final = Path(__file__).parent / "ashi_aggregate" / "native"
SOURCE: Final = FOLDER / "kernel.zig"
LIBRARY: Final = FOLDER / "kernel.lib"
"""By this name on every system: it is loaded by its path."""

TARGETS: Final = {
    "linux-x86_64": ("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64.musllinux_1_1_x86_64"),
    "linux-aarch64": ("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64.musllinux_1_1_aarch64"),
    "macos-x86_64": ("x86_64-macos.11.0", "macosx_11_0_x86_64"),
    "macos-arm64": ("aarch64-macos.11.0", "macosx_11_0_arm64"),
}
"""What the compiler and what Python call each kind of machine. The library calls nothing of the system, so one does for
all Linux systems."""
TIMEOUT_S: Final = 600


def own_target() -> str | None:
    """The name in `TARGETS` of this machine; None where it has none."""
    system = {"Linux": "linux", "Darwin": "macos"}.get(platform.system())
    machine = platform.machine()
    target = f"{system}-{'aarch64' if system == 'linux' and machine == 'arm64' else machine}"
    return target if target in TARGETS else None


def build(target: str, library: Path) -> None:
    """Compile for a machine of `TARGETS` into the file `library`. Raises CalledProcessError with what was wrong.

    The same sources give the same bytes, wherever they lie and whatever `library` is. On macOS a library bears two
    names within, one by which it is linked and one in its signature; both would be of the file that is written.
    """
    name = ["-install_name", f"@rpath/{LIBRARY.name}"] if target.startswith("macos") else []
    with tempfile.TemporaryDirectory(prefix="ashi-native-") as folder:
        made = Path(folder) / LIBRARY.name
        subprocess.run(
            [
                sys.executable, "-m", "ziglang", "build-lib", "-dynamic", "-O", "ReleaseSafe", "-fstrip",
                "-target", TARGETS[target][0], "-mcpu", "baseline", str(SOURCE), f"-femit-bin={made}", *name,
                "--cache-dir", f"{folder}/local", "--global-cache-dir", f"{folder}/global",
            ],
            check=True,
            timeout=TIMEOUT_S,
        )  # fmt: skip
        shutil.copyfile(made, library)


class NativeFold(BuildHookInterface[Any]):
    """The hook: builds the library beside its source, and says for which machines the wheel is."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version`: `standard` or `editable`. For `ASHI_BUILD_TARGET` if that is set, else for this machine."""
        target = os.environ.get("ASHI_BUILD_TARGET") or own_target()
        if os.environ.get("ASHI_BUILD_NATIVE") == "off" or target is None:
            return
        if target not in TARGETS:
            raise SystemExit(f"ASHI_BUILD_TARGET {target!r} is none of {', '.join(TARGETS)}")
        library = LIBRARY if version == "editable" else Path(self.directory) / f"kernel-{target}.lib"
        library.parent.mkdir(parents=True, exist_ok=True)
        build(target, library)
        if version != "editable":
            build_data["force_include"][str(library)] = str(LIBRARY.relative_to(Path(__file__).parent))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{TARGETS[target][1]}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """What was built for the wheel alone is in it."""
        for library in Path(self.directory).glob("kernel-*.lib"):
            library.unlink()


def get_build_hook() -> type[NativeFold]:
    """For hatchling."""
    return NativeFold


if __name__ == "__main__":
    if len(sys.argv) > 1:
        build(sys.argv[1], Path(sys.argv[2]))
    elif own := own_target():
        build(own, LIBRARY)
    else:
        raise SystemExit(f"for this machine there is no library; there are {', '.join(TARGETS)}")
