"""A state file that cannot be written, or that others change: no old value is ever shown."""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from exporter.batch.models import Job, TaskCountsResult
from exporter.collectors import JOB_COLLECTORS, new_store, tables
from exporter.config import Rule
from exporter.exposition.body import Exposition, Format
from exporter.polling.selection import watch, watch_saved
from exporter.state.journal import StateFile
from exporter.state.saved import Changes, SavedJob
from exporter.state.watched_job import SelectedJobs
from tests.test_counters import counts, job

TOTAL = "azure_batch_account_tasks_completed_total"


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may become larger than the limit, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Process:
    """A store with one job, over a state file."""

    def __init__(self, path: Path, pauses: tuple[float, float] = (0.0, 0.0)) -> None:
        self.path = path
        self.told: list[bool] = []
        self.errors: list[str] = []
        self.file = StateFile(
            *(path, JOB_COLLECTORS, self.told.append),
            on_internal_error=self.errors.append,
            pauses=pauses,
        )
        self.exposition = Exposition(tables())
        self.store = new_store(self.exposition, self.file)
        self.file.snapshot = self.store.snapshot
        rule = Rule(id_regex=".*", group="g", collect=("task_counts",))
        self.store.add_account("acc", self.file.load("acc"), partial(watch_saved, (rule,)))
        self.job = watch(job("a", created=100.0), rule)
        self.store.select("acc", SelectedJobs(), 50.0, 50.0)
        self.store.select("acc", SelectedJobs((self.job,)), 0.0, 0.0)

    async def poll(self, failed: int) -> float:
        """The job has so many failures; gives what is shown of them."""
        reading = msgspec.convert({"taskCounts": counts(0, 0, 0, failed)}, TaskCountsResult)
        state = self.store.outcome("acc", "task_counts", "a").state
        self.store.put_reading("acc", self.job.job, "task_counts", reading, state, 0.0)
        return await self.shown()

    async def shown(self) -> float:
        for _ in range(2):  # a new series is shown as 0 until it is read
            await self.store.all_saved()
            self.store.flush()
            self.store.count_as_read()
        await self.store.all_saved()
        self.store.flush()
        text = self.exposition.body(Format.TEXT).plain.decode()
        (line,) = [line for line in text.splitlines() if TOTAL in line and "failure" in line]
        return float(line.split()[-1])

    async def until_told(self, *told: bool) -> None:
        async with asyncio.timeout(200):
            while self.told != list(told):  # noqa: ASYNC110 - a thread tells it
                await asyncio.sleep(0.01)

    async def killed(self, folder: Path, change: Callable[[Path], None] = lambda _: None) -> float:
        """What the next process shows first, if this one is killed now."""
        shutil.copytree(self.path.parent, folder)
        change(folder / self.path.name)
        after = Process(folder / self.path.name)
        shown = await after.shown()
        await after.file.close()
        return shown


def make_large(process: Process) -> None:
    """So much is to be saved that a full disk has no room for it."""
    large = Job("b", display_name="x" * 100_000)
    process.file.write(Changes("acc", jobs={"b": SavedJob(large, False)}), lambda: None)


async def test_if_the_disk_stays_full_the_next_process_begins_at_0(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    process = Process(tmp_path / "run" / "s.db", pauses=(1e6, 1e6))
    assert await process.poll(failed=1000) == 1000
    with full_disk():
        make_large(process)
        await process.until_told(True, False)
        assert await process.poll(failed=1200) == 1200
    # An old value would look to Prometheus like 1,000 new events.
    assert await process.killed(tmp_path / "killed") == 0
    assert "a restart begins at 0" in caplog.text

    def put_back(path: Path) -> None:  # as if it could not be put aside
        for file in path.parent.glob("s.db.aside-*"):
            file.rename(re.sub(r"\.aside-\d+", "", str(file)))

    assert await process.killed(tmp_path / "put back", put_back) == 0
    assert "it is older than what was shown" in caplog.text
    await process.file.close()


async def test_after_a_full_disk_all_is_in_the_file_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "run").mkdir()
    process = Process(tmp_path / "run" / "s.db")
    assert await process.poll(failed=1000) == 1000
    with full_disk():
        make_large(process)
        await process.until_told(True, False)
        assert await process.poll(failed=1200) == 1200  # counters go on
    await process.until_told(True, False, True)
    assert await process.killed(tmp_path / "again") == 1200
    assert await process.poll(failed=1300) == 1300
    await process.file.close()
    assert await process.killed(tmp_path / "ended") == 1300
    assert not list(process.path.parent.glob("s.db.*aside*"))
    assert not list(process.path.parent.glob("s.db.new*"))
    assert "Counters go on from memory; until it is written anew, nothing is saved" in caplog.text
    assert "state file was written anew" in caplog.text


