"""Accounts of a size that would take too long to live through: for benchmarks and long tests.

They are worlds as any other, of a seed and with a ledger if wanted; only how they begin differs.
"""

from dataclasses import replace
from datetime import datetime
from functools import partial
from math import ceil, exp

from exporter.simulator import job_creation, job_life, node_life, preparation, task_life
from exporter.simulator.model import Job, NodeRecord, Pool
from exporter.simulator.naming import JobName
from exporter.simulator.scenario import FOR_EVER, Scenario
from exporter.simulator.schedule import join_round
from exporter.simulator.state import State
from exporter.simulator.ticks import SECOND
from exporter.simulator.world import DEFAULT_START, World

_ONE_JOB = Scenario(
    name="one-job",
    summary="One large job on one pool that stays as it is.",
    job_retention=FOR_EVER,
    display_name_share=0.0,
    flaky_job_share=0.0,
)

MANY_RECORDS = replace(
    _ONE_JOB,
    name="many-records",
    summary="One job that was prepared on very many nodes.",
    warm_up=6 * 3600.0,
    preparation_share=1.0,
    release_share=1.0,
    preparation_median=20.0,
)

MANY_JOBS = replace(
    _ONE_JOB,
    name="many-jobs",
    summary="Very many jobs on one pool, of which each has a task running or waiting.",
    warm_up=60.0,
    preparation_share=1.0,
    release_share=1.0,
    required_slots=((1, 1.0),),
    slots_per_node=(16,),
    task_median=60.0,
)

MANY_TASKS = replace(
    _ONE_JOB,
    name="many-tasks",
    summary="One job of very many tasks.",
    preparation_share=0.0,
    required_slots=((1, 1.0),),
    slots_per_node=(16,),
    task_median=60.0,
)

SHORT_JOBS = Scenario(
    name="short-jobs",
    summary="Very many jobs of five pipelines, of few tasks each, that live for some seconds.",
    warm_up=60.0,
    pipelines_only=True,
    slots_per_job=5.0,
    auto_pool_share=0.0,
    tasks_per_job=(1, 5),
    later_tasks_share=0.0,
    task_median=3.0,
    job_arrival_delay=(0.1, 1.0),
    job_retention=(1.0, 5.0),
    job_deletion=(0.1, 1.0),
    job_disable_share=0.0,
    job_terminate_share=0.0,
    preparation_share=0.3,
    preparation_median=1.0,
    release_median=1.0,
)


def many_records(
    records: int = 100_000,
    *,
    jobs: int = 1,
    changed_per_minute: float = 0.01,
    ends_after: float | None = None,
    scenario: Scenario = MANY_RECORDS,
    seed: int = 1,
    start: datetime = DEFAULT_START,
    ledger: bool = False,
) -> World:
    """A world with one job and a preparation record for each of so many nodes.

    The records came evenly over the warm-up. From `start` on this share of them is prepared
    again each minute; `ends_after` so many seconds the job ends and is released everywhere.
    With several `jobs` each of them has a record for every one of the nodes.
    """
    found = partial(
        _found_records,
        records=records,
        jobs=jobs,
        share=changed_per_minute,
        ends_after=ends_after,
    )
    return World(scenario, seed=seed, jobs=0, nodes=0, start=start, ledger=ledger, found=found)


def many_tasks(
    tasks: int = 100_000,
    *,
    changed_per_minute: float = 0.02,
    done: float = 0.5,
    scenario: Scenario = MANY_TASKS,
    seed: int = 1,
    start: datetime = DEFAULT_START,
    ledger: bool = False,
) -> World:
    """A world with one job of so many tasks, about the share `done` of them completed.

    This share changes state each minute, half of them starting and half of them ending, until
    none is left.
    """
    per_minute = tasks * changed_per_minute / 2
    task_mean = scenario.task_median * exp(scenario.task_spread**2 / 2)  # of log-normal ones
    slots = ceil(per_minute * task_mean / 60.0)
    scenario = replace(scenario, warm_up=60.0 * tasks * done / per_minute)
    found = partial(_found_tasks, tasks=tasks, nodes=ceil(slots / scenario.slots_per_node[0]))
    return World(scenario, seed=seed, jobs=0, nodes=0, start=start, ledger=ledger, found=found)


