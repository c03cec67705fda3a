"""The state file: what is written is read again, and what is wrong with it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.batch.models import Job, NameValuePair, Task
from exporter.collectors import JOB_COLLECTORS, new_store, tables, tasks
from exporter.config.problems import ConfigError
from exporter.config.shard import Shard
from exporter.exposition.body import Exposition
from exporter.polling.selection import watch_saved
from exporter.state.collector import Folded
from exporter.state.counters import Counters
from exporter.state.failures import Failure
from exporter.state.journal import StateFile
from exporter.state.saved import Changes, Saved, SavedJob
from tests.state_files import make_version_4
from tools.sample_job import tasks_read

KEY = ("events_total", ("a", 'b"\n'))
GROUP = ("job_group", "nf")


class Health:
    """What a state file said of itself."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def __call__(self, works: bool) -> None:
        self.told.append(works)


async def write(file: StateFile, *changes: Changes) -> None:
    """Write, and wait until it is written."""
    done = asyncio.Event()
    for each in changes:
        file.write(each, done.set)
    await asyncio.wait_for(done.wait(), 200)


def counting(*amounts: float, shown: bool = True) -> Changes:
    counters = Counters()
    for amount in amounts:
        counters = counters.add({KEY: amount})
    if shown:
        counters = counters.add({})
    change = (GROUP, "task_counts", counters, frozenset({KEY}))
    return Changes("acc", 5.0, counters=(change,))


async def reopened(path: Path) -> Saved:
    file = StateFile(path, JOB_COLLECTORS, Health())
    saved = file.load("acc")
    await file.close()
    return saved


JOB = Job("a", state="active", creation_time="2026-01-01T00:00:00Z")


def read_tasks(state: tasks.JobTasks | None, *ids: str) -> Folded[tasks.JobTasks]:
    """A full listing of these tasks."""
    page = tuple(Task(task_id, state="active") for task_id in ids)
    return tasks.fold(state, tasks_read(page), 0.0, True)


def saving(job: SavedJob, folded: Folded[Any]) -> Changes:
    """What one poll of `tasks` changes of a job."""
    return Changes("acc", 7.0, jobs={"a": job}, folded={("a", "tasks"): folded})


async def test_what_was_written_is_known_again(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health())
    job = SavedJob(JOB, True)
    first = read_tasks(None, "n1", "n2")
    await write(file, counting(2, 3), saving(job, first), Changes("acc", jobs={"b": job}))
    newer = read_tasks(first.state, "n1", "n3")
    await write(file, saving(job, newer), Changes("acc", jobs={"b": None}), Changes("other", 1.0))
    await file.close()
    saved = await reopened(tmp_path / "s.db")
    assert saved.watched_since == 7.0
    assert saved.counters == {(GROUP, "task_counts"): Counters.of({KEY: 5}, {KEY: 5})}
    assert saved.jobs == {"a": SavedJob(JOB, True, states={"tasks": newer.state})}
    assert newer.state.tasks.missing.keys() == {"n2"}


async def test_what_was_not_shown_yet_is_known_not_to_be(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health())
    await write(file, counting(4, shown=False))
    await file.close()
    saved = await reopened(tmp_path / "s.db")
    assert saved.counters == {(GROUP, "task_counts"): Counters.of({KEY: 4}, {KEY: 0})}


async def test_counters_of_an_owner_that_is_gone_are_forgotten(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health())
    await write(file, counting(4), Changes("acc", forgotten=(GROUP,)))
    await file.close()
    assert (await reopened(tmp_path / "s.db")).counters == {}


async def test_a_job_that_left_is_remembered_without_its_states(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health())
    await write(file, saving(SavedJob(JOB, True), read_tasks(None, "n")))
    await write(file, Changes("acc", jobs={"a": SavedJob(JOB, False, left_at=4e9)}))
    await file.close()
    assert (await reopened(tmp_path / "s.db")).jobs == {"a": SavedJob(JOB, False, left_at=4e9)}


async def test_many_changes_are_written_in_order_and_whole(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health())
    order: list[int] = []
    done = asyncio.Event()
    counters = Counters()
    for number in range(2000):
        counters = counters.add({KEY: 1})
        changes = Changes("acc", counters=((GROUP, "x", counters, frozenset({KEY})),))
        file.write(changes, lambda number=number: order.append(number))  # type: ignore[misc]
    file.write(Changes("acc"), done.set)
    await asyncio.wait_for(done.wait(), 200)
    await file.close()
    assert order == list(range(2000))
    saved = await reopened(tmp_path / "s.db")
    assert saved.counters[GROUP, "x"].totals == {KEY: 2000}


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory"])
async def test_a_name_that_sqlite_keeps_in_memory_is_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = StateFile(Path(name), JOB_COLLECTORS, Health())
    await write(file, counting(1))
    await file.close()
    assert (tmp_path / name).stat().st_size > 0


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health())
    with pytest.raises(ConfigError, match=r"s\.db: this state file is in use by another process"):
        StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health())
    await file.close()
    await StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health()).close()


