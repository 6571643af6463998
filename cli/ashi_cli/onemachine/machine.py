"""What `ashi demo` and `ashi up` have in common: a broker and stages in one work directory, for as long as they run."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import AshiError, BrokerError
from ashi.runtime.settings import Settings
from ashi.runtime.settings.parsers import redact_url
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.stack import Stack, StageError, disk_is_full, how_it_ended, stage_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ashi_cli.onemachine.interrupts import Interrupts

_DYING_S: Final = 5.0
_POLL_S: Final = 0.5


class Machine:
    """A broker of our own, the stages on it, and the settings of all of them.

    Attributes:
        workdir: an absolute path; the broker's files, logs and the default store are in it.
        logs: the directory of the stages' logs.
        broker: runs only after `start_broker`.
        own_store: whether candles are kept in a file of the work directory, because nobody named another store.
        environment: that of every stage. Its address of Kafka is none before `start_broker`.
        settings: the same, read.

    """

    def __init__(
        self, workdir: Path, interrupts: Interrupts, *, storage: str | None, timeframes: str | None, live: bool
    ) -> None:
        """Nothing is started or written yet. Raises UsageError for settings that are wrong."""
        self.workdir = workdir.absolute()
        self.logs = self.workdir / "logs"
        self.broker = Broker(self.workdir)
        self.own_store = not (storage or os.environ.get("ASHI_STORAGE") or os.environ.get("ASHI_STORAGE_FILE"))
        self._interrupts = interrupts
        self._storage = storage
        self._timeframes = timeframes
        self._live = live
        # Checked with an address that is not known yet, so that wrong settings are told before anything starts.
        self._take_environment("127.0.0.1:9092")

    def _take_environment(self, bootstrap: str) -> None:
        storage = self._storage
        if self.own_store:
            storage = f"sqlite:///{self.workdir / 'candles.db'}"
        elif storage is None:
            storage = Settings.from_environment(
                {name: os.environ[name] for name in ("ASHI_STORAGE", "ASHI_STORAGE_FILE") if name in os.environ}
            ).storage
        self.environment = stage_environment(
            os.environ, bootstrap=bootstrap, storage=storage, timeframes=self._timeframes, live=self._live
        )
        self.settings = Settings.from_environment(self.environment)

    def check_store(self, refuse: Callable[[str], None]) -> None:
        """Open the store once, as a sink will, and leave no trace where there was none.

        `refuse` is called with its address when it exists already. Raises StorageError when nothing could be written.
        """
        from ashi_sinks.registry import STORES, make_sink, migrate_store, remove_store, store_exists, store_name

        storage = self.settings.storage
        exists = store_exists(storage)
        if exists:
            refuse(redact_url(storage))

        if STORES[store_name(storage)].migrate is not None:
            migrate_store(storage)

        async def try_out() -> None:
            sink = make_sink(storage)
            try:
                await sink.open()
            finally:
                await sink.close()

        self._interrupts.run(try_out())
        if not exists:
            remove_store(storage)

    def start_broker(self, say: Callable[[str], None], *, fresh: bool, port: int | None = None) -> None:
        """Start it as a child, on any free port unless one is named. Raises BrokerError."""
        self.broker.start(port=port, child=True, fresh=fresh, say=say)
        self._take_environment(self.broker.bootstrap)

    def stop_broker(self) -> None:
        """Stop it if it was started here."""
        with self._interrupts.held():
            if self.broker.process is not None:
                self.broker.stop()

    def make_stack(self, command: str) -> Stack:
        """Room for the stages, and for what the libraries of this process say. Raises StageError."""
        try:
            stack = Stack(self.logs, self.environment)
            # The client library's warnings about a broker that has just started are of no use to anybody here.
            handler = logging.FileHandler(self.logs / f"{command}.log")
        except OSError as error:
            raise StageError(f"logs cannot be written to {self.logs}: {error.strerror}; make it writable") from error
        logging.getLogger().handlers = [handler]
        return stack

    def stop_stages(self, stack: Stack) -> None:
        """Stop all of them."""
        with self._interrupts.held():
            stack.stop()

    def broker_has_ended(self) -> bool:
        """Whether the broker that was started here runs no more."""
        return self.broker.process is not None and self.broker.process.poll() is not None

    def explain(self, error: AshiError) -> AshiError:
        """What goes wrong because our broker has died, or is about to, is told as that."""
        process = self.broker.process
        assert process is not None  # noqa: S101
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Out of reach on this very machine means dying; a stage may have died of something else.
            process.wait(_DYING_S if isinstance(error, BrokerError) else _POLL_S)
        full = self._disk_is_full()
        ended = process.poll() is not None
        if not ended and not (full and isinstance(error, BrokerError)):
            return error
        return StageError(self.broker_words(f"{how_it_ended(process)} before the work was done" if ended else ""))

    def broker_words(self, what: str) -> str:
        """How the broker has ended (or, without a word of it, that it answers no more), and how its log ends."""
        remedy = "; the disk is full: free space there" if self._disk_is_full() else ""
        log, words = self.broker.log, self.broker.last_words()
        return f"stage broker {what or 'no longer answers'}{remedy}. Its log {log} ends with:\n{words}"

    def _disk_is_full(self) -> bool:
        return disk_is_full(self.broker.directory) or "No space left on device" in self.broker.last_words()
