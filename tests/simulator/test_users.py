"""What users do to jobs while others watch: by a scenario, and by hand."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from exporter.simulator import SCENARIOS, Scenario, World, ticks
from exporter.simulator.ledger import (
    JobCreated,
    JobGone,
    JobNotScheduled,
    RunCompleted,
    RunStarted,
    TaskCompleted,
    TaskDeleted,
)
from exporter.simulator.model import Job

from .test_ledger import check_counts
from .test_oddities import served
from .test_world import CHECKS, fingerprint

STEADY = SCENARIOS["steady"]

QUIET = replace(
    STEADY,
    name="quiet",
    node_incident_interval=1e9,
    auto_scale_pools=0,
    task_failure_share=0.0,
    preparation_failure_share=0.0,
    node_start_task_failure_share=0.0,
)
"""Nothing fails and no node goes: what a test does not do does not happen."""


def empty(**settings: object) -> World:
    """An account of idle pools without a job."""
    return World(replace(QUIET, **settings), jobs=0, nodes=4, ledger=True)


def later(world: World, seconds: float) -> None:
    world.advance(world.now + timedelta(seconds=seconds))


def steps(world: World, seconds: float, step: float = 0.25) -> Iterator[None]:
    for _ in range(round(seconds / step)):
        later(world, step)
        yield


# Deleted while active


async def test_an_active_job_that_is_deleted_runs_its_release_tasks_and_is_gone_then() -> None:
    world = empty(task_median=3600.0, release_median=60.0, release_failure_share=1.0)
    job = world.create_job("doomed", tasks=6, preparation=True, release=True)
    later(world, 60)
    assert job.task_counts.running == 6
    prepared = {record.node_id for record in job.records.values()}
    world.delete_job("DOOMED")
    assert (job.state, job.previous_state, job.task_counts.failed) == ("deleting", "active", 6)
    world.delete_job("doomed")  # which changes nothing
    ledger, running = world.ledger, 0
    async with served(world) as (client, clock):
        while True:
            clock.advance(5)
            listed = await client.items("/jobs")
            statuses = {
                (await client.ask(f"/jobs/doomed{path}")).status
                for path in ("", "/taskcounts", "/tasks", "/jobpreparationandreleasetaskstatus")
            }
            if not listed:
                assert statuses == {404}
                break
            assert statuses == {200}
            assert [(item["id"], item["state"]) for item in listed] == [("doomed", "deleting")]
            assert "terminateReason" not in listed[0]["executionInfo"]
            records = await client.items("/jobs/doomed/jobpreparationandreleasetaskstatus")
            releases = [record["jobReleaseTaskExecutionInfo"] for record in records]
            running += any(release["state"] == "running" for release in releases)
    assert running >= 5
    runs = ledger.of(RunCompleted, job=job.number)
    released = [run for run in runs if run.kind == "release"]
    assert {run.node_id for run in released} == prepared
    assert {run.result for run in released} == {"failure"}
    (gone,) = ledger.of(JobGone)
    assert all(run.tick < gone.tick for run in released)
    assert {event.code for event in ledger.of(TaskCompleted)} == {"TaskEnded"}
    assert all(
        not node.tasks and not node.records for node in world.pools[job.pool.id].nodes.values()
    )


def test_release_runs_only_where_preparation_was_completed() -> None:
    world = empty(preparation_median=3600.0, preparation_spread=0.0)
    job = world.create_job("early", tasks=3, preparation=True, release=True)
    later(world, 5)
    world.delete_job("early")
    later(world, 10)
    assert not any(run.kind == "release" for run in world.ledger.of(RunStarted))
    assert {run.code for run in world.ledger.of(RunCompleted)} == {"TaskEnded"}
    assert world.find_job("early") is None
    assert job.task_counts.running == 0


@pytest.mark.parametrize("state", ["disabled", "terminating", "completed"])
def test_a_job_can_be_deleted_in_any_state(state: str) -> None:
    scenario = replace(
        QUIET, job_disable_share=1.0, job_disabled_for=(60.0, 60.0), release_share=1.0,
        preparation_share=1.0, release_median=20.0,
    )  # fmt: skip
    world = World(scenario, jobs=5, nodes=4, ledger=True)
    for _ in steps(world, 600):
        job = next((job for job in world.jobs.values() if job.state == state), None)
        if job is not None:
            break
    assert job is not None
    before = len(world.ledger.of(RunStarted, job=job.number))
    world.delete_job(job.id)
    assert job.state == "deleting"
    for _ in steps(world, 120):
        pass
    assert [gone.job for gone in world.ledger.of(JobGone, job=job.number)] == [job.number]
    started = world.ledger.of(RunStarted, job=job.number)[before:]
    # Of a job that is ending or over, release has begun already.
    assert bool(started) == (state == "disabled" and bool(job.records))


def test_users_delete_active_jobs_where_the_scenario_says_so() -> None:
    scenario = replace(STEADY, job_delete_active_share=0.5, job_delete_active_after=(2.0, 30.0))
    world = World(scenario, seed=3, jobs=12, nodes=8, ledger=True)
    deleted = set[int]()
    for _ in steps(world, 300):
        deleted |= {
            job.number for job in world.jobs.values() if job.state == "deleting" and not job.ended
        }
        for check in CHECKS:
            check(world)
    check_counts(world)
    assert len(deleted) > 5
    released = {run.job for run in world.ledger.of(RunCompleted) if run.kind == "release"}
    assert deleted & released
    assert len(world.jobs) == pytest.approx(12, abs=4)


# Made again


def test_a_job_is_made_again_at_once_by_hand_and_in_another_case() -> None:
    world = empty()
    numbers = []
    for job_id in ("again", "AGAIN", "Again"):
        job = world.create_job(job_id, tasks=2)
        with pytest.raises(ValueError, match="there is a job"):
            world.create_job("aGaIn")
        assert world.find_job("again") is job
        numbers.append(job.number)
        later(world, 1)
        world.delete_job("again")
        for _ in steps(world, 5):
            if world.find_job("again") is None:
                break
    created = world.ledger.of(JobCreated)
    assert [(event.job, event.job_id) for event in created] == [
        (numbers[0], "again"), (numbers[1], "AGAIN"), (numbers[2], "Again"),
    ]  # fmt: skip
    assert len(set(numbers)) == 3
    assert len({event.tick for event in created}) == 3
    assert not world.jobs


def test_users_make_jobs_again_twice_within_seconds_and_in_another_case() -> None:
    scenario = replace(
        STEADY,
        job_delete_active_share=1.0,
        job_deletion=(0.1, 0.5),
        release_share=0.0,
        job_recreate_share=1.0,
        job_recreate_case_share=0.5,
        job_recreate_twice_share=0.5,
        auto_pool_share=0.0,
    )
    world = World(scenario, seed=5, jobs=8, nodes=6, ledger=True)
    for _ in steps(world, 300):
        listed = [job_id.lower() for job_id in world.jobs]
        assert len(set(listed)) == len(listed)
        assert all(world.find_job(job.id.swapcase()) is job for job in world.jobs.values())
    made: dict[str, list[JobCreated]] = {}
    for event in world.ledger.of(JobCreated):
        made.setdefault(event.job_id.lower(), []).append(event)
    spans = [
        (third.tick - first.tick, len({first.job_id, second.job_id, third.job_id}))
        for events in made.values()
        for (first, second), (_, third) in pairwise(pairwise(events))
    ]
    assert min(span for span, _ in spans) < 10 * ticks.SECOND
    assert {spellings for _, spellings in spans} >= {1, 2}


# Short jobs, and many


def test_a_job_may_begin_and_complete_between_two_listings_and_stays_listed() -> None:
    world = World(SCENARIOS["job-storms"], seed=4, jobs=10, nodes=8, ledger=True)
    began = world.tick
    seen_active, seen_completed, most = set[int](), dict[int, Job](), 0
    for _ in steps(world, 600, step=30.0):
        for job in world.jobs.values():
            if job.state == "completed":
                seen_completed[job.number] = job
            else:
                seen_active.add(job.number)
        new = world.ledger.of(JobCreated, since_tick=world.tick - 30 * ticks.SECOND)
        most = max(most, len(new))
    unseen = [
        job
        for number, job in seen_completed.items()
        if number not in seen_active and job.created > began
    ]
    assert len(unseen) > 50
    assert most >= 30
    lives = sorted(job.ended - job.created for job in unseen if job.ended is not None)
    assert lives[len(lives) // 2] < 30 * ticks.SECOND
    results = Counter(
        (run.kind, run.result)
        for job in unseen
        for run in world.ledger.of(RunCompleted, job=job.number)
    )
    assert all(results[kind, "success"] > 5 for kind in ("preparation", "release"))
    assert all(results[kind, "failure"] for kind in ("preparation", "release"))
    assert any(job.task_counts.failed for job in unseen)


def test_a_storm_by_hand_comes_beside_the_jobs_that_are_there() -> None:
    world = empty(job_retention=(3600.0, 3600.0))
    world.storm(50)
    later(world, 10)
    assert len(world.jobs) == 50
    assert {job.created > world.tick - 10 * ticks.SECOND for job in world.jobs.values()} == {True}


# Tasks


@pytest.mark.parametrize("lag", [0.0, 3.0])
def test_tasks_are_deleted_as_they_succeed_and_the_counts_fall(lag: float) -> None:
    scenario = replace(STEADY, succeeded_task_deleted_after=(0.5, 3.0), count_lag=lag)
    world = World(scenario, seed=4, jobs=6, nodes=6, ledger=True)
    fallen = 0
    last: dict[int, int] = {}
    for _ in steps(world, 120, step=1.0):
        for job in world.jobs.values():
            succeeded = job.reported_task_counts.succeeded
            fallen += succeeded < last.get(job.number, 0)
            last[job.number] = succeeded
        for check in CHECKS:
            check(world)
    check_counts(world)
    assert fallen > 20
    ledger = world.ledger
    done = {
        (event.job, event.task_id)
        for event in ledger.of(TaskCompleted)
        if event.result == "success"
    }
    gone = {(event.job, event.task_id) for event in ledger.of(TaskDeleted)}
    assert gone <= done
    assert len(gone) > 100
    assert max(job.task_counts.succeeded for job in world.jobs.values()) < 100


def test_a_task_can_be_ended_and_deleted_by_hand() -> None:
    world = empty(task_median=3600.0)
    job = world.create_job("hand", tasks=3)
    world.add_tasks("hand", 1)
    assert [task.id for task in job.tasks.values()] == [f"task-000{n}" for n in (1, 2, 3, 4)]
    with pytest.raises(ValueError, match="is running"):
        world.delete_task("hand", "task-0001")
    world.complete_task("hand", "TASK-0001")
    world.complete_task("hand", "task-0002", "exit-1")
    with pytest.raises(ValueError, match="is completed"):
        world.complete_task("hand", "task-0002")
    assert (job.task_counts.succeeded, job.task_counts.failed) == (1, 1)
    world.delete_task("hand", "task-0001")
    assert (job.task_counts.succeeded, job.task_counts.failed) == (0, 1)
    world.terminate_job("hand", "Enough")
    later(world, 5)
    assert (job.state, job.terminate_reason) == ("completed", "Enough")
    results = Counter(event.result for event in world.ledger.of(TaskCompleted, job=job.number))
    assert results == {"success": 1, "failure": 3}
    for call in (world.delete_job, world.terminate_job):
        with pytest.raises(ValueError, match="no job none"):
            call("none")


def test_a_job_ends_with_its_last_task_where_it_is_to() -> None:
    world = empty(task_median=1.0)
    jobs = [
        world.create_job("short", tasks=2, ends=True),
        world.create_job("nothing", ends=True),
        world.create_job("open", tasks=2),
    ]
    later(world, 30)
    assert [job.state for job in jobs] == ["completed", "completed", "active"]
    later(world, 600)
    assert list(world.jobs) == ["open"]


# Counts that lag at the end


async def test_a_completed_job_still_says_running_for_as_long_as_counts_lag() -> None:
    world = empty(count_lag=8.0, task_median=20.0, release_median=1.0)
    job = world.create_job("late", tasks=7, ends=True)
    late = 0
    async with served(world) as (client, clock):
        for _ in range(240):
            clock.advance(0.5)
            state = (await client.ask("/jobs/late")).json["state"]
            counts = (await client.ask("/jobs/late/taskcounts")).json["taskCounts"]
            if state == "completed":
                late += counts["running"] > 0
                assert job.ended is not None
                if world.tick - job.ended >= 8 * ticks.SECOND:
                    assert (counts["running"], counts["completed"]) == (0, 7)
                    break
    assert late > 4


# Auto pools that cannot be made


async def test_a_job_whose_auto_pool_cannot_be_made_completes_at_once() -> None:
    scenario = replace(STEADY, auto_pool_share=1.0, auto_pool_failure_share=0.5)
    world = World(scenario, seed=4, jobs=8, nodes=6, ledger=True)
    later(world, 60)
    failed = {event.job: event for event in world.ledger.of(JobNotScheduled)}
    assert len({event.code for event in failed.values()}) > 2
    shown = 0
    async with served(world) as (client, _):
        for item in await client.items("/jobs"):
            job = world.jobs[item["id"]]
            info = item["executionInfo"]
            assert (job.number in failed) == (
                item["state"] in ("completed", "deleting") and "schedulingError" in info
            )
            if job.number not in failed:
                continue
            shown += 1
            error = info["schedulingError"]
            event = failed[job.number]
            assert (error["category"], error["code"]) == (event.category, event.code)
            assert "poolId" not in info and "terminateReason" not in info
            assert info["endTime"]
            assert "poolId" not in item["poolInfo"]
            counts = (await client.ask(f"/jobs/{job.id}/taskcounts")).json["taskCounts"]
            assert counts["active"] > 0 and counts["running"] == 0
            assert not world.ledger.of(TaskCompleted, job=job.number) or counts["failed"]
        pools = {item["id"] for item in await client.items("/pools")}
    assert shown
    assert pools == set(world.pools)
    assert all(pool.made for pool in world.pools.values())


async def test_reasons_of_termination_are_the_documented_ones_and_the_users_own() -> None:
    world = World(SCENARIOS["odd-records"], seed=4, jobs=20, nodes=8)
    reasons = set[str]()
    async with served(world) as (client, clock):
        for _ in range(120):
            clock.advance(10.0)
            for item in await client.items("/jobs", select="executionInfo"):
                reasons.add(item["executionInfo"].get("terminateReason", ""))
    assert reasons > {
        *("AllTasksComplete", "UserTerminate", "JMComplete", "TaskFailed", "TerminateWorkitem"),
        "Stopped by the night shift",
    }


def test_what_users_can_do_changes_nothing_where_they_do_not() -> None:
    tuned: Scenario = replace(
        STEADY, job_delete_active_after=(1.0, 2.0), job_storm_size=(1, 1), job_recreate_after=(9, 9)
    )
    worlds = [World(scenario, seed=2, jobs=6, nodes=4) for scenario in (STEADY, tuned)]
    for world in worlds:
        later(world, 120)
    assert fingerprint(worlds[0]) == fingerprint(worlds[1])
