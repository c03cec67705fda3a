"""Counters, and what is needed to count each event once, kept over restarts in a file.

A transaction holds what a poll counted together with the state that it was counted from, and the
counters are exposed only when it is written. So a process that is killed at any moment has shown
nothing that it would not know again, and counts nothing twice.

One thread does all the writing, so that the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from exporter.config.problems import ConfigError
from exporter.config.shard import WHOLE, Shard
from exporter.state import database
from exporter.state.database import Collectors, Damaged
from exporter.state.saved import Changes, Saved

log = logging.getLogger(__name__)

BATCH = 500
"""Changes written in one transaction at most."""


class StateFile:
    """The file. `on_health`: told whether it works, at once and at each change."""

    def __init__(
        self,
        path: Path,
        collectors: Collectors,
        on_health: Callable[[bool], None],
        shard: Shard = WHOLE,
    ) -> None:
        """Open it, or make it. ConfigError where another process has it open.

        A file that is damaged is put aside, and a new one is begun. Where the machine does not
        permit a file, that is logged, and nothing is saved.
        """
        self._path = path
        self._collectors = collectors
        self._on_health = on_health
        self._lock = lock(path)
        self._connection: sqlite3.Connection | None = None
        self._loaded: dict[str, Saved] = {}
        self._queue: queue.SimpleQueue[tuple[Changes, Callable[[], None]] | None]
        self._queue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        """Set once the thread has written everything."""
        try:
            self._connection, self._loaded = self._open(shard)
        except (sqlite3.Error, OSError, ValueError, Damaged) as error:
            self._fail("cannot be used", error)
        self._on_health(self._connection is not None)

    def _open(self, shard: Shard) -> tuple[sqlite3.Connection, dict[str, Saved]]:
        try:
            return database.open_database(self._path, self._collectors, shard)
        except Damaged as error:
            aside = database.put_aside(self._path)
            log.error(
                "state file cannot be read (%s). It was put aside as %s, and counters begin at 0",
                *(error, aside),
                extra={"file": str(self._path)},
            )
            return database.open_database(self._path, self._collectors, shard)

    def load(self, account: str) -> Saved:
        """What an earlier process knew of an account."""
        if self._connection is None:
            return Saved()
        if (saved := self._loaded.pop(account, None)) is not None:
            return saved
        try:
            return database.load(self._connection, account, self._collectors)
        except Exception as error:  # damage since the file was opened, wherever it shows
            log.exception(
                "account cannot be read from the state file: %s; its counters begin anew",
                error,
                extra={"file": str(self._path), "account": account},
            )
            with contextlib.suppress(sqlite3.Error):
                database.forget_account(self._connection, account)
            return Saved()

    def forget_unused(self) -> None:
        """Free what was read of accounts that nobody asked for; the file still has it."""
        self._loaded.clear()

    def write(self, changes: Changes, done: Callable[[], None]) -> None:
        """Write in the background, then call `done` on this event loop.

        In the order of the calls. Where the file does not work `done` is called all the same.
        """
        if self._connection is None:
            done()
            return
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, args=(loop,), name="state file")
            self._thread.start()
        self._queue.put((changes, done))

    async def close(self) -> None:
        """Write what is left, and let go of the file."""
        if self._thread is not None:
            self._queue.put(None)
            await self._ended.wait()
        if self._connection is not None:
            self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        ended = False
        while not ended:
            batch: list[tuple[Changes, Callable[[], None]]] = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            ended = item is None
            self._commit([changes for changes, _ in batch], loop)
            for _, done in batch:
                _call(loop, done)
        _call(loop, self._ended.set)

    def _commit(self, batch: list[Changes], loop: asyncio.AbstractEventLoop) -> None:
        if self._connection is None or not batch:
            return
        try:
            with self._connection:  # one transaction
                for changes in batch:
                    database.write(self._connection, changes, self._collectors)
        except Exception as error:  # noqa: BLE001 - the thread must go on: counters are shown after it
            # Going on later would leave a gap that nobody could see: better not at all.
            self._connection.close()
            self._connection = None
            with contextlib.suppress(OSError):  # else the next start would show old values
                database.put_aside(self._path)
            self._fail("cannot be written", error)
            _call(loop, lambda: self._on_health(False))

    def _fail(self, what: str, error: Exception) -> None:
        is_expected = isinstance(error, sqlite3.Error | OSError | Damaged)
        log.error(
            "state file %s (%s). Nothing is saved; counters begin at 0 with the next start",
            *(what, error or type(error).__name__),
            exc_info=None if is_expected else error,
            extra={"file": str(self._path)},
        )


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    # The loop may have ended, and with it whatever would have been shown.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def lock(path: Path) -> IO[str] | None:
    """A lock that ends with the process, however that ends.

    ConfigError where another process has it. None where the folder is not writable: opening the
    database then reports that.
    """
    try:
        file = path.with_name(f"{path.name}.lock").open("a")
    except (OSError, ValueError):  # ValueError: a path that cannot be
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(
            (f"{path}: this state file is in use by another process: give each its own",)
        ) from error
    return file