async def test_what_the_last_try_writes_at_the_end_is_not_lost(tmp_path: Path) -> None:
    process = Process(tmp_path / "run.db", pauses=(1e6, 1e6))
    with full_disk():
        make_large(process)
        await process.until_told(True, False)
        assert await process.poll(failed=7) == 7
    await process.file.close()
    after = Process(tmp_path / "run.db")
    assert await after.shown() == 7
    await after.file.close()


async def test_the_pause_between_two_tries_grows_up_to_its_limit(tmp_path: Path) -> None:
    process = Process(tmp_path / "no folder" / "s.db", pauses=(0.001, 0.004))
    assert await process.poll(failed=3) == 3
    async with asyncio.timeout(200):
        while process.file._pause < 0.004:  # noqa: ASYNC110 - a thread tells it
            await asyncio.sleep(0.001)
    (tmp_path / "no folder").mkdir()
    await process.until_told(False, True)
    assert await process.killed(tmp_path / "again") == 3
    await process.file.close()


async def test_a_file_that_was_removed_is_written_when_the_process_ends(tmp_path: Path) -> None:
    process = Process(tmp_path / "run.db")
    assert await process.poll(failed=7) == 7
    (tmp_path / "run.db").unlink()
    await process.file.close()
    after = Process(tmp_path / "run.db")
    assert await after.shown() == 7
    await after.file.close()


def _remove(path: Path) -> None:
    path.unlink()


def _remove_all(path: Path) -> None:
    for file in path.parent.glob("s.db*"):
        file.unlink()


def _remove_wal(path: Path) -> None:
    path.with_name("s.db-wal").unlink()


def _replace(path: Path) -> None:
    shutil.copy(path, path.with_name("other"))
    path.with_name("other").replace(path)


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


def _cut_wal(path: Path) -> None:
    _cut(path.with_name("s.db-wal"))


@pytest.mark.parametrize(
    "change",
    [_remove, _remove_all, _remove_wal, _replace, _cut, _cut_wal],
    ids=lambda f: f.__name__,
)
async def test_a_file_that_somebody_else_changes_is_written_anew(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    process = Process(tmp_path / "run" / "s.db")
    assert await process.poll(failed=10) == 10
    change(process.path)
    assert await process.poll(failed=12) == 12
    await process.until_told(True, False, True)
    assert await process.killed(tmp_path / "killed") == 12
    await process.file.close()
    assert await process.killed(tmp_path / "ended") == 12


async def test_an_error_that_nobody_foresaw_is_counted_and_survived(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    process = Process(tmp_path / "run" / "s.db")
    assert await process.poll(failed=10) == 10
    odd = SavedJob(Job("\ud800"), True)  # text that no encoder takes
    process.file.write(Changes("acc", jobs={"\ud800": odd}), lambda: None)
    await process.until_told(True, False, True)
    assert process.errors == ["state file"]
    assert await process.poll(failed=12) == 12
    assert await process.killed(tmp_path / "killed") == 12
    await process.file.close()


def _lose_the_end_of_the_wal(path: Path) -> None:
    wal = path.with_name("s.db-wal")
    content = bytearray(wal.read_bytes())
    content[-2000:] = bytes(2000)
    wal.write_bytes(content)


async def test_a_file_that_lacks_what_was_shown_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    process = Process(tmp_path / "run" / "s.db")
    assert await process.poll(failed=1000) == 1000
    backup = sqlite3.connect(tmp_path / "backup")
    assert process.file._connection is not None
    process.file._connection.backup(backup)
    backup.close()
    assert await process.poll(failed=1200) == 1200
    assert await process.killed(tmp_path / "whole") == 1200
    assert await process.killed(tmp_path / "cut", _lose_the_end_of_the_wal) == 0
    assert "it is older than what was shown" in caplog.text

    def restore(path: Path) -> None:
        path.with_name("s.db-wal").unlink()
        shutil.copy(tmp_path / "backup", path)

    assert await process.killed(tmp_path / "older", restore) == 0
    await process.file.close()
