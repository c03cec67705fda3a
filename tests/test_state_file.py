"""The state file: what is written is read again, and what is wrong with it is told."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

from exporter.config.problems import ConfigError
from exporter.state.counters import Counters
from exporter.state.journal import Changes, Saved, SavedJob, SavedState, StateFile

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
    return Changes("acc", 5.0, ((GROUP, "task_counts", counters, frozenset({KEY})),))


async def reopened(path: Path) -> Saved:
    file = StateFile(path, Health())
    saved = file.load("acc")
    await file.close()
    return saved


async def test_what_was_written_is_known_again(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", Health())
    records = {"n1": b"one", "n2": b"two"}
    job = SavedJob(b"job", True, {"preparation_release": SavedState(b"state", records)})
    await write(file, counting(2, 3), Changes("acc", 7.0, jobs={"a": job, "b": job}))
    changed = {"n2": None, "n3": b"three"}
    newer = SavedJob(b"job", True, {"preparation_release": SavedState(b"newer", changed)})
    await write(file, Changes("acc", jobs={"a": newer, "b": None}), Changes("other", 1.0))
    await file.close()
    saved = await reopened(tmp_path / "s.db")
    assert saved.watched_since == 5.0  # the first time is the one that holds
    assert saved.counters == {(GROUP, "task_counts"): Counters.of({KEY: 5}, {KEY: 5})}
    expected = SavedState(b"newer", {"n1": b"one", "n3": b"three"})
    assert saved.jobs == {"a": SavedJob(b"job", True, {"preparation_release": expected})}


async def test_what_was_not_shown_yet_is_known_not_to_be(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", Health())
    await write(file, counting(4, shown=False))
    await file.close()
    saved = await reopened(tmp_path / "s.db")
    assert saved.counters == {(GROUP, "task_counts"): Counters.of({KEY: 4}, {KEY: 0})}


async def test_counters_of_an_owner_that_is_gone_are_forgotten(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", Health())
    await write(file, counting(4), Changes("acc", forgotten=(GROUP,)))
    await file.close()
    assert (await reopened(tmp_path / "s.db")).counters == {}


async def test_a_job_that_left_is_remembered_without_its_states(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", Health())
    states = {"task_counts": SavedState(b"state", {"n": b"record"})}
    await write(
        file,
        Changes("acc", jobs={"a": SavedJob(b"a", True, states), "b": SavedJob(b"b", True, states)}),
        Changes(
            "acc", jobs={"a": SavedJob(b"a", False, {}, 4e9), "b": SavedJob(b"b", False, {}, 9)}
        ),
    )
    await file.close()
    # That `b` left is a long time ago.
    assert (await reopened(tmp_path / "s.db")).jobs == {"a": SavedJob(b"a", False, {}, 4e9)}


async def test_many_changes_are_written_in_order_and_whole(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", Health())
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


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s.db", Health())
    with pytest.raises(ConfigError, match=r"s\.db: this state file is in use by another process"):
        StateFile(tmp_path / "s.db", Health())
    await file.close()
    await StateFile(tmp_path / "s.db", Health()).close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough\n" * 200, b"short"])
async def test_a_corrupt_file_is_told_put_aside_and_nothing_stops(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, health = tmp_path / "s.db", Health()
    path.write_bytes(content)
    file = StateFile(path, health)
    assert health.told == [False]
    assert file.load("acc") == Saved()
    await write(file, counting(1))
    await file.close()
    (aside,) = tmp_path.glob("s.db.aside-*")
    assert aside.read_bytes() == content
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "it was put aside as" in record.message
    assert (await reopened(path)) == Saved()  # the next start makes a new one


async def test_a_file_of_another_version_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, health = tmp_path / "s.db", Health()
    await StateFile(path, Health()).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    await StateFile(path, health).close()
    assert health.told == [False]
    assert "it is of version 99, this program's is 3" in caplog.text
    assert list(tmp_path.glob("s.db.aside-*"))


async def test_a_place_where_nothing_can_be_written_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health()
    file = StateFile(tmp_path / "no such folder" / "s.db", health)
    await write(file, counting(1))
    await file.close()
    assert health.told == [False]
    assert "unable to open database file" in caplog.text


async def test_a_disk_that_fills_up_is_told_and_everything_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, health = tmp_path / "s.db", Health()
    file = StateFile(path, health)
    await write(file, counting(3))
    assert file._connection is not None
    (pages,) = file._connection.execute("PRAGMA page_count").fetchone()
    file._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = SavedJob(b"x" * 1_000_000, False)
    await write(file, Changes("acc", jobs={"a": large}))
    await asyncio.sleep(0)
    assert health.told == [True, False]
    assert "database or disk is full" in caplog.text
    await write(file, counting(9))  # nothing is written any more, and nobody waits for it
    await file.close()
    # What was written before the disk was full is whole.
    assert (await reopened(path)).counters[GROUP, "task_counts"].totals == {KEY: 3}