def many_jobs(
    jobs: int = 10_000,
    *,
    tasks: int = 10,
    scenario: Scenario = MANY_JOBS,
    seed: int = 1,
    start: datetime = DEFAULT_START,
    ledger: bool = False,
) -> World:
    """A world with so many jobs that never end, each of so many tasks; ids are `job-<number>`.

    About one task of each runs at any time, until there are none left: after as many minutes or
    so. Where jobs are prepared, that is on the few nodes that their tasks come to.
    """
    found = partial(_found_jobs, jobs=jobs, tasks=tasks)
    return World(scenario, seed=seed, jobs=0, nodes=0, start=start, ledger=ledger, found=found)


def short_jobs(
    alive: int = 200,
    *,
    scenario: Scenario = SHORT_JOBS,
    seed: int = 1,
    start: datetime = DEFAULT_START,
    ledger: bool = False,
) -> World:
    """A world with about so many jobs at any time, each gone after some ten seconds.

    Their ids are `nf-<pipeline>-<number>`; `World.jobs_made` says how many there have been.
    """
    return World(scenario, seed=seed, jobs=alive, nodes=16, start=start, ledger=ledger)


def _found_job(state: State, pool: Pool, number: int = 1, prefix: str = "large") -> Job:
    name = JobName(f"{prefix}-{number}", prefix.title(), "task")
    return job_creation.new_job(state, name, pool, auto_pool=False)


def _found_pool(state: State) -> Pool:
    return node_life.new_pool(state, pool_id="large", nodes=0, auto_pool=False, auto_scale=False)


def _found_records(
    state: State, *, records: int, jobs: int, share: float, ends_after: float | None
) -> None:
    pool = _found_pool(state)
    found = [_found_job(state, pool, number) for number in range(1, jobs + 1)]
    for job in found:
        job.tasks_to_come = 1  # lest it ends for want of tasks
    before = int(state.scenario.warm_up * SECOND)
    # The last has time enough to be prepared before the start.
    for number in range(records):
        delay = int(before * 0.99 * number / records)
        state.agenda.after(delay, _prepare_another, state, found)
    for job in found:
        per_second = records * share / 60.0
        state.agenda.after(before + SECOND, _prepare_again, state, job, [], per_second, 0.0)
        if ends_after is not None:
            state.agenda.after(before + int(ends_after * SECOND), job_life.end_by_user, state, job)


def _prepare_another(state: State, jobs: list[Job]) -> None:
    node = node_life.add_ready_node(state, jobs[0].pool)
    for job in jobs:
        preparation.prepare_node(state, job, node)


def _prepare_again(
    state: State, job: Job, records: list[NodeRecord], per_second: float, due: float
) -> None:
    """Every second some of the nodes come back from a reimage and are prepared at once."""
    if job.state != "active":
        return
    records = records or list(job.records.values())
    due += per_second
    for record in state.random.sample(records, int(due)):
        if not record.in_flight:
            record.blocked = False
            preparation.rerun(state, record)
    state.agenda.after(SECOND, _prepare_again, state, job, records, per_second, due % 1.0)


def _found_jobs(state: State, *, jobs: int, tasks: int) -> None:
    pool = _found_pool(state)
    for _ in range(ceil(jobs / pool.slots_per_node)):
        node_life.add_ready_node(state, pool)
    found = [_found_job(state, pool, number, "job") for number in range(1, jobs + 1)]
    for job in found:
        job.tasks_to_come = 1  # lest it ends with its last task
    state.agenda.after(0, _submit, state, found, tasks)


def _found_tasks(state: State, *, tasks: int, nodes: int) -> None:
    pool = _found_pool(state)
    for _ in range(nodes):
        node_life.add_ready_node(state, pool)
    job = _found_job(state, pool)
    job.on_all_tasks_complete = "terminatejob"
    state.agenda.after(0, _submit, state, [job], tasks)


def _submit(state: State, jobs: list[Job], tasks: int) -> None:
    ids = [f"task-{number:06d}" for number in range(1, tasks + 1)]
    for job in jobs:
        task_life.add_tasks(state, job, ids)
        join_round(job)
