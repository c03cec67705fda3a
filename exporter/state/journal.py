"""Counters, and what is needed to count each event once, kept over restarts in a file.

A transaction holds what a poll counted together with the state that it was counted from, and the
counters are exposed only when it is written. So a process that is killed at any moment has shown
nothing that it would not know again, and counts nothing twice.

If a transaction fails, counters go on from memory, and the old file is put aside: its values would
look to Prometheus like a reset, and all of them like new events. All that is known is written to a
new file; this is tried until it succeeds.

One thread does all the writing, so that the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from exporter.config.problems import ConfigError
from exporter.config.shard import WHOLE, Shard
from exporter.state import database, file_lock
from exporter.state.database import Collectors, Damaged
from exporter.state.saved import Changes, Saved

log = logging.getLogger(__name__)

BATCH = 500
"""Changes written in one transaction at most."""

Snapshot = Mapping[str, Saved]
"""All that is to be saved, by account, at one moment."""

_DIGITS = 18
"""Of the number in the lock file."""

_Item = tuple[Changes | Snapshot, Callable[[], None]]


class StateFile:
    """The file. `on_health`: told whether it works, at once and at each change.

    `snapshot(now)`: all that is to be saved; called on the event loop. Without it no new file is
    written after an error.
    """

    def __init__(
        self,
        path: Path,
        collectors: Collectors,
        on_health: Callable[[bool], None],
        shard: Shard = WHOLE,
        *,
        on_internal_error: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.time,
        max_gap: float = 180.0,
        pauses: tuple[float, float] = (10.0, 300.0),
    ) -> None:
        """Open it, or make it. ConfigError where another process has it open.

        A file that is damaged is put aside, and a new one is begun. `now`: Unix time. `max_gap`:
        see `database.open_database`. `pauses`: seconds between two tries to write a new file, the
        first and the longest.
        """
        self.snapshot: Callable[[float], Snapshot] | None = None
        self._path = path
        self._collectors = collectors
        self._on_health = on_health
        self._shard = shard
        self._on_internal_error = on_internal_error
        self._now = now
        self._max_gap = max_gap
        self._pauses = pauses
        self._pause = pauses[0]
        self._retry: asyncio.TimerHandle | None = None
        file_lock.require_regular(path)
        self._lock = file_lock.lock(path)
        try:
            self._held = file_lock.hold(path, None)
        except ConfigError:
            if self._lock is not None:
                self._lock.close()
            raise
        self._generation = _marked(self._lock)
        """Of the last transaction that may have been shown."""
        self._connection: sqlite3.Connection | None = None
        self._extent: database.Extent = []
        self._aside: Path | None = None
        """The file that was put aside when it could not be written."""
        self._loaded: dict[str, Saved] = {}
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        """Set once the thread has written everything."""
        try:
            self._connection, self._loaded = self._open()
            self._held = file_lock.hold(path, self._held)
            self._note_written(database.generation(self._connection))
        except (sqlite3.Error, OSError, ValueError, Damaged) as error:
            self._give_up("cannot be used", error)
            self._aside = None  # it was never read: somebody may want it
        self._on_health(self._connection is not None)

    def _open(self) -> tuple[sqlite3.Connection, dict[str, Saved]]:
        rest = (self._collectors, self._shard, self._generation, self._now(), self._max_gap)
        try:
            return database.open_database(self._path, *rest)
        except Damaged as error:
            aside = database.put_aside(self._path)
            log.error(
                "state file cannot be read (%s). It was put aside as %s, and counters begin at 0",
                *(error, aside),
                extra={"file": str(self._path)},
            )
            return database.open_database(self._path, *rest)

    def load(self, account: str) -> Saved:
        """What an earlier process knew of an account."""
        if (saved := self._loaded.pop(account, None)) is not None:
            return saved
        if (connection := self._connection) is None:
            return Saved()
        try:
            return database.load(connection, account, self._collectors)
        except Exception as error:  # damage since the file was opened, wherever it shows
            log.exception(
                "account cannot be read from the state file: %s; its counters begin anew",
                error,
                extra={"file": str(self._path), "account": account},
            )
            with contextlib.suppress(sqlite3.Error):
                database.forget_account(connection, account)
            return Saved()

    def forget_unused(self) -> None:
        """Free what was read of accounts that nobody asked for; the file still has it."""
        self._loaded.clear()

    def write(self, changes: Changes, done: Callable[[], None]) -> None:
        """Write in the background, then call `done` on this event loop.

        In the order of the calls. Where the file does not work `done` is called all the same.
        """
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._run, args=(loop,), name="state file", daemon=True
            )
            self._thread.start()
            if self._connection is None:
                self._try_later()
        self._queue.put((changes, done))

    async def close(self) -> None:
        """Write what is left, and let go of the file."""
        if self._thread is not None:
            written = asyncio.Event()
            self._queue.put((Changes(""), written.set))
            await written.wait()
            if self._connection is None:
                self._write_anew()  # a last try
            self._queue.put(None)
            await self._ended.wait()
        if self._retry is not None:
            self._retry.cancel()
        if self._connection is not None:
            self._connection.close()
        for held in (self._held, self._lock):
            if held is not None:
                held.close()

    def _try_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._retry = loop.call_later(self._pause, self._write_anew)
        self._pause = min(2 * self._pause, self._pauses[1])

    def _write_anew(self) -> None:
        """Have all that is known written to a new file.

        On the event loop nothing changes meanwhile, and what changes later is written after it.
        """
        if self.snapshot is None:
            return
        try:
            known = {**self._loaded, **self.snapshot(self._now())}
            self._queue.put((known, lambda: None))
        except Exception:
            log.exception("state file cannot be written anew")
            self._on_internal_error("state file")
            self._try_later()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        ended = False
        while not ended:
            batch: list[_Item] = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            ended = item is None
            if batch:
                self._save([what for what, _ in batch], loop)
            for _, done in batch:
                _call(loop, done)
        _call(loop, self._ended.set)

    def _save(self, batch: list[Changes | Snapshot], loop: asyncio.AbstractEventLoop) -> None:
        worked = self._connection is not None
        snapshots = [place for place, each in enumerate(batch) if not isinstance(each, Changes)]
        if not worked and not snapshots:
            return
        try:
            if not worked:  # what came before the snapshot is in it
                batch = batch[snapshots[-1] :]
            self._commit(batch)
        except Exception as error:  # noqa: BLE001 - the thread must go on: counters are shown after it
            is_foreseen = self._give_up("cannot be written", error, is_repeated=not worked)
            if not is_foreseen:
                _call(loop, partial(self._on_internal_error, "state file"))
            _call(loop, self._write_anew if worked else self._try_later)
        works = self._connection is not None
        if works != worked:
            _call(loop, partial(self._on_health, works))

    def _commit(self, batch: list[Changes | Snapshot]) -> None:
        """Write these changes in one transaction; a snapshot first, if no file works."""
        number, now, is_new = self._generation + 1, self._now(), self._connection is None
        if self._connection is None:
            (known,) = [each for each in batch if not isinstance(each, Changes)]
            rest = (known, self._collectors, self._shard, number, now)
            self._connection = database.write_anew(self._path, *rest)
        else:
            database.check_extent(self._path, self._extent)
        with self._connection:
            for changes in batch:
                if isinstance(changes, Changes):
                    database.write(self._connection, changes, self._collectors)
            database.note_written(self._connection, number, now)
        self._note_written(number)
        if is_new:
            self._held = file_lock.hold(self._path, self._held)
            self._pause = self._pauses[0]
            if self._aside is not None:  # all that was in it is in the new one
                with contextlib.suppress(OSError):
                    database.remove(self._aside)
                self._aside = None
            log.info("state file was written anew", extra={"file": str(self._path)})

    def _note_written(self, generation: int) -> None:
        self._mark(generation)
        self._extent = database.extent(self._path)

    def _mark(self, generation: int) -> None:
        """Note outside the file what it must have; one that lacks it is never used again."""
        self._generation = generation
        if self._lock is not None:
            os.pwrite(self._lock.fileno(), b"%0*d\n" % (_DIGITS, generation), 0)

    def _give_up(self, what: str, error: Exception, *, is_repeated: bool = False) -> bool:
        """Go on without the file, which must not be used again; whether the error was foreseen."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        is_out_of_the_way = self._put_aside()
        is_foreseen = isinstance(error, sqlite3.Error | OSError | Damaged)
        log.log(
            logging.WARNING if is_repeated else logging.ERROR,
            "state file %s (%s). Counters go on from memory; until it is written anew, nothing is"
            " saved, and a restart begins %s",
            what,
            error or type(error).__name__,
            "at 0" if is_out_of_the_way else "with old values, unless you delete the file",
            exc_info=None if is_foreseen else error,
            extra={"file": str(self._path)},
        )
        return is_foreseen

    def _put_aside(self) -> bool:
        """See to it that no later process goes on from this file; False: it cannot be done."""
        done = False
        with contextlib.suppress(OSError, ValueError):
            self._mark(self._generation + 1)
            done = self._lock is not None
        with contextlib.suppress(OSError, ValueError):
            if self._path.exists():
                if self._aside is not None:
                    database.remove(self._aside)  # the disk may be full
                self._aside = database.put_aside(self._path)
            done = True
        return done


def _marked(file: IO[bytes] | None) -> int:
    """The number in the lock file: how many transactions the file must have."""
    text = os.pread(file.fileno(), _DIGITS, 0) if file is not None else b""
    return int(text) if text.isdigit() else 0


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    # The loop may have ended, and with it whatever would have been shown.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