async def test_a_second_process_is_refused_although_the_lock_file_was_removed(
    tmp_path: Path,
) -> None:
    path, lock_file, health = tmp_path / "s.db", tmp_path / "s.db.lock", Health()
    file = StateFile(path, JOB_COLLECTORS, health)
    lock_file.unlink()
    with pytest.raises(ConfigError, match="in use by another process"):
        StateFile(path, JOB_COLLECTORS, Health())
    # Also where the file is no longer that of the start.
    file.snapshot = lambda _: {}
    path.unlink()
    await write(file, counting(1))
    await asyncio.wait_for(_works_again(health), 200)
    lock_file.unlink()
    with pytest.raises(ConfigError, match="in use by another process"):
        StateFile(path, JOB_COLLECTORS, Health())
    await file.close()


async def _works_again(health: Health) -> None:
    while health.told != [True, False, True]:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("content", [b"no database at all, but long enough\n" * 200, b"short"])
async def test_a_corrupt_file_is_put_aside_and_a_new_one_is_begun_at_once(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, health = tmp_path / "s.db", Health()
    path.write_bytes(content)
    file = StateFile(path, JOB_COLLECTORS, health)
    assert health.told == [True]
    assert file.load("acc") == Saved()
    await write(file, counting(1))
    await file.close()
    (aside,) = tmp_path.glob("s.db.aside-*")
    assert aside.read_bytes() == content
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "It was put aside as" in record.message
    assert (await reopened(path)).counters[GROUP, "task_counts"].totals == {KEY: 1}


async def test_a_file_of_a_later_version_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, health = tmp_path / "s.db", Health()
    await StateFile(path, JOB_COLLECTORS, Health()).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    await StateFile(path, JOB_COLLECTORS, health).close()
    assert health.told == [True]
    assert "it is of version 99, this program's is 5" in caplog.text
    assert list(tmp_path.glob("s.db.aside-*"))


async def test_a_file_of_version_3_is_migrated(tmp_path: Path) -> None:
    """Its failures were of another shape; all else is as it was."""
    path = tmp_path / "s.db"
    file = StateFile(path, JOB_COLLECTORS, Health())
    await write(file, counting(4))
    await file.close()
    old = {
        "account": "acc",
        "job_id": "a",
        "job_group": "nf",
        "failure": {
            "kind": "task",
            "category": "usererror",
            "code": "FailureExitCode",
            "time": 1767261605.25,
            "task_id": "t",
            "details": [["Message", "exit 3"]],
        },
    }
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "DROP TABLE recent; DROP TABLE spelling; ALTER TABLE account DROP COLUMN listed_at;"
            "DROP TABLE job_group; DROP TABLE written;"
            "DROP TABLE job; CREATE TABLE job (account TEXT, job_id TEXT, job BLOB NOT NULL, is_new"
            " INTEGER NOT NULL, left_at REAL, PRIMARY KEY (account, job_id)) WITHOUT ROWID;"
            "DROP TABLE failure; CREATE TABLE failure (account TEXT, time REAL NOT NULL, key TEXT,"
            " failure BLOB NOT NULL, PRIMARY KEY (account, time, key)) WITHOUT ROWID;"
        )
        row = ("acc", 1767261605.25, "k", json.dumps(old).encode())
        connection.execute("INSERT INTO failure VALUES (?,?,?,?)", row)
        whole = msgspec.structs.replace(JOB, metadata=(NameValuePair("x", "secret"),))
        for job_id, job, left_at in (("a", JOB, None), ("b", whole, 4e9)):
            of_job = ("acc", job_id, msgspec.json.encode(job), 1, left_at)
            connection.execute("INSERT INTO job VALUES (?,?,?,?,?)", of_job)
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    for _ in range(2):  # migrated, and then as it is
        saved = await reopened(path)
        assert saved.counters[GROUP, "task_counts"].totals == {KEY: 4}
        left = Job("b", creation_time=JOB.creation_time)  # with nothing else of it
        assert saved.jobs == {"a": SavedJob(JOB, True), "b": SavedJob(left, True, left_at=4e9)}
        (failure,) = saved.failures
        assert (failure.job_id, failure.job_group, failure.time) == (
            *("a", "nf"),
            "2026-01-01T10:00:05.250Z",
        )
        assert failure.details == (NameValuePair("Message", "exit 3"),)


