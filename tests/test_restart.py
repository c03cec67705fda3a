"""A service that is killed and started again with its state file counts as one that never was."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.collectors import JOB_COLLECTORS
from exporter.config.shard import WHOLE
from exporter.simulator import SCENARIOS, Clock, World, serve
from exporter.state import database
from exporter.state.account import AccountState
from exporter.state.journal import StateFile
from tests.killable import Exporter
from tests.truth import Series

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


@asynccontextmanager
async def exporters(
    folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, seed: int
) -> AsyncIterator[tuple[Clock, Exporter, Exporter]]:
    """One that is never stopped, and one with a state file."""
    world = World(SCENARIOS["steady"], seed=seed, jobs=6, nodes=4, start=START)
    clock = Clock(START, speed=0.0)
    async with serve(world, clock, simulated_date=True) as simulation:
        monkeypatch.setenv("SIMULATED_KEY", simulation.account_key)
        lasting = Exporter(simulation, clock, folder, group, saves=False)
        killed = Exporter(simulation, clock, folder, group, saves=True)
        await lasting.start()
        await killed.start()
        yield clock, lasting, killed
        await lasting.stop()
        await killed.stop()


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(1, 3))]
)
@pytest.mark.parametrize("group", ["", ", group: all"], ids=["single jobs", "a group"])
async def test_counters_go_on_where_they_stopped(
    group: str, seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    restarts = 0
    highest: Series = {}
    async with exporters(tmp_path, monkeypatch, group, seed) as (clock, lasting, killed):
        for _ in range(25):
            clock.advance(chance.uniform(1.0, 40.0))
            expected = await lasting.round()
            shown = await killed.round()
            for key, value in shown.items():
                # A series of a job that left and came back begins anew, as Prometheus expects.
                if "job_id" not in dict(key[1]):
                    assert value >= highest.get(key, 0), key
                    highest[key] = value
            if chance.random() < 0.4:
                restarts += 1
                clock.advance(chance.uniform(0.0, 20.0))
                await lasting.round()
                await killed.poll()  # perhaps none of this is written
                await killed.kill()
                await killed.start()
        for _ in range(3):  # of what appeared last the 0 is read first, then it is all shown
            expected, shown = await lasting.round(), await killed.round()
        assert shown.keys() == expected.keys()
        for key, value in expected.items():
            if key[0] == "azure_batch_job_tasks_started_total":
                # running + completed falls with a requeue, so that a start may be seen only by
                # who looks between; who was killed before he wrote it down has not looked.
                assert shown[key] <= value
            else:
                assert shown[key] == value, key
        assert restarts >= 5
        of_account = "azure_batch_account_tasks_completed_total"
        assert sum(value for key, value in shown.items() if key[0] == of_account) > 100
        failed = "azure_batch_account_preparation_tasks_failed_total"
        assert sum(value for key, value in shown.items() if key[0] == failed) > 0


async def test_a_file_that_is_written_anew_has_all_that_the_old_one_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with exporters(tmp_path, monkeypatch, ", group: all", 1) as (clock, _, exporter):
        for _ in range(12):
            clock.advance(30.0)
            await exporter.round()
        assert exporter.service is not None
        snapshot = exporter.service.store.snapshot(clock.now().timestamp())
        (account,) = snapshot
        folder = tmp_path / "anew"
        folder.mkdir()
        rest = (JOB_COLLECTORS, WHOLE, 1, 0.0)
        database.write_anew(folder / "state.db", snapshot, *rest).close()
        await exporter.kill()
        known = []
        for path in (tmp_path / "state.db", folder / "state.db"):
            file = StateFile(path, JOB_COLLECTORS, lambda _: None)
            known.append(file.load(account))
            await file.close()
    old, new = known
    living = {name: job for name, job in old.jobs.items() if job.left_at is None}
    assert living and any("tasks" in job.states for job in living.values())
    assert {name: job for name, job in new.jobs.items() if job.left_at is None} == living
    assert new.counters == old.counters
    assert (new.watched_since, new.groups) == (old.watched_since, old.groups)
    assert {each.key: each for each in new.failures} == {each.key: each for each in old.failures}


async def test_of_a_job_that_was_deleted_between_two_runs_of_scrape_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with exporters(tmp_path, monkeypatch, "", seed=1) as (clock, _, exporter):

        async def run() -> AccountState:
            assert exporter.service is not None
            await exporter.service.run_once()
            await exporter.service.settle()
            (state,) = exporter.service.store.accounts.values()
            await exporter.stop()
            await exporter.start()
            return state

        world = exporter.world
        await run()
        jobs = [job for job in world.jobs.values() if job.state == "active"]
        job = next(job for job in jobs if job.id.startswith("nf-"))  # an id that does not come back
        world.delete_job(job.id)
        clock.advance(1800.0)
        world.advance(clock.now())
        assert world.find_job(job.id) is None
        state = await run()
        assert job.id not in state.leaving and (job.id in {each for each, _ in state.left})
