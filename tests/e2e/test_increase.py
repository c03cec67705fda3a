"""What Prometheus makes of the counters, whatever befalls the exporter and the jobs."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import resource
from pathlib import Path

import pytest

from exporter.simulator import SCENARIOS
from exporter.simulator.ledger import JobCreated, JobGone, RunCompleted
from tests.e2e.counted import (
    LABELS,
    WINDOW,
    Play,
    metric,
    playing,
    stored,
    truth,
)
from tests.e2e.test_prometheus import STATES, query
from tests.process import limit_files

pytestmark = pytest.mark.full

OBSERVABLE = dataclasses.replace(
    SCENARIOS["flaky-tasks"],
    # The service shows of a node only its latest run: a node that restarts runs preparation again,
    # and one that ended while nobody looked would be overwritten.
    node_incident_interval=1e9,
    # Nor does it tell the counts of two jobs of one id apart: here no id comes back. A completed
    # job stays for a minute at least, much longer than the exporter is ever away.
    pipelines_only=True,
    preparation_share=1.0,
    preparation_failure_share=0.2,
    release_failure_share=0.2,
    tasks_per_job=(10, 60),
)

RESTLESS = dataclasses.replace(
    OBSERVABLE,
    # No job is being deleted when the exporter starts: such a one it does not read.
    warm_up=1.0,
    tasks_per_job=(4, 30),
    task_median=3.0,
    preparation_median=1.0,
    release_share=1.0,
    release_median=1.0,
    job_delete_active_share=1.0,
    job_delete_active_after=(2.0, 20.0),
    # A deleted job is listed for three steps at least after its last release ended.
    job_deletion=(6.0, 8.0),
    job_recreate_share=0.7,
    job_recreate_after=(0.05, 0.5),
    job_recreate_case_share=0.3,
    job_recreate_twice_share=0.3,
)
"""Users delete all jobs while their tasks run, and make most of them again at once."""

IN_GROUP = {"id_regex": ".*", "states": STATES, "group": "all"}

DOWN = 1.0
"""Real seconds for which the exporter is away at least: so many that Prometheus notices."""

KILLS = 2

STEPS, STEP = 12, 2.0
"""Steps, each once all is polled, and world seconds of one."""


async def fill_disk(play: Play) -> None:
    """The state file cannot be written any more."""
    limit_files(play.exporter, 0)
    while not await query(play.api, "azure_batch_exporter_state_file_works == 0"):
        await play.live(0.2)


async def fill_disk_for_a_while(play: Play) -> None:
    """The state file cannot be written, and then again."""
    await fill_disk(play)
    limit_files(play.exporter, resource.RLIM_INFINITY)
    while not await query(play.api, "azure_batch_exporter_state_file_works == 1"):
        await play.live(0.2)


async def test_increase_over_kills_of_the_exporter_is_what_happened(tmp_path: Path) -> None:
    chance = random.Random()
    async with playing(tmp_path, OBSERVABLE, 10, [IN_GROUP]) as play:
        since = play.world.tick
        for number in range(KILLS):
            if number:  # the file that the next process reads was written anew
                await fill_disk_for_a_while(play)
            await play.live(chance.uniform(1.0, 2.5))
            await play.kill()
            await play.live(DOWN)
            await asyncio.gather(play.start(), play.live(0.5))
        await play.live(1.0)
        assert await play.differences((since, None)) == {}

        expected = truth(play.world.ledger, (since, None))
        series = await stored(play.api)
        assert {each.samples[0] for each in series} == {0.0}
        assert sum(each.falls for each in series) == 0
        # Prometheus adds to an increase what it may have been between the edges of the window and
        # the samples next to them: nothing before the first, which is 0, and nothing after the
        # last if that is where the window ends. So this is no estimate.
        ((_, last),) = await query(play.api, "timestamp(azure_batch_up)")
        for name, by in LABELS.items():
            total = f"sum by ({','.join(by)}) (increase({metric(name)}[{WINDOW}]))"
            answer = await query(play.api, total, last)
            found = {frozenset(labels.items()): value for labels, value in answer if value}
            assert found == expected[metric(name)], name
        for kind in ("", "preparation_", "release_"):
            by_code = f"sum(azure_batch_job_{kind}task_failure_codes_total)"
            by_category = f"sum(azure_batch_job_{kind}tasks_failed_total)"
            apart = f"max_over_time(abs({by_code} - {by_category})[{WINDOW}:250ms])"
            assert [value for _, value in await query(play.api, apart, last)] == [0.0]
        # It was seen to be away each time.
        ((_, falls),) = await query(play.api, f"resets(up[{WINDOW}])", last)
        assert falls == KILLS
    assert expected["azure_batch_account_tasks_completed_total"]
    assert expected["azure_batch_job_preparation_tasks_completed_total"]


def damage_file(play: Play) -> None:
    """All but the first bytes of the state file, and of what SQLite keeps beside it, is garbage."""
    for file in play.folder.glob("s.db*"):
        if not file.name.endswith(".lock"):
            with file.open("r+b") as opened:
                opened.seek(100)
                opened.write(b"\xa5" * (file.stat().st_size - 100))


@pytest.mark.parametrize("is_full", [True, False], ids=["full disk", "damaged file"])
async def test_a_state_file_that_is_lost_costs_only_what_happened_before_the_restart(
    is_full: bool, tmp_path: Path
) -> None:
    async with playing(tmp_path, OBSERVABLE, 10, [IN_GROUP]) as play:
        since = play.world.tick
        await play.live(1.0)
        if is_full:
            await fill_disk(play)
            await play.live(1.0)  # it goes on from memory
        assert await play.differences((since, None)) == {}
        killed = play.world.tick
        await play.kill()
        if not is_full:
            damage_file(play)
        await play.live(DOWN)
        await play.start()
        started = await play.all_read()
        await play.live(1.5)
        assert await play.differences((since, killed), (started, None)) == {}

        series = await stored(play.api)
        assert {each.samples[0] for each in series} == {0.0}
        assert {each.falls for each in series} == {0, 1}
        between = truth(play.world.ledger, (killed, started))
        assert between["azure_batch_job_tasks_completed_total"]
        assert any(tmp_path.glob("s.db.aside-*"))


async def test_jobs_that_are_deleted_while_active_and_made_again_are_counted_in_full(
    tmp_path: Path,
) -> None:
    in_group = {"id_regex": "(?i).*[02468]", "states": STATES, "group": "all"}
    async with playing(tmp_path, RESTLESS, 8, [in_group, {"id_regex": ".*"}]) as play:
        since = play.world.tick
        # The header Date has whole seconds: from now on no job is created after the time that the
        # exporter takes for that of a reading.
        play.step(0.25)
        for _ in range(STEPS):
            await play.watch.all_asked()
            play.step(STEP)
        assert await play.differences((since, None)) == {}

        series = await stored(play.api)
        assert {each.samples[0] for each in series} == {0.0}
        assert sum(each.falls for each in series if "job_id" not in each.labels) == 0
    ledger = play.world.ledger
    gone = {event.job: event.job_id.lower() for event in ledger.of(JobGone, since_tick=since)}
    last = {event.job_id.lower(): event.job for event in ledger.of(JobCreated)}
    assert {last[job_id] > job for job, job_id in gone.items()} == {False, True}
    runs = ledger.of(RunCompleted, since_tick=since)
    assert any(run.job in gone for run in runs if run.kind == "release")
