"""The SQLite database of the state file: the counters, and the states they were counted from.

This module has its tables: how they are made, migrated, read and written. All of it is read when it
is opened, so that any damage shows then.

The table `written` has one row. Its `generation` grows with each transaction, and so does the copy
in the lock file: a file with a lower one is older than what was shown.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from exporter.batch.models import Job
from exporter.batch.spellings import MAX_POOLS, Spelling
from exporter.config.shard import Shard
from exporter.exposition.metric import Key
from exporter.state.account import Owner
from exporter.state.collector import Events, Folded, JobCollector
from exporter.state.counters import Counters
from exporter.state.failures import LATEST, Failure
from exporter.state.recent import Counted
from exporter.state.saved import Changes, CounterChange, Saved, SavedJob
from exporter.state.timestamps import iso_time

log = logging.getLogger(__name__)

R = TypeVar("R")

VERSION = 5

REMEMBERED = 30 * 86400.0
"""Seconds for which a job that left is remembered, so that it is not new when it comes back."""

_JOB_TABLE = """
CREATE TABLE job (
    account TEXT, job_id TEXT, job BLOB NOT NULL, is_new INTEGER NOT NULL, job_group TEXT,
    left_at REAL,
    PRIMARY KEY (account, job_id)
) WITHOUT ROWID;
"""

_FAILURE_TABLE = """
CREATE TABLE failure (
    account TEXT, time TEXT NOT NULL, key TEXT, failure BLOB NOT NULL,
    PRIMARY KEY (account, time, key)
) WITHOUT ROWID;
"""

_NEW_IN_5 = """
CREATE TABLE recent (
    account TEXT, job_id TEXT, counted BLOB NOT NULL, PRIMARY KEY (account, job_id)
) WITHOUT ROWID;
CREATE TABLE spelling (
    account TEXT, kind TEXT, text TEXT, PRIMARY KEY (account, kind, text)
);
CREATE TABLE job_group (
    account TEXT, name TEXT, seen_at REAL NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;
CREATE TABLE written (
    generation INTEGER NOT NULL, time REAL, shard INTEGER NOT NULL, shards INTEGER NOT NULL
);
INSERT INTO written VALUES (0, NULL, 0, 1);
"""

_SCHEMA = f"""
CREATE TABLE account (
    name TEXT PRIMARY KEY, watched_since REAL NOT NULL, listed_at REAL
) WITHOUT ROWID;
CREATE TABLE counter (
    account TEXT, owner TEXT, collector TEXT, name TEXT, labels TEXT,
    total REAL NOT NULL, exposed REAL,
    PRIMARY KEY (account, owner, collector, name, labels)
) WITHOUT ROWID;
{_JOB_TABLE}
CREATE TABLE state (
    account TEXT, job_id TEXT, collector TEXT, state BLOB NOT NULL,
    PRIMARY KEY (account, job_id, collector)
) WITHOUT ROWID;
CREATE TABLE record (
    account TEXT, job_id TEXT, collector TEXT, key TEXT, record BLOB NOT NULL,
    PRIMARY KEY (account, job_id, collector, key)
) WITHOUT ROWID;
{_FAILURE_TABLE}
{_NEW_IN_5}
PRAGMA user_version = {VERSION};
"""

_MIGRATION_3 = f"""
BEGIN;
UPDATE job SET job = CAST(json_object(
    'id', job_id, 'creationTime', json_extract(CAST(job AS TEXT), '$.creationTime')
) AS BLOB) WHERE left_at IS NOT NULL;
DROP TABLE failure;
{_FAILURE_TABLE}
ALTER TABLE job RENAME TO old;
{_JOB_TABLE}
INSERT INTO job SELECT account, job_id, job, is_new, NULL, left_at FROM old;
DROP TABLE old;
COMMIT;
"""  # noqa: S608 - of our own texts

_MIGRATION_4 = f"""
BEGIN;
ALTER TABLE account ADD COLUMN listed_at REAL;
{_NEW_IN_5}
CREATE TABLE IF NOT EXISTS shard (number INTEGER NOT NULL, count INTEGER NOT NULL);
DELETE FROM written WHERE EXISTS (SELECT 1 FROM shard);
INSERT INTO written SELECT 0, NULL, number, count FROM shard;
DROP TABLE shard;
PRAGMA user_version = {VERSION};
COMMIT;
"""  # noqa: S608 - of our own texts

Collectors = Mapping[str, JobCollector[Any, Any]]


class Damaged(Exception):
    """What is in the file cannot be used; the text says why."""


_OF_THE_MACHINE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
"""Errors that say nothing about what is in the file: no access, a full disk, another process."""


def open_database(
    path: Path, collectors: Collectors, shard: Shard, shown: int, now: float, max_gap: float
) -> tuple[sqlite3.Connection, dict[str, Saved]]:
    """The database, made where there is none, and what it knows of each account.

    `shown`: the generation that was shown last. `now`: Unix time. `max_gap`: after so many seconds
    without a process a shard forgets its jobs. If another shard wrote the file, the jobs that this
    shard does not own are deleted. OSError or sqlite3.Error where the machine does not permit it;
    Damaged for all that is wrong with the file.
    """
    _touch(path)
    connection = sqlite3.connect(os.path.abspath(path), check_same_thread=False, timeout=5.0)
    try:
        has_generation = _prepare(connection, now)
        found = generation(connection)
        if has_generation and found < shown:
            raise Damaged(f"it is older than what was shown: {found} of {shown} transactions")
        with connection:  # which fails at once where nothing can be written
            _reshard(connection, shard, now, max_gap)
            note_written(connection, max(found, shown) + 1, now)
        accounts = {name for (name,) in connection.execute(_ACCOUNTS)}
        return connection, {name: load(connection, name, collectors) for name in accounts}
    except BaseException as error:
        connection.close()
        code = getattr(error, "sqlite_errorcode", None)
        if not isinstance(error, Exception) or (code and code & 0xFF in _OF_THE_MACHINE):
            raise
        # Any error is damage, decoding errors too: else the process would end at every start.
        raise Damaged(" ".join(str(error).split()) or type(error).__name__) from error


def write_anew(
    path: Path,
    accounts: Mapping[str, Saved],
    collectors: Collectors,
    shard: Shard,
    number: int,
    now: float,
) -> sqlite3.Connection:
    """Write all that is known to a new file, and put it in place of `path`.

    `number`, `now`: of this transaction. The caller has put an old file aside. OSError or
    sqlite3.Error where the machine does not permit it.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        remove(new)
        _touch(new)
        with closing(sqlite3.connect(os.path.abspath(new))) as connection:
            connection.executescript(_SCHEMA)
            with connection:
                for account, saved in accounts.items():
                    write(connection, _all_of(account, saved, collectors), collectors)
                connection.execute(
                    "UPDATE written SET shard = ?, shards = ?", (shard.index, shard.count)
                )
                note_written(connection, number, now)
        remove(path)  # its WAL would be taken for that of the new file
        os.replace(new, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        remove(new)
        raise
    connection = sqlite3.connect(os.path.abspath(path), check_same_thread=False, timeout=5.0)
    _set_up(connection)
    return connection


def _all_of(account: str, saved: Saved, collectors: Collectors) -> Changes:
    return Changes(
        account,
        watched_since=saved.watched_since,
        listed_at=saved.listed_at,
        jobs=saved.jobs,
        folded={
            (job_id, name): Folded(state, Events(), records=collectors[name].records(state))
            for job_id, job in saved.jobs.items()
            for name, state in job.states.items()
        },
        counters=tuple(
            (owner, collector, counters, frozenset(counters.totals))
            for (owner, collector), counters in saved.counters.items()
        ),
        failures=saved.failures,
        recent=saved.recent,
        spellings=saved.spellings,
        groups=saved.groups,
    )


def generation(connection: sqlite3.Connection) -> int:
    """The number of the last transaction."""
    (found,) = connection.execute("SELECT generation FROM written").fetchone()
    return int(found)


def note_written(connection: sqlite3.Connection, number: int, now: float) -> None:
    """Note a transaction's number and time; to be called inside it."""
    connection.execute("UPDATE written SET generation = ?, time = ?", (number, now))


Extent = list[tuple[int, int, int]]
"""Device, inode and size of the database and its WAL."""


def extent(path: Path) -> Extent:
    """What the files are now. FileNotFoundError where one was removed."""
    found = [file.stat() for file in _files(path)[:2]]
    return [(each.st_dev, each.st_ino, each.st_size) for each in found]


def check_extent(path: Path, before: Extent) -> None:
    """Damaged, or FileNotFoundError, if somebody else replaced, cut or removed the files.

    SQLite itself never makes them smaller while they are open.
    """
    for known, found in zip(before, extent(path), strict=True):
        if found[:2] != known[:2]:
            raise Damaged("another file was put in its place")
        if found[2] < known[2]:
            raise Damaged("it was cut")


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    for file in _files(path):
        if file.exists():
            file.chmod(0o600)  # SQLite gives the mode of the database to the files beside it


_ACCOUNTS = """
SELECT name FROM account UNION SELECT account FROM counter UNION SELECT account FROM job
UNION SELECT account FROM failure UNION SELECT account FROM job_group
"""


def _files(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]


def put_aside(path: Path) -> Path:
    """Rename a file that cannot be used, and those beside it; returns its new path."""
    aside = path.with_name(f"{path.name}.aside-{time.time():.0f}")
    for file, new in zip(_files(path), _files(aside), strict=True):
        if file.exists():
            os.replace(file, new)
    return aside


def remove(path: Path) -> None:
    """Delete a file, and those beside it."""
    for file in _files(path):
        file.unlink(missing_ok=True)


def _prepare(connection: sqlite3.Connection, now: float) -> bool:
    """Make or migrate the tables; whether they were of this version."""
    # sqlite3 begins a transaction with the first change; `with connection` ends it.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0:
        connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
    elif version not in (3, 4, VERSION):
        raise Damaged(f"it is of version {version}, this program's is {VERSION}")
    elif version < VERSION:
        if version == 3:
            _migrate_3(connection)
        connection.executescript(_MIGRATION_4)
    (check,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if check != "ok":
        raise Damaged(check)
    _set_up(connection)
    with connection:
        connection.execute("DELETE FROM job WHERE left_at < ?", (now - REMEMBERED,))
    return bool(version == VERSION)


def _set_up(connection: sqlite3.Connection) -> None:
    # With FULL a machine that loses power loses nothing that was shown, either. One fsync for each
    # transaction, in a thread, is no great price.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _migrate_3(connection: sqlite3.Connection) -> None:
    """Version 3 did not know a job's group, and had other failures, with a Unix time."""
    rows = connection.execute("SELECT failure FROM failure").fetchall()
    failures = []
    for (text,) in rows:
        given = json.loads(text)
        inner = given.pop("failure")
        moment = inner.pop("time", None)
        details = [{"name": name, "value": value} for name, value in inner.pop("details", ())]
        whole = {**given, **inner, "details": details}
        whole["time"] = None if moment is None else iso_time(moment)
        failures.append(msgspec.convert(whole, Failure))
    connection.executescript(_MIGRATION_3)
    with connection:
        for failure in failures:
            _write_failures(connection, failure.account, [failure])
        connection.execute("PRAGMA user_version = 4")


def _reshard(connection: sqlite3.Connection, shard: Shard, now: float, max_gap: float) -> None:
    """Forget the jobs that other shards may have counted, and note whose the file is.

    These are the jobs that other shards own. If this shard was away for long, they are all jobs:
    the number of shards may have been another one meanwhile, which only the others know. No job
    that exists now may be taken for new, so `watched_since` is deleted. Totals of groups and
    accounts stay, because what this shard counted happened.
    """
    row = connection.execute("SELECT time, shard, shards FROM written").fetchone()
    written, before = row[0], Shard(*row[1:])
    was_away = shard.count > 1 and written is not None and now - written > max_gap
    if before == shard and not was_away:
        return
    jobs = connection.execute("SELECT account, job_id FROM job").fetchall()
    moved = [job for job in jobs if was_away or not shard.owns(*job)]
    for table in ("job", "state", "record"):
        query = f"DELETE FROM {table} WHERE account = ? AND job_id = ?"  # noqa: S608
        connection.executemany(query, moved)
    connection.executemany(
        "DELETE FROM counter WHERE account = ? AND owner = ?",
        ((account, json.dumps(["job_id", job_id])) for account, job_id in moved),
    )
    connection.execute("DELETE FROM account")
    connection.execute("DELETE FROM recent")
    connection.execute("UPDATE written SET shard = ?, shards = ?", (shard.index, shard.count))
    if was_away:
        log.warning(
            "shard %s was away for %.0f s: what its jobs did meanwhile is not counted, as other"
            " shards may have counted it",
            *(shard, now - written),
        )
    elif jobs:
        log.info(
            "the state file is from shard %s, this is %s: %d of its %d jobs are left to others",
            *(before, shard, len(moved), len(jobs)),
        )


def load(connection: sqlite3.Connection, account: str, collectors: Collectors) -> Saved:
    """What the file knows of an account. Any exception where something cannot be read."""

    def rows(columns: str, table: str, row: type[R]) -> list[R]:
        # Names of columns and tables are ours, here and below.
        query = f"SELECT {columns} FROM {table} WHERE account = ?"  # noqa: S608
        return msgspec.convert(connection.execute(query, (account,)).fetchall(), list[row])  # type: ignore[valid-type]

    query = "SELECT watched_since, listed_at FROM account WHERE name=?"
    found = connection.execute(query, (account,)).fetchone() or (None, None)
    since, listed_at = msgspec.convert(found, tuple[float | None, float | None])
    counters: dict[tuple[Owner, str], tuple[dict[Key, float], dict[Key, float]]] = {}
    for owner, collector, name, labels, total, shown in rows(
        "owner, collector, name, labels, total, exposed",
        "counter",
        tuple[str, str, str, str, float, float | None],
    ):
        place = (msgspec.json.decode(owner, type=tuple[str, str] | None), collector)
        totals, exposed = counters.setdefault(place, ({}, {}))
        key = (name, msgspec.json.decode(labels, type=tuple[str, ...]))
        totals[key] = _number(total)
        if shown is not None:
            exposed[key] = _number(shown)
    records: dict[tuple[str, str], dict[tuple[str, ...], bytes]] = {}
    for job_id, collector, text, record in rows(
        "job_id, collector, key, record", "record", tuple[str, str, str, bytes]
    ):
        of_collector = records.setdefault((job_id, collector), {})
        of_collector[msgspec.json.decode(text, type=tuple[str, ...])] = record
    spellings = rows("rowid, kind, text", "spelling", tuple[int, Literal["code", "pool"], str])
    states: dict[str, dict[str, Any]] = {}
    for job_id, name, state in rows("job_id, collector, state", "state", tuple[str, str, bytes]):
        if name in collectors:  # another version of the program may have others
            loaded = collectors[name].load(state, records.get((job_id, name), {}))
            states.setdefault(job_id, {})[name] = loaded
    jobs = {
        job_id: SavedJob(
            msgspec.json.decode(job, type=Job), bool(is_new), group, left_at, states.get(job_id, {})
        )
        for job_id, job, is_new, group, left_at in rows(
            "job_id, job, is_new, job_group, left_at",
            "job",
            tuple[str, bytes, int, str | None, float | None],
        )
    }
    return Saved(
        since,
        listed_at,
        {place: Counters.of(*of_place) for place, of_place in counters.items()},
        jobs,
        tuple(
            msgspec.json.decode(failure, type=Failure)
            for (failure,) in rows("failure", "failure", tuple[bytes])
        ),
        {
            job_id: msgspec.json.decode(counted, type=tuple[Counted, ...])
            for job_id, counted in rows("job_id, counted", "recent", tuple[str, bytes])
        },
        tuple((kind, text) for _, kind, text in sorted(spellings)),
        dict(rows("name, seen_at", "job_group", tuple[str, float])),
    )


def _number(value: float) -> float:
    """A number as it was counted: whole ones stay whole, and are exposed without a point."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{value} cannot be a total")
    return int(value) if value.is_integer() else value


def forget_account(connection: sqlite3.Connection, account: str) -> None:
    """Delete all that the file knows of an account."""
    with connection:
        connection.execute("DELETE FROM account WHERE name = ?", (account,))
        for table in (
            *("counter", "job", "state", "record", "failure", "recent", "spelling", "job_group"),
        ):
            connection.execute(f"DELETE FROM {table} WHERE account = ?", (account,))  # noqa: S608


def write(connection: sqlite3.Connection, changes: Changes, collectors: Collectors) -> None:
    """Write what a poll changed; to be called inside a transaction."""
    account = changes.account
    if changes.watched_since is not None:
        row = (account, changes.watched_since, changes.listed_at)
        connection.execute("INSERT OR REPLACE INTO account VALUES (?, ?, ?)", row)
    for owner in changes.forgotten:
        connection.execute(
            "DELETE FROM counter WHERE account = ? AND owner = ?", (account, json.dumps(owner))
        )
        if owner is not None and owner[0] == "job_group":
            query = "DELETE FROM job_group WHERE account = ? AND name = ?"
            connection.execute(query, (account, owner[1]))
    groups = ((account, name, seen_at) for name, seen_at in changes.groups.items())
    connection.executemany("INSERT OR REPLACE INTO job_group VALUES (?,?,?)", groups)
    for change in changes.counters:
        _write_counters(connection, account, change)
    for job_id, job in changes.jobs.items():
        _write_job(connection, account, job_id, job)
    for (job_id, collector), folded in changes.folded.items():
        _write_state(connection, (account, job_id, collector), folded, collectors[collector])
    _write_recent(connection, account, changes.recent)
    if changes.failures:
        _write_failures(connection, account, changes.failures)
    if changes.spellings:
        _write_spellings(connection, account, changes.spellings)


def _write_counters(connection: sqlite3.Connection, account: str, change: CounterChange) -> None:
    owner, collector, counters, keys = change
    rows = (
        (
            *(account, json.dumps(owner), collector, name, json.dumps(labels)),
            _real(counters.totals[name, labels]),
            _real(counters.exposed[name, labels]),
        )
        for name, labels in keys
    )
    connection.executemany("INSERT OR REPLACE INTO counter VALUES (?,?,?,?,?,?,?)", rows)


def _real(value: float) -> float:
    """As the column has it: SQLite takes no whole number beyond 64 bits."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _write_job(
    connection: sqlite3.Connection, account: str, job_id: str, job: SavedJob | None
) -> None:
    if job is None or job.left_at is not None:
        for table in ("job", "state", "record"):
            query = f"DELETE FROM {table} WHERE account = ? AND job_id = ?"  # noqa: S608
            connection.execute(query, (account, job_id))
    if job is not None:
        text = msgspec.json.encode(job.job)
        row = (account, job_id, text, job.is_new, job.group, job.left_at)
        connection.execute("INSERT OR REPLACE INTO job VALUES (?,?,?,?,?,?)", row)


def _write_state(
    connection: sqlite3.Connection,
    key: tuple[str, str, str],
    folded: Folded[Any],
    collector: JobCollector[Any, Any],
) -> None:
    state = collector.dump(folded.state)
    connection.execute("INSERT OR REPLACE INTO state VALUES (?,?,?,?)", (*key, state))
    for name, record in folded.records:
        row = (*key, msgspec.json.encode(name).decode())
        if record is None:
            connection.execute(
                "DELETE FROM record WHERE account=? AND job_id=? AND collector=? AND key=?", row
            )
        else:
            written = (*row, msgspec.json.encode(record))
            connection.execute("INSERT OR REPLACE INTO record VALUES (?,?,?,?,?)", written)


def _write_recent(
    connection: sqlite3.Connection, account: str, recent: Mapping[str, Sequence[Counted]]
) -> None:
    for job_id, counted in recent.items():
        if counted:
            written = (account, job_id, msgspec.json.encode(counted))
            connection.execute("INSERT OR REPLACE INTO recent VALUES (?,?,?)", written)
        else:
            connection.execute("DELETE FROM recent WHERE account=? AND job_id=?", (account, job_id))


def _write_failures(
    connection: sqlite3.Connection, account: str, failures: Iterable[Failure]
) -> None:
    rows = (
        (account, each.time or "", json.dumps(each.key), msgspec.json.encode(each))
        for each in failures
    )
    connection.executemany("INSERT OR REPLACE INTO failure VALUES (?,?,?,?)", rows)
    connection.execute(
        "DELETE FROM failure WHERE account = :a AND time < (SELECT time FROM failure"
        " WHERE account = :a ORDER BY time DESC LIMIT 1 OFFSET :n)",
        {"a": account, "n": LATEST - 1},
    )


def _write_spellings(
    connection: sqlite3.Connection, account: str, spellings: Iterable[Spelling]
) -> None:
    rows = ((account, kind, text) for kind, text in spellings)
    connection.executemany("INSERT OR IGNORE INTO spelling VALUES (?,?,?)", rows)
    connection.execute(
        "DELETE FROM spelling WHERE account = :a AND kind = 'pool' AND rowid < (SELECT rowid"
        " FROM spelling WHERE account = :a AND kind = 'pool'"
        " ORDER BY rowid DESC LIMIT 1 OFFSET :n)",
        {"a": account, "n": MAX_POOLS - 1},
    )
