"""Accounts built large: that they are what they say, and that filters find what changes in them."""

import re
from collections import Counter
from datetime import timedelta

import pytest

from exporter.simulator import World, many_jobs, many_records, many_tasks, short_jobs, ticks
from exporter.simulator.ledger import (
    JobCreated,
    JobGone,
    RunCompleted,
    RunRetried,
    TaskAdded,
    TaskCompleted,
    TaskStarted,
)

from .test_ledger import check_counts
from .test_oddities import served
from .test_world import CHECKS, fingerprint

PREPARATION, RELEASE = "jobPreparationTaskExecutionInfo", "jobReleaseTaskExecutionInfo"


def moment(world: World, seconds_ago: float) -> str:
    return f"DateTime'{ticks.timestamp(world.tick - int(seconds_ago * ticks.SECOND))}'"


async def test_of_many_records_a_few_change_each_minute() -> None:
    world = many_records(10_000, changed_per_minute=0.02, ledger=True)
    (job,) = world.jobs.values()
    records = list(job.records.values())
    assert len(records) == len(world.pools["large"].nodes) == 10_000
    assert all(record.preparation.state == "completed" for record in records)
    began = world.tick
    completed = world.ledger.of(RunCompleted)
    assert len(completed) == 10_000
    results = Counter(event.result for event in completed)
    assert 0.02 < results["failure"] / 10_000 < 0.08
    assert world.ledger.of(RunRetried)
    async with served(world) as (client, clock):
        for _ in range(3):
            clock.advance(60)
            world.advance(clock.now())
            since = moment(world, 60)
            path = f"/jobs/{job.id}/jobpreparationandreleasetaskstatus"
            text = f"{PREPARATION}/startTime ge {since} or {PREPARATION}/endTime ge {since}"
            found = await client.items(path, filter=text)
            assert 180 <= len(found) <= 300
            running = await client.items(path, filter=f"{PREPARATION}/state eq 'running'")
            expected = {r.node_id for r in records if r.preparation.state == "running"}
            assert {item["nodeId"] for item in running} == expected
            assert expected
    again = world.ledger.of(RunCompleted, since_tick=began)
    assert 450 < len(again) < 620
    assert job.state == "active"


async def test_a_job_of_many_records_ends_when_told_to() -> None:
    world = many_records(2000, ends_after=10.0, ledger=True)
    (job,) = world.jobs.values()
    async with served(world) as (client, clock):
        clock.advance(12)
        since = moment(world, 0)
        path = f"/jobs/{job.id}/jobpreparationandreleasetaskstatus"
        text = f"{RELEASE}/startTime ge {since} and {RELEASE}/state eq 'running'"
        assert len(await client.items(path, filter=text)) > 500
        assert job.state == "terminating"
        clock.advance(60)
        text = f"{RELEASE}/endTime ge {since}"
        assert len(await client.items(path, filter=text)) > 1900
        assert job.state == "completed"
    releases = [run for run in world.ledger.of(RunCompleted) if run.kind == "release"]
    assert {run.result for run in releases} == {"success", "failure"}


def test_several_jobs_share_their_many_nodes() -> None:
    world = many_records(200, jobs=5, changed_per_minute=0.1, ledger=True)
    assert len(world.jobs) == 5
    nodes = set(world.pools["large"].nodes)
    assert len(nodes) == 200
    assert all(set(job.records) == nodes for job in world.jobs.values())
    began = world.tick
    world.advance(world.now + timedelta(minutes=2))
    again = Counter(run.job_id for run in world.ledger.of(RunCompleted, since_tick=began))
    assert again.keys() == world.jobs.keys()
    assert 100 < again.total() < 300


def test_many_jobs_run_about_a_task_each_for_as_many_minutes_as_they_have_tasks() -> None:
    world = many_jobs(320, tasks=5, ledger=True)
    assert set(world.jobs) == {f"job-{number}" for number in range(1, 321)}
    for _ in range(3):
        counts = [job.task_counts for job in world.jobs.values()]
        assert sum(count.running for count in counts) == 320
        assert all(count.active or count.running for count in counts)
        before = sum(count.completed for count in counts)
        world.advance(world.now + timedelta(minutes=1))
        after = sum(job.task_counts.completed for job in world.jobs.values())
        assert after - before == pytest.approx(270, abs=60)
    check_counts(world)
    for check in CHECKS:
        check(world)
    world.advance(world.now + timedelta(hours=1))
    assert {job.state for job in world.jobs.values()} == {"active"}
    assert all(job.task_counts.completed == 5 for job in world.jobs.values())


async def test_of_many_tasks_a_few_change_each_minute() -> None:
    world = many_tasks(5000, changed_per_minute=0.04, done=0.4, ledger=True)
    (job,) = world.jobs.values()
    assert len(job.tasks) == 5000
    assert job.task_counts.completed == pytest.approx(2000, rel=0.1)
    assert job.task_counts.failed > 0
    began = world.tick
    async with served(world) as (client, clock):
        for _ in range(5):
            clock.advance(60)
            world.advance(clock.now())
            text = f"stateTransitionTime ge {moment(world, 60)} and state eq 'completed'"
            found = await client.items(f"/jobs/{job.id}/tasks", filter=text, select="id")
            assert {item["id"] for item in found} == {
                event.task_id
                for event in world.ledger.of(
                    TaskCompleted, since_tick=world.tick - ticks.MINUTE - 1
                )
            }
    changes = sum(len(world.ledger.of(of, since_tick=began)) for of in (TaskStarted, TaskCompleted))
    assert changes / 5 == pytest.approx(200, rel=0.2)
    check_counts(world)
    for check in CHECKS:
        check(world)
    world.advance(world.now + timedelta(hours=2))
    assert job.state == "completed"
    assert job.task_counts.completed == 5000


def test_short_jobs_come_and_go_in_families() -> None:
    world = short_jobs(100, ledger=True)
    while world.jobs_made < 2000:
        world.advance(world.now + timedelta(seconds=5))
    for check in CHECKS:
        check(world)
    check_counts(world)
    created = {event.job: event for event in world.ledger.of(JobCreated)}
    assert len(created) == world.jobs_made
    families = Counter(
        match[1]
        for event in created.values()
        if (match := re.fullmatch(r"nf-([a-z]+)-\d+", event.job_id))
    )
    assert len(families) == 5
    assert families.total() == world.jobs_made
    tasks = Counter(event.job for event in world.ledger.of(TaskAdded))
    assert set(tasks.values()) == {1, 2, 3, 4, 5}
    lives = sorted(event.tick - created[event.job].tick for event in world.ledger.of(JobGone))
    assert lives[len(lives) // 2] < 20 * ticks.SECOND
    assert len(world.jobs) == pytest.approx(100, abs=15)
    assert {run.kind for run in world.ledger.of(RunCompleted)} == {"preparation", "release"}


def test_they_are_the_same_for_a_seed() -> None:
    for build in (
        lambda: many_records(500),
        lambda: many_records(50, jobs=5),
        lambda: many_jobs(50),
        lambda: many_tasks(500),
        lambda: short_jobs(20),
    ):
        first, second = build(), build()
        first.advance(first.now + timedelta(seconds=90))
        for _ in range(90):
            second.advance(second.now + timedelta(seconds=1))
        assert fingerprint(first) == fingerprint(second)
