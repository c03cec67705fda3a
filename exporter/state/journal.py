"""Counters, and what is needed to count each event once, kept over restarts in an SQLite file.

A transaction holds what a poll counted together with the state that it was counted from, and the
counters are exposed only when it is written. So a process that is killed at any moment has shown
nothing that it would not know again, and counts nothing twice.

All writing is done by one thread of its own: the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from exporter.config.shard import WHOLE, Shard
from exporter.exposition.metric import Key
from exporter.state.counters import Counters
from exporter.state.failures import LATEST, JobFailure
from exporter.state.file_lock import lock
from exporter.state.resharding import reshard

log = logging.getLogger(__name__)

VERSION = 3
REMEMBERED = 30 * 86400.0
"""Seconds for which a job that left is remembered, so that it is not new when it comes back."""

BATCH = 500
"""Changes written in one transaction at most."""

_SCHEMA = """
CREATE TABLE account (name TEXT PRIMARY KEY, watched_since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE counter (
    account TEXT, owner TEXT, collector TEXT, name TEXT, labels TEXT,
    total REAL NOT NULL, exposed REAL,
    PRIMARY KEY (account, owner, collector, name, labels)
) WITHOUT ROWID;
CREATE TABLE job (
    account TEXT, job_id TEXT, job BLOB NOT NULL, is_new INTEGER NOT NULL, left_at REAL,
    PRIMARY KEY (account, job_id)
) WITHOUT ROWID;
CREATE TABLE state (
    account TEXT, job_id TEXT, collector TEXT, state BLOB NOT NULL,
    PRIMARY KEY (account, job_id, collector)
) WITHOUT ROWID;
CREATE TABLE record (
    account TEXT, job_id TEXT, collector TEXT, key TEXT, record BLOB NOT NULL,
    PRIMARY KEY (account, job_id, collector, key)
) WITHOUT ROWID;
CREATE TABLE failure (
    account TEXT, time REAL NOT NULL, key TEXT, failure BLOB NOT NULL,
    PRIMARY KEY (account, time, key)
) WITHOUT ROWID;
"""

Owner = tuple[str, str] | None
"""Whose counters: (label name, value) of a job or group; None: the account's own."""


@dataclass(frozen=True)
class SavedState:
    """A collector's state of one job. `records`: its long part, by key; only changes are written.

    A record that is None is gone.
    """

    state: bytes
    records: Mapping[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedJob:
    """A job as it was known: `job` is its description, `states` what its collectors had.

    `left_at`: Unix time at which it left the selection; its states are of no use any more.
    """

    job: bytes
    is_new: bool
    states: Mapping[str, SavedState] = field(default_factory=dict)
    left_at: float | None = None


@dataclass(frozen=True)
class Changes:
    """What one poll changed, written together or not at all.

    `counters`: by owner and collector, with the keys that changed. `jobs`: None: forget the job.
    `forgotten`: owners whose counters are gone. `failures`: new ones, for people to read.
    """

    account: str
    watched_since: float | None = None
    counters: tuple[tuple[Owner, str, Counters, frozenset[Key]], ...] = ()
    jobs: Mapping[str, SavedJob | None] = field(default_factory=dict)
    forgotten: tuple[Owner, ...] = ()
    failures: Sequence[JobFailure] = ()


@dataclass(frozen=True)
class Saved:
    """All that is known of an account from an earlier process."""

    watched_since: float | None = None
    counters: Mapping[tuple[Owner, str], Counters] = field(default_factory=dict)
    jobs: Mapping[str, SavedJob] = field(default_factory=dict)
    failures: tuple[JobFailure, ...] = ()


class StateFile:
    """The file. `on_health`: told whether it works, at once and at each change."""

    def __init__(self, path: Path, on_health: Callable[[bool], None], shard: Shard = WHOLE) -> None:
        """Open it, or make it. ConfigError where another process has it open.

        Of what another shard wrote, jobs that are not this one's are forgotten.
        Where it cannot be used for any other reason that is logged, and it does nothing.
        """
        self._path = path
        self._on_health = on_health
        self._lock = lock(path)
        self._connection: sqlite3.Connection | None = None
        self._queue: queue.SimpleQueue[tuple[Changes, Callable[[], None]] | None]
        self._queue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        """Set once the thread has written everything."""
        try:
            connection = _open(path)
            reshard(connection, shard)
            self._connection = connection
        except (sqlite3.Error, OSError) as error:
            self._fail("cannot be used", error)
        self._on_health(self._connection is not None)

    def load(self, account: str) -> Saved:
        """What an earlier process knew of an account."""
        if self._connection is None:
            return Saved()
        try:
            return _load(self._connection, account)
        except (sqlite3.Error, ValueError) as error:
            self._connection.close()
            self._connection = None
            _put_aside(self._path)
            self._fail("cannot be read", error)
            self._on_health(False)
            return Saved()

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
                    _write(self._connection, changes)
        except sqlite3.Error as error:
            # Going on later would leave a gap that nobody could see: better not at all.
            self._connection.close()
            self._connection = None
            self._fail("cannot be written", error)
            _call(loop, lambda: self._on_health(False))

    def _fail(self, what: str, error: Exception) -> None:
        log.error(
            "state file %s: %s: counters will begin anew with the next start",
            what,
            error,
            extra={"file": str(self._path)},
        )


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    # The loop may have ended, and with it whatever would have been shown.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # read-only, a full disk: nothing is wrong with what is in the file
        aside = _put_aside(path)
        raise sqlite3.DatabaseError(f"{error}; it was put aside as {aside}") from error


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun by sqlite3 with the first change and ended by `with connection`.
    connection = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:
            connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, this program's is {VERSION}")
        # A killed process loses nothing with this; a machine that loses power, the last second.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        with connection:  # which fails at once where nothing can be written
            connection.execute("DELETE FROM job WHERE left_at < ?", (time.time() - REMEMBERED,))
    except BaseException:
        connection.close()
        raise
    return connection


def _put_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.aside-{time.time():.0f}")
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            os.replace(file, aside.with_name(aside.name + suffix))
    return aside


def _owner_text(owner: Owner) -> str:
    return json.dumps(owner)


def _write(connection: sqlite3.Connection, changes: Changes) -> None:
    account = changes.account
    if changes.watched_since is not None:
        connection.execute(
            "INSERT OR IGNORE INTO account VALUES (?, ?)", (account, changes.watched_since)
        )
    for owner in changes.forgotten:
        connection.execute(
            "DELETE FROM counter WHERE account = ? AND owner = ?", (account, _owner_text(owner))
        )
    for owner, collector, counters, keys in changes.counters:
        totals, exposed = counters.totals, counters.exposed
        rows = (
            (
                account,
                _owner_text(owner),
                collector,
                name,
                json.dumps(labels),
                _real(totals[name, labels]),
                _real(exposed[name, labels]),
            )
            for name, labels in keys
        )
        connection.executemany("INSERT OR REPLACE INTO counter VALUES (?,?,?,?,?,?,?)", rows)
    for job_id, job in changes.jobs.items():
        _write_job(connection, account, job_id, job)
    if changes.failures:
        _write_failures(connection, account, changes.failures)


def _real(value: float | None) -> float | None:
    """As the column has it: SQLite takes no whole number beyond 64 bits, and raises no error of
    its own for one."""
    try:
        return None if value is None else float(value)
    except OverflowError:
        return math.inf


def _write_failures(
    connection: sqlite3.Connection, account: str, failures: Sequence[JobFailure]
) -> None:
    rows = (
        (account, each.failure.time or 0.0, json.dumps(each.key), msgspec.json.encode(each))
        for each in failures
    )
    connection.executemany("INSERT OR REPLACE INTO failure VALUES (?,?,?,?)", rows)
    connection.execute(
        "DELETE FROM failure WHERE account = :a AND time < (SELECT time FROM failure"
        " WHERE account = :a ORDER BY time DESC LIMIT 1 OFFSET :n)",
        {"a": account, "n": LATEST - 1},
    )


def _write_job(
    connection: sqlite3.Connection, account: str, job_id: str, job: SavedJob | None
) -> None:
    of_job = (account, job_id)
    if job is None or job.left_at is not None:
        for table in ("job", "state", "record"):
            # Names of tables are ours, here and in _load.
            connection.execute(f"DELETE FROM {table} WHERE account = ? AND job_id = ?", of_job)  # noqa: S608
    if job is None:
        return
    row = (*of_job, job.job, job.is_new, job.left_at)
    connection.execute("INSERT OR REPLACE INTO job VALUES (?,?,?,?,?)", row)
    for collector, saved in job.states.items():
        key = (*of_job, collector)
        connection.execute("INSERT OR REPLACE INTO state VALUES (?,?,?,?)", (*key, saved.state))
        connection.executemany(
            "INSERT OR REPLACE INTO record VALUES (?,?,?,?,?)",
            ((*key, name, record) for name, record in saved.records.items() if record is not None),
        )
        connection.executemany(
            "DELETE FROM record WHERE account=? AND job_id=? AND collector=? AND key=?",
            ((*key, name) for name, record in saved.records.items() if record is None),
        )


def _load(connection: sqlite3.Connection, account: str) -> Saved:
    def rows(columns: str, table: str) -> Iterable[tuple[object, ...]]:
        query = f"SELECT {columns} FROM {table} WHERE account = ?"  # noqa: S608
        return connection.execute(query, (account,))

    since = connection.execute("SELECT watched_since FROM account WHERE name=?", (account,))
    found = since.fetchone()
    totals: dict[tuple[Owner, str], dict[Key, float]] = {}
    exposed: dict[tuple[Owner, str], dict[Key, float]] = {}
    for owner, collector, name, labels, total, shown in rows(
        "owner, collector, name, labels, total, exposed", "counter"
    ):
        parsed = json.loads(str(owner))
        place = (tuple(parsed) if parsed else None, str(collector))
        key = (str(name), tuple(json.loads(str(labels))))
        totals.setdefault(place, {})[key] = _number(total)
        if shown is not None:
            exposed.setdefault(place, {})[key] = _number(shown)
    records: dict[tuple[str, str], dict[str, bytes]] = {}
    for job_id, collector, name, record in rows("job_id, collector, key, record", "record"):
        of_collector = records.setdefault((str(job_id), str(collector)), {})
        of_collector[str(name)] = _bytes(record)
    states: dict[str, dict[str, SavedState]] = {}
    for job_id, collector, state in rows("job_id, collector, state", "state"):
        saved = SavedState(_bytes(state), records.get((str(job_id), str(collector)), {}))
        states.setdefault(str(job_id), {})[str(collector)] = saved
    return Saved(
        found[0] if found else None,
        {place: Counters.of(of, exposed.get(place, {})) for place, of in totals.items()},
        {
            str(job_id): SavedJob(
                _bytes(job),
                bool(is_new),
                states.get(str(job_id), {}),
                None if left_at is None else _number(left_at),
            )
            for job_id, job, is_new, left_at in rows("job_id, job, is_new, left_at", "job")
        },
        tuple(
            msgspec.json.decode(_bytes(failure), type=JobFailure)
            for (failure,) in rows("failure", "failure")
        ),
    )


def _number(value: object) -> float:
    """A total as it was counted: whole numbers stay whole, and are written without a point."""
    if not isinstance(value, float | int):
        raise ValueError(f"{value!r} is no number")
    return int(value) if float(value).is_integer() else value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a state is not as it was written")
    return value