async def test_a_file_of_version_4_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    file = StateFile(path, JOB_COLLECTORS, Health())
    first = read_tasks(None, "n1")
    await write(file, counting(4), saving(SavedJob(JOB, True, "nf"), first))
    await file.close()
    make_version_4(path, shard=(1, 3))
    shard = next(shard for shard in (Shard(n, 3) for n in range(3)) if shard.owns("acc", "a"))
    for each in (Shard(1, 3), shard):
        file = StateFile(path, JOB_COLLECTORS, Health(), each)
        saved = file.load("acc")
        await file.close()
        assert saved.counters[GROUP, "task_counts"].totals == {KEY: 4}
        # As it is written by this shard, all of its jobs are taken over.
        assert saved.jobs == {"a": SavedJob(JOB, True, "nf", states={"tasks": first.state})}
        assert (saved.watched_since is None) == (each != Shard(1, 3))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with something in each table."""
    path = tmp_path_factory.mktemp("filled") / "s.db"

    async def fill() -> None:
        file = StateFile(path, JOB_COLLECTORS, Health())
        state = None
        for number in range(30):
            folded = read_tasks(state, *(f"n{task}" for task in range(number)))
            state = folded.state
            await write(file, counting(number), saving(SavedJob(JOB, True), folded))
        failed = Failure("acc", "a", "task", "usererror", "x", time="2026", task_id="t")
        await write(file, Changes("acc", failures=[failed]))
        await file.close()

    asyncio.run(fill())
    return path.read_bytes()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_is_damaged_the_process_starts_and_saves(
    data: st.DataObject, filled: bytes, tmp_path: Path
) -> None:
    """Any bytes of the file may be other ones, and any part of it may be missing."""
    content = bytearray(filled)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        junk = data.draw(st.binary(min_size=1, max_size=40))
        content[start : start + len(junk)] = junk
    if data.draw(st.integers(0, 9)) == 0:
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "s.db"
    for file in tmp_path.iterdir():
        file.unlink()
    path.write_bytes(content)

    async def start() -> None:
        for _ in range(2):
            file = StateFile(path, JOB_COLLECTORS, Health())
            store = new_store(Exposition(tables()), file)
            store.add_account("acc", file.load("acc"), partial(watch_saved, ()))
            await write(file, counting(1))
            await file.close()

    asyncio.run(start())


async def test_an_error_that_nobody_foresaw_stops_saving_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health()
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, health)
    odd = SavedJob(Job("\ud800"), True)  # text that no encoder takes
    await write(file, counting(1), Changes("acc", jobs={"\ud800": odd}))
    await asyncio.sleep(0)
    assert health.told == [True, False]
    assert "cannot be written" in caplog.text
    await write(file, counting(2))  # what waits for it is still called
    await file.close()


async def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.touch(0o666)
    path.chmod(0o666)
    file = StateFile(path, JOB_COLLECTORS, Health())
    await write(file, counting(1))
    found = sorted(tmp_path.glob("s.db*"))
    assert {each.name for each in found} >= {"s.db", "s.db-wal"}
    modes = {
        each.name: oct(each.stat().st_mode & 0o777) for each in found if "lock" not in each.name
    }
    assert set(modes.values()) == {"0o600"}, modes
    await file.close()
    path.write_bytes(b"damaged")
    path.chmod(0o644)
    await StateFile(path, JOB_COLLECTORS, Health()).close()
    (aside,) = tmp_path.glob("s.db.aside-*")
    assert aside.stat().st_mode & 0o777 == 0o600


async def test_a_place_where_nothing_can_be_written_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health()
    file = StateFile(tmp_path / "no such folder" / "s.db", JOB_COLLECTORS, health)
    await write(file, counting(1))
    await file.close()
    assert health.told == [False]
    assert "state file cannot be used ([Errno 2] No such file" in caplog.text


async def test_a_disk_that_fills_up_is_told_and_everything_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, health = tmp_path / "s.db", Health()
    file = StateFile(path, JOB_COLLECTORS, health)
    await write(file, counting(3))
    assert file._connection is not None
    (pages,) = file._connection.execute("PRAGMA page_count").fetchone()
    file._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = SavedJob(Job("a", display_name="x" * 1_000_000), False)
    await write(file, Changes("acc", jobs={"a": large}))
    await asyncio.sleep(0)
    assert health.told == [True, False]
    assert "database or disk is full" in caplog.text
    await write(file, counting(9))  # nothing is written any more, and nobody waits for it
    await file.close()
    # The next start begins at 0: an old value would look to Prometheus like new events.
    assert (await reopened(path)) == Saved()
    assert list(tmp_path.glob("s.db.aside-*"))


@pytest.mark.parametrize("total", [-5.0, math.inf, "3", None])
async def test_a_total_that_cannot_be_is_damage(total: Any, tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", JOB_COLLECTORS, Health())
    await write(file, counting(3))
    await file.close()
    with sqlite3.connect(tmp_path / "s.db") as connection, contextlib.suppress(sqlite3.Error):
        connection.execute("UPDATE counter SET total = ?", (total,))
    connection.close()
    assert (await reopened(tmp_path / "s.db")).counters in (
        {},
        {(GROUP, "task_counts"): Counters.of({KEY: 3}, {KEY: 3})},  # SQLite itself refused it
    )


async def test_a_path_that_cannot_be_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health()
    await StateFile(tmp_path / "a\0b", JOB_COLLECTORS, health).close()
    assert health.told == [False]
    assert "state file cannot be used (embedded null byte)" in caplog.text
