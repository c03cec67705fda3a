"""Reading tasks by changes over many rounds, against the simulator's truth and a full listing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from exporter.batch.auth import SignIns
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.models import Job
from exporter.batch.session import Session
from exporter.batch.transport import Transport
from exporter.collectors import tasks
from exporter.collectors.tasks import JobTasks
from exporter.simulator import SCENARIOS, Clock, Simulation, World, serve
from exporter.state.watched_job import WatchedJob
from tests.test_selection import rule
from tests.test_truth import START, config_of
from tests.truth import seconds

# Busy: tasks fail, are retried and lose their nodes, and the jobs stay.
BUSY = dataclasses.replace(
    SCENARIOS["steady"],
    flaky_job_share=1.0,
    flaky_task_failure_share=0.3,
    tasks_per_job=(150, 250),
    node_incident_interval=60.0,
    job_retention=(100_000.0, 100_001.0),
)
ROUNDS = 40


class Silent:
    """Takes what the client tells."""

    def request_done(self, operation: str, code: str, seconds: float) -> None: ...

    def page_read(self, operation: str, problems: Sequence[str]) -> None: ...


@asynccontextmanager
async def connected(
    simulation: Simulation,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> AsyncIterator[BatchClient]:
    (account,) = config_of(simulation, monkeypatch, tmp_path).accounts
    transport = Transport(
        http=Session(simulation.endpoint),
        auth=SignIns().auth(account),
        budget=Budget(1000.0, lambda _: None),
        observer=Silent(),
        request_timeout=10.0,
    )
    try:
        yield BatchClient(account.endpoint, account.api_version, transport)
    finally:
        await transport.close()


def failures_of(job: Any) -> Counter[tuple[str, str]]:
    return Counter(
        (task.failure.category.lower(), task.failure.code)
        for task in job.tasks.values()
        if task.result == "failure"
    )


def check(state: JobTasks, job: Any) -> None:
    """The state's gauges are the world's."""
    found = job.tasks.values()
    assert state.tasks.failed == failures_of(job)
    created = [task.created for task in found if task.state == "active"]
    started = [task.started for task in found if task.state == "running"]
    assert state.tasks.oldest_active == (seconds(min(created)) if created else None)
    assert state.tasks.oldest_running == (seconds(min(started)) if started else None)
    assert len(state.tasks.latest) == len(found)


class Follower:
    """Reads and folds the tasks of every job of a world, and adds up what that counts."""

    def __init__(self, client: BatchClient, world: World, clock: Clock) -> None:
        self.client = client
        self.world = world
        self.clock = clock
        self.states: dict[str, JobTasks] = {}
        self.counted: Counter[Any] = Counter()
        self.starts: set[tuple[str, str]] = set()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.world.advance(self.clock.now())

    async def poll(self, job: Any) -> tasks.Reading:
        watched = WatchedJob(Job(job.id), rule(id=job.id))
        now = self.clock.now().timestamp()
        state = self.states.get(job.id)
        reading = await tasks.read(self.client, watched, state, now)
        folded = tasks.fold(state, reading, now, True)
        assert folded.events.corrections == 0
        self.states[job.id] = folded.state
        self.counted.update(folded.events.increments)
        self.counted.update(folded.events.observations)
        self.starts |= {
            (job.id, task.id)
            for task in job.tasks.values()
            if task.started is not None and not task.retry_count + task.requeue_count
        }
        check(folded.state, job)
        return reading

    async def check_against_all(self, job: Any) -> None:
        """What is known is what a first full listing gives."""
        reading = await tasks.read(self.client, WatchedJob(Job(job.id), rule(id="x")), None, 0.0)
        assert reading.since is None
        assert tasks.fold(None, reading, 0.0, True).state.tasks == self.states[job.id].tasks

    def check_counts(self) -> None:
        """What was counted on the way is what there is in the end."""
        jobs = list(self.world.jobs.values())
        every = [task for job in jobs for task in job.tasks.values()]
        failed = sum((failures_of(job) for job in jobs), Counter[tuple[str, str]]())
        expected = Counter({(tasks.CODES.name, key): number for key, number in failed.items()})
        for (category, _), number in failed.items():
            expected[tasks.FAILED.name, (category,)] += number
        expected[tasks.RETRIES.name, ()] = sum(task.retry_count for task in every)
        expected[tasks.REQUEUES.name, ()] = sum(task.requeue_count for task in every)
        spans = [
            seconds(task.ended) - seconds(task.started)
            for task in every
            if task.ended is not None and task.started is not None
        ]
        run, wait = tasks.RUN.row.name, tasks.WAIT.row.name
        expected[run, ("_count", "")] = len(spans)
        for bound in tasks.RUN_SECONDS:
            expected[run, ("_bucket", str(bound))] = sum(span <= bound for span in spans)
        expected[wait, ("_count", "")] = len(self.starts)
        assert {key: self.counted[key] for key in expected} == expected
        assert self.counted[run, ("_sum", "")] == pytest.approx(sum(spans), abs=0.01)
        # A story in which nothing happened would prove nothing.
        assert sum(failed.values()) > 50
        assert expected[tasks.RETRIES.name, ()] > 50
        assert expected[tasks.REQUEUES.name, ()] > 10
        assert len(spans) > 200


async def test_reading_by_changes_is_as_good_as_reading_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    world = World(BUSY, seed=11, jobs=5, nodes=6, start=START)
    clock = Clock(START, speed=0.0)
    async with (
        serve(world, clock) as simulation,
        connected(simulation, monkeypatch, tmp_path) as client,
    ):
        follower = Follower(client, world, clock)
        read, there = 0, 0
        for number in range(ROUNDS):
            follower.advance(20.0)
            for job in list(world.jobs.values()):
                is_known = job.id in follower.states
                reading = await follower.poll(job)
                assert (reading.since is not None) == is_known
                if is_known:
                    read += len(reading.ids)
                    there += len(job.tasks)
                if number % 10 == 9:
                    await follower.check_against_all(job)
        assert read < there / 2, (read, there)
        follower.check_counts()


async def test_deleted_tasks_are_found_out_by_the_next_full_listing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    world = World(BUSY, seed=11, jobs=5, nodes=6, start=START)
    clock = Clock(START, speed=0.0)
    async with (
        serve(world, clock) as simulation,
        connected(simulation, monkeypatch, tmp_path) as client,
    ):
        follower = Follower(client, world, clock)
        job = next(job for job in world.jobs.values() if failures_of(job))
        await follower.poll(job)
        before = follower.counted.copy()
        for task in [task for task in job.tasks.values() if task.result == "failure"]:
            del job.tasks[task.id]
        clock.advance(rule(id="x").resync_interval)
        assert (await follower.poll(job)).since is None
        assert all(follower.counted[key] >= number for key, number in before.items())
