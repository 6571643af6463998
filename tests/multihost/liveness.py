"""Whether each worker says all the time that it lives: an orchestrator restarts one that does not."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from typing import Final

from rig.fleet import Fleet

EVERY_S: Final = 1.0
PATIENCE_S: Final = 2.0
"""Who takes longer is asked again: an orchestrator asks twice, 20 s apart."""


class Liveness(threading.Thread):
    """Asks each worker that serves somewhere, again and again."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(name="liveness", daemon=True)
        self.asked = 0
        self.denied: list[str] = []
        """What workers have said that do not live, in sentences."""
        self._fleet = fleet
        self._told_to_stop = threading.Event()

    def run(self) -> None:
        while not self._told_to_stop.wait(EVERY_S):
            for worker in tuple(self._fleet.workers):
                if worker.port is not None and worker.process is not None and not worker.cut_off:
                    self._ask(worker.name, f"http://{worker.address}:{worker.port}/live")

    def _ask(self, name: str, url: str) -> None:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S):
                self.asked += 1
        except urllib.error.HTTPError as error:
            self.denied.append(f"{name} says that it does not live: {error.code} {error.read()[:300]!r}")
        except OSError:  # it starts, or ends; Fleet looks after that
            return

    def stop(self) -> None:
        """And wait for it."""
        self._told_to_stop.set()
        if self.ident is not None:
            self.join(30)
