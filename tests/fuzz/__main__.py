"""`make fuzz`: each target for a while, guided by what the inputs reach (atheris, libFuzzer); what it finds is printed.

Inputs that reached something new stay in `.ashi/fuzz`, so that the next run goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
from pathlib import Path

from inputs import findings, seeds

CORPUS = Path(__file__).parents[2] / ".ashi" / "fuzz"
MOST_BYTES = 4_096
MOST_SECONDS = 10
MOST_MB = 1_024
MODULES = ("ashi", "ashi_ingest", "ashi_aggregate", "ashi_sinks", "ashi_chart", "ashi_audit", "ashi_strategies")


def main() -> int:
    """Fuzz; the exit status is 1 where something was found."""
    from targets import TARGETS

    arguments = argparse.ArgumentParser(prog="make fuzz")
    arguments.add_argument("--minutes", type=float, default=1.0, help="for each target")
    arguments.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)} (default: all)")
    chosen = arguments.parse_args()
    failed = []
    for name in chosen.targets or TARGETS:
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for each in seeds(name) + findings(name):
            (folder / hashlib.sha1(each).hexdigest()).write_bytes(each)
        began_s = time.monotonic()
        log = CORPUS / f"{name}.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [sys.executable, __file__, "--one", name, str(int(chosen.minutes * 60)), str(folder)],
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        lines = log.read_text(errors="replace").splitlines()
        last = next((line.split() for line in reversed(lines) if line.startswith("#") and "cov:" in line), ["#0"])
        took_s = time.monotonic() - began_s
        print(f"{name}: {last[0][1:]} runs in {took_s:.0f} s, {' '.join(last[2:6])}", flush=True)
        if done.returncode:
            failed.append(name)
            found = sorted(CORPUS.glob(f"{name}-found-*"), key=lambda path: path.stat().st_mtime)
            print("\n".join(lines[-40:]))
            if found:
                print(f"{name} found, for tests/fuzz/findings/{name}.txt:\n{found[-1].read_bytes()!r}", flush=True)
    if failed:
        print(f"something is wrong in {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def fuzz_one(name: str, seconds: str, folder: str) -> None:
    """Of this process, until it finds something or the time is over."""
    import atheris

    with atheris.instrument_imports(include=[*MODULES, "targets"]):
        from targets import TARGETS

    from mutations import mutated

    run = TARGETS[name]

    def once(data: bytes) -> None:
        run(data)

    def change(data: bytes, most: int, seed: int) -> bytes:
        changed = mutated(data, most, seed) if seed % 2 else None
        return atheris.Mutate(data, most) if changed is None else changed

    options = {
        "max_total_time": seconds,
        "max_len": MOST_BYTES,
        "timeout": MOST_SECONDS,
        "rss_limit_mb": MOST_MB,
        "artifact_prefix": f"{CORPUS / name}-found-",
        "print_final_stats": 1,
        "reduce_inputs": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), folder], once, custom_mutator=change
    )
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(*sys.argv[2:])
    else:
        sys.exit(main())
