"""What a scenario can make the account do to those who watch it; each alone, over HTTP."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from exporter.simulator import SCENARIOS, Clock, Scenario, World, serve, ticks
from exporter.simulator.counts import Counts
from exporter.simulator.ledger import (
    CountsCorrected,
    CountsRaised,
    JobCreated,
    JobGone,
    TaskDeleted,
)
from exporter.simulator.model import Job

from .conftest import BatchClient
from .test_ledger import check_counts
from .test_world import CHECKS, fingerprint, records_of, tasks_of

STEADY = SCENARIOS["steady"]
RECORDS = "jobpreparationandreleasetaskstatus"


@asynccontextmanager
async def served(world: World) -> AsyncIterator[tuple[BatchClient, Clock]]:
    clock = Clock(world.now, speed=0)
    async with serve(world, clock) as simulation, aiohttp.ClientSession() as session:
        yield BatchClient(simulation, session), clock


async def answered(client: BatchClient, job: Job) -> Counts | None:
    """The task counts that the service answers; None where the job is gone."""
    reply = await client.ask(f"/jobs/{job.id}/taskcounts")
    if reply.status == 404:
        return None
    counts, slots = reply.json["taskCounts"], reply.json["taskSlotCounts"]
    assert counts["completed"] == counts["succeeded"] + counts["failed"]
    assert slots["completed"] == job.reported_task_slot_counts.completed
    return Counts(counts["active"], counts["running"], counts["succeeded"], counts["failed"])


def test_steady_has_none_of_them() -> None:
    names = [field.name for field in fields(Scenario)]
    for name in names[names.index("count_lag") :]:
        value = getattr(STEADY, name)
        tuning = name.endswith(("_size", "_after", "_failed_share", "_length", "tasks_deleted"))
        assert tuning or not any(value if isinstance(value, tuple) else (value,)), name
    world = World(STEADY, seed=2, jobs=5, nodes=4)
    for job in world.jobs.values():
        assert job.reported_task_counts == job.task_counts
        assert job.reported_task_slot_counts == job.task_slot_counts
    assert all(world.index.seen(task) is task for task in tasks_of(world))


async def test_counts_go_too_high_and_fall_back() -> None:
    scenario = replace(STEADY, count_correction_interval=30.0, count_correction_after=(10.0, 20.0))
    world = World(scenario, seed=4, jobs=6, nodes=6, ledger=True)
    plain = World(STEADY, seed=4, jobs=6, nodes=6)
    wrong = fallen = 0
    last: dict[int, int] = {}
    async with served(world) as (client, clock):
        for _ in range(60):
            clock.advance(2.0)
            for job in list(world.jobs.values()):
                counts = await answered(client, job)
                if counts is None:
                    continue
                raised = Counter[str]()
                for raising in world.ledger.of(CountsRaised, job=job.number):
                    raised[raising.result] += raising.by
                for correction in world.ledger.of(CountsCorrected, job=job.number):
                    raised[correction.result] -= correction.by
                true = job.task_counts
                assert counts == job.reported_task_counts
                assert counts.succeeded == true.succeeded + raised["success"]
                assert counts.failed == true.failed + raised["failure"]
                assert (counts.active, counts.running) == (true.active, true.running)
                wrong += counts != true
                fallen += counts.completed < last.get(job.number, 0)
                last[job.number] = counts.completed
    assert wrong > 10
    assert fallen > 3
    assert {event.result for event in world.ledger.of(CountsCorrected)} == {"success", "failure"}
    plain.advance(world.now)
    assert fingerprint(plain) == fingerprint(world), "only the answers differ"


async def test_counts_are_answered_late() -> None:
    world = World(replace(STEADY, count_lag=4.0), seed=4, jobs=6, nodes=6)
    history: list[dict[int, Counts]] = []
    late = 0
    async with served(world) as (client, clock):
        for _ in range(40):
            clock.advance(1.0)
            world.advance(clock.now())
            history.append({job.number: job.task_counts for job in world.jobs.values()})
            if len(history) < 5:
                continue
            for job in list(world.jobs.values()):
                counts = await answered(client, job)
                assert counts == history[-5].get(job.number, Counts(0, 0, 0, 0))
                late += counts != job.task_counts
    assert late > 20


async def listed(client: BatchClient, job: Job, what: str, filter: str = "") -> list[Any]:
    query = {"filter": filter} if filter else {}
    return await client.items(f"/jobs/{job.id}/{what}", **query)


async def test_filters_on_times_see_changes_late() -> None:
    world = World(replace(STEADY, index_lag=5.0), seed=3, jobs=5, nodes=6)
    earlier: list[tuple[int, dict[int, dict[str, int]], dict[int, dict[str, int]]]] = []
    behind = ahead = 0
    async with served(world) as (client, clock):
        for _ in range(25):
            clock.advance(1.0)
            world.advance(clock.now())
            jobs = [job for job in world.jobs.values() if job.preparation is not None]
            earlier.append(
                (
                    world.tick,
                    {
                        job.number: {r.node_id: r.preparation.started for r in job.records.values()}
                        for job in jobs
                    },
                    {
                        job.number: {task.id: task.state_changed for task in job.tasks.values()}
                        for job in jobs
                    },
                )
            )
            if len(earlier) < 6:
                continue
            _, records, tasks = earlier[-6]
            since = world.tick - 40 * ticks.SECOND
            moment = f"ge DateTime'{ticks.timestamp(since)}'"
            for job in jobs:
                text = f"jobPreparationTaskExecutionInfo/startTime {moment}"
                found = {item["nodeId"] for item in await listed(client, job, RECORDS, text)}
                known = {node for node, at in records.get(job.number, {}).items() if at >= since}
                assert found == known
                now = {r.node_id for r in job.records.values() if r.preparation.started >= since}
                behind += len(now - found)
                everything = {item["nodeId"] for item in await listed(client, job, RECORDS)}
                assert everything == job.records.keys()
                text = f"stateTransitionTime {moment}"
                seen = {item["id"]: item for item in await listed(client, job, "tasks", text)}
                assert seen.keys() == {
                    task for task, at in tasks.get(job.number, {}).items() if at >= since
                }
                for task_id, item in seen.items():
                    # What is found is shown as it is.
                    changed = job.tasks[task_id].state_changed
                    assert item["stateTransitionTime"] == ticks.timestamp(changed)
                    ahead += changed > tasks[job.number][task_id]
                at_once = await listed(client, job, "tasks", "state eq 'running'")
                assert {item["id"] for item in at_once} == {
                    task.id for task in job.tasks.values() if task.state == "running"
                }
    assert behind > 5
    assert ahead > 5


def test_a_late_index_forgets_what_it_has_learnt() -> None:
    world = World(replace(STEADY, index_lag=5.0), seed=3, jobs=5, nodes=6)
    held = world.index._earlier
    assert 0 < len(held) < len(tasks_of(world)) + len(records_of(world))
    world.advance(world.now + timedelta(minutes=2))
    oldest = min(changes[0][0] for changes in held.values())
    assert world.tick - oldest < 6 * ticks.SECOND


def test_nodes_clocks_differ_from_the_services() -> None:
    world = World(replace(STEADY, clock_skew=(-20.0, 30.0)), seed=5, jobs=20, nodes=8, ledger=True)
    for check in CHECKS:
        check(world)
    skews = {node.clock_skew for pool in world.pools.values() for node in pool.nodes.values()}
    assert len(skews) > 15
    assert -20 * ticks.SECOND <= min(skews) < -10 * ticks.SECOND
    assert 20 * ticks.SECOND < max(skews) <= 30 * ticks.SECOND
    for record in records_of(world):
        for run in (record.preparation, record.release):
            assert run is None or run.ended is None or run.ended >= run.started
    completed = [task for task in tasks_of(world) if task.started is not None and task.ended]
    for task in completed:
        assert task.node is not None
        assert task.ended == task.state_changed + task.node.clock_skew
        assert task.started is not None
        assert task.started <= task.ended
    assert any(task.started < task.created for task in completed if task.started is not None)


def test_completed_tasks_are_deleted() -> None:
    scenario = replace(STEADY, task_deletion_interval=5.0, auto_scale_pools=0)
    world = World(scenario, seed=5, jobs=10, nodes=8, ledger=True)
    fell = 0
    before: dict[int, int] = {}
    for _ in range(60):
        world.advance(world.now + timedelta(seconds=2))
        for check in CHECKS:
            check(world)
        for job in world.jobs.values():
            numbers = [task.number for task in job.tasks.values()]
            assert numbers == sorted(set(numbers))
            fell += job.task_counts.completed < before.get(job.number, 0)
            before[job.number] = job.task_counts.completed
    check_counts(world)
    assert fell > 20
    deleted = world.ledger.of(TaskDeleted)
    assert {event.result for event in deleted} == {"success", "failure"}
    for event in deleted:
        job_now = next((job for job in world.jobs.values() if job.number == event.job), None)
        assert job_now is None or event.task_id not in job_now.tasks


def test_jobs_come_back_under_their_ids() -> None:
    scenario = replace(STEADY, job_recreate_share=1.0, job_retention=(5.0, 10.0))
    world = World(scenario, seed=5, jobs=10, nodes=8, ledger=True)
    world.advance(world.now + timedelta(seconds=200))
    created = {event.job: event for event in world.ledger.of(JobCreated)}
    gone = world.ledger.of(JobGone)
    assert len(gone) > 10
    for event in gone:
        again = [
            other
            for other in created.values()
            if other.job_id == event.job_id and other.job > event.job
        ]
        assert again or world.tick - event.tick <= ticks.SECOND // 4
        if again:
            assert 0 < again[0].tick - event.tick <= ticks.SECOND
    for job in world.jobs.values():
        assert job.created == created[job.number].tick
    for check in CHECKS:
        check(world)


async def pages_of(client: BatchClient, job: Job, size: int) -> list[list[str]]:
    reply = await client.ask(f"/jobs/{job.id}/tasks", maxresults=size, select="id")
    pages = [[item["id"] for item in reply.json["value"]]]
    while link := reply.json.get("odata.nextLink"):
        reply = await client.get(link)
        pages.append([item["id"] for item in reply.json["value"]])
    return pages


def largest(world: World) -> Job:
    return max(world.jobs.values(), key=lambda job: len(job.tasks))


async def test_each_listing_has_an_order_of_its_own() -> None:
    scenario = replace(STEADY, shuffled_lists=True)
    orders = []
    for _ in range(2):
        world = World(scenario, seed=5, jobs=10, nodes=8)
        job = largest(world)
        async with served(world) as (client, _clock):
            listings = [
                [task for page in await pages_of(client, job, 17) for task in page]
                for _ in range(3)
            ]
        for listing in listings:
            assert sorted(listing) == sorted(job.tasks)
            assert listing != list(job.tasks)
        assert listings[0] != listings[1] != listings[2]
        orders.append(listings)
    assert orders[0] == orders[1], "the same seed gives the same orders"


async def test_a_shuffled_listing_has_all_that_stays_once() -> None:
    world = World(replace(STEADY, shuffled_lists=True), seed=4, jobs=30, nodes=8)
    async with served(world) as (client, clock):
        first = set(world.jobs.values())
        reply = await client.ask("/jobs", maxresults=3)
        found = [item["id"] for item in reply.json["value"]]
        while link := reply.json.get("odata.nextLink"):
            clock.advance(10)
            reply = await client.get(link)
            found += [item["id"] for item in reply.json["value"]]
    stayed = {job.id for job in first & set(world.jobs.values())}
    assert stayed
    assert all(found.count(job_id) == 1 for job_id in stayed)


@pytest.mark.parametrize("shuffled", [False, True])
async def test_entities_stand_on_two_pages(shuffled: bool) -> None:
    world = World(replace(STEADY, repeat_share=0.2, shuffled_lists=shuffled), jobs=10, nodes=8)
    job = largest(world)
    async with served(world) as (client, _):
        pages = await pages_of(client, job, 10)
        alone = await pages_of(client, job, 1)
    assert {task for page in pages for task in page} == job.tasks.keys()
    for page, following in pairwise(pages):
        assert page[-2:] == following[:2]
    assert sorted(task for page in alone for task in page) == sorted(job.tasks)


async def test_a_page_has_no_more_than_the_scenario_allows() -> None:
    world = World(replace(STEADY, page_size=10), jobs=10, nodes=8)
    job = largest(world)
    async with served(world) as (client, _clock):
        pages = await pages_of(client, job, 1000)
        assert [task for page in pages for task in page] == list(job.tasks)
        assert {len(page) for page in pages[:-1]} == {10}
        assert {len(page) for page in (await pages_of(client, job, 7))[:-1]} == {7}


def test_the_same_seed_gives_the_same_oddities() -> None:
    scenario = replace(
        STEADY,
        count_lag=3.0,
        count_correction_interval=20.0,
        index_lag=4.0,
        clock_skew=(-5.0, 5.0),
        task_deletion_interval=10.0,
        job_recreate_share=0.5,
    )
    strides, leap = (World(scenario, seed=3, jobs=8, nodes=5, ledger=True) for _ in range(2))
    leap.advance(leap.now + timedelta(seconds=120))
    while strides.now < leap.now:
        strides.advance(strides.now + timedelta(seconds=0.5))
        for job in strides.jobs.values():
            assert job.reported_task_counts.completed >= 0
    assert fingerprint(strides) == fingerprint(leap)
    assert strides.ledger.events == leap.ledger.events
    assert [job.reported_task_counts for job in strides.jobs.values()] == [
        job.reported_task_counts for job in leap.jobs.values()
    ]
