"""A job's life: it arrives with tasks, is disabled for a while, ends, releases, is deleted."""

from uuid import UUID

from exporter.simulator import node_life, oddities, preparation, task_life
from exporter.simulator.counts import ACTIVE, RUNNING
from exporter.simulator.failure_texts import ENDED_BY_TIME_LIMIT, ENDED_BY_USER, FailureKind
from exporter.simulator.ledger import JobCreated, JobGone
from exporter.simulator.model import Job, Pool, PreparationTask, ReleaseTask
from exporter.simulator.naming import JobName, job_metadata, job_name, pipeline_job_name
from exporter.simulator.schedule import join_round
from exporter.simulator.state import State
from exporter.simulator.ticks import SECOND


def arrive(state: State, name: JobName | None = None) -> None:
    """A user submits a job, by this name or another, with its tasks; some may follow later."""
    scenario, random = state.scenario, state.random
    if name is None or name.id in state.jobs:
        name = _new_name(state)
    auto_pool = state.chance(scenario.auto_pool_share)
    pool = _auto_pool(state) if auto_pool else _fixed_pool(state)
    job = new_job(state, name, pool, auto_pool=auto_pool)
    total = _size(state)
    if total > 1 and state.chance(scenario.later_tasks_share):
        job.tasks_to_come = random.randint(1, total - 1)
        delay = state.between(scenario.later_tasks_delay)
        state.agenda.after(delay, _rest_arrives, state, job, name.task_prefix)
    else:
        _close(state, job)
    now_due = total - job.tasks_to_come
    last = name.last_tasks[max(0, len(name.last_tasks) - now_due) :]
    ids = [f"{name.task_prefix}-{n:04d}" for n in range(1, now_due - len(last) + 1)]
    task_life.add_tasks(state, job, [*ids, *last])
    join_round(job)
    _plan_incidents(state, job)
    oddities.plan(state, job)


def _close(state: State, job: Job) -> None:
    """All tasks are there, so a user has the job end with the last; before, it would too early."""
    share = state.scenario.left_open_share
    if not (share and state.chance(share)):
        job.on_all_tasks_complete = "terminatejob"


def _new_name(state: State) -> JobName:
    number = state.jobs_made + 1
    if state.scenario.pipelines_only:
        return pipeline_job_name(state.random, number)
    return job_name(state.random, number, state.jobs)


def _size(state: State) -> int:
    """How many tasks a job gets: small jobs are more common than large ones."""
    least, most = state.scenario.tasks_per_job
    size: float = least * (most / least) ** state.random.random()
    return round(size)


def new_job(state: State, name: JobName, pool: Pool, *, auto_pool: bool) -> Job:
    """A job without tasks, which the account lists from now on."""
    state.jobs_made += 1
    job = _drawn_job(state, name, pool, auto_pool=auto_pool)
    state.jobs[job.id] = job
    state.ledger.job(JobCreated, state.now, job)
    return job


def _drawn_job(state: State, name: JobName, pool: Pool, *, auto_pool: bool) -> Job:
    scenario, random, now = state.scenario, state.random, state.now
    prepared = state.chance(scenario.preparation_share)
    flaky = state.chance(scenario.flaky_job_share)
    dependencies = scenario.dependencies_share
    return Job(
        number=state.jobs_made,
        id=name.id,
        name=name,
        created=now,
        modified=now,
        state_changed=now,
        started=now + random.randint(50_000, 900_000),
        pool=pool,
        auto_pool=auto_pool,
        priority=random.choice((0, 0, 0, 100, -500, 1000)),
        display_name=name.display_name if state.chance(scenario.display_name_share) else None,
        metadata=job_metadata(random) if state.chance(scenario.metadata_share) else (),
        max_wall_clock=int(scenario.job_max_wall_clock * SECOND),
        max_task_retries=random.randint(*scenario.task_retries),
        preparation=PreparationTask(
            command_line="/bin/sh -c 'exec ./prepare.sh'",
            max_retries=random.randint(*scenario.preparation_retries),
            wait_for_success=state.chance(scenario.wait_for_success_share),
            rerun_on_reboot=state.chance(scenario.rerun_on_reboot_share),
        )
        if prepared
        else None,
        release=ReleaseTask("/bin/sh -c 'exec ./clean-up.sh'")
        if prepared and state.chance(scenario.release_share)
        else None,
        failure_share=scenario.flaky_task_failure_share if flaky else scenario.task_failure_share,
        uses_dependencies=dependencies > 0.0 and state.chance(dependencies),
        schedule_id=name.schedule_id,
        report=oddities.count_report(state),
    )


def _fixed_pool(state: State) -> Pool:
    """The less busy of two pools, as a user with an eye on them chooses."""
    fixed = [pool for pool in state.pools.values() if not pool.auto_pool]
    return min(state.random.sample(fixed, min(2, len(fixed))), key=_waiting_per_slot)


def _waiting_per_slot(pool: Pool) -> float:
    waiting = sum(job.slot_tally[ACTIVE] for job in pool.round)
    return waiting / (pool.slots_per_node * max(1, len(pool.nodes)))


def _auto_pool(state: State) -> Pool:
    nodes = max(2, round(state.nodes_per_pool * state.scenario.auto_pool_size_share))
    pool_id = str(UUID(int=state.random.getrandbits(128), version=4)).upper()
    return node_life.new_pool(state, pool_id=pool_id, nodes=nodes, auto_pool=True, auto_scale=False)


def _plan_incidents(state: State, job: Job) -> None:
    scenario, agenda = state.scenario, state.agenda
    agenda.after(job.max_wall_clock, _time_is_up, state, job.id, job.number)
    if state.chance(scenario.job_terminate_share):
        delay = state.between(scenario.job_terminate_after)
        agenda.after(delay, end_by_user, state, job)
    if state.chance(scenario.job_disable_share):
        agenda.after(state.between(scenario.job_disable_after), _disable, state, job)
    if state.chance(scenario.ended_unstarted_share):
        number = state.random.randint(*scenario.ended_unstarted_tasks)
        delay = state.between(scenario.ended_unstarted_after)
        agenda.after(delay, task_life.end_unstarted, state, job, number)


def end_by_user(state: State, job: Job) -> None:
    """A user terminates the job."""
    _end(state, job, "UserTerminate", ENDED_BY_USER)


def _time_is_up(state: State, job_id: str, number: int) -> None:
    # By id, lest the agenda keeps every deleted job and its tasks until then.
    job = state.jobs.get(job_id)
    if job is not None and job.number == number:
        _end(state, job, "MaxWallClockTimeExpiry", ENDED_BY_TIME_LIMIT)


def _rest_arrives(state: State, job: Job, prefix: str) -> None:
    if job.state in {"terminating", "completed", "deleting"}:
        return
    first = job.tasks_made + 1
    ids = [f"{prefix}-{n:04d}" for n in range(first, first + job.tasks_to_come)]
    job.tasks_to_come = 0
    _close(state, job)
    job.modified = state.now
    task_life.add_tasks(state, job, ids)
    join_round(job)


def _become(state: State, job: Job, new_state: str) -> None:
    job.previous_state = job.state
    job.previous_state_changed = job.state_changed
    job.state = new_state
    job.state_changed = state.now


def _disable(state: State, job: Job) -> None:
    """A user disables the job and has its running tasks requeued."""
    if job.state != "active":
        return
    _become(state, job, "disabling")
    job.modified = state.now
    preparation.drop_waiting(job)
    for task in [task for task in job.tasks.values() if task.bucket == RUNNING]:
        task_life.requeue(state, task)
    state.agenda.after(state.between((0.5, 2.0)), _disabled, state, job)


def _disabled(state: State, job: Job) -> None:
    if job.state == "disabling":
        _become(state, job, "disabled")
        span = state.between(state.scenario.job_disabled_for)
        state.agenda.after(span, _enable, state, job)


def _enable(state: State, job: Job) -> None:
    if job.state == "disabled":
        _become(state, job, "enabling")
        job.modified = state.now
        state.agenda.after(state.between((0.3, 1.0)), _enabled, state, job)


def _enabled(state: State, job: Job) -> None:
    if job.state == "enabling":
        _become(state, job, "active")
        join_round(job)
        state.pools_to_fill[job.pool] = None
        state.jobs_to_settle[job] = None


def settle(state: State, job: Job) -> None:
    """After a task or a release ended: does the job go on?"""
    if job.state == "active":
        join_round(job)
        unfinished = job.tally[ACTIVE] + job.tally[RUNNING] + job.tasks_to_come
        if not unfinished and job.on_all_tasks_complete == "terminatejob":
            _end(state, job, "AllTasksComplete", ENDED_BY_USER)
    elif job.state == "terminating" and not job.awaiting_release:
        state.agenda.after(state.between((0.2, 1.0)), _complete, state, job)


def _end(state: State, job: Job, reason: str, kind: FailureKind) -> None:
    """The job is terminating: running tasks end this way, active tasks stay active."""
    if job.state in {"terminating", "completed", "deleting"}:
        return
    _become(state, job, "terminating")
    job.modified = state.now
    job.terminate_reason = reason
    job.tasks_to_come = 0
    job.queue.clear()
    for task in [task for task in job.tasks.values() if task.bucket == RUNNING]:
        task_life.complete(state, task, kind)
    preparation.end_with_job(state, job)
    state.jobs_to_settle[job] = None


def _complete(state: State, job: Job) -> None:
    """Nothing of the job runs any more. Recorded: previousState and eTag do not change here."""
    if job.state != "terminating" or job.awaiting_release:
        return
    job.state = "completed"
    job.state_changed = job.ended = state.now
    for record in job.records.values():
        record.node.records.pop(job.id, None)
    if job.auto_pool:
        node_life.delete_pool(state, job.pool)
    state.agenda.after(state.between(state.scenario.job_retention), _delete, state, job)


def _delete(state: State, job: Job) -> None:
    _become(state, job, "deleting")
    job.modified = state.now
    state.agenda.after(state.between(state.scenario.job_deletion), _gone, state, job)


def _gone(state: State, job: Job) -> None:
    del state.jobs[job.id]
    state.ledger.job(JobGone, state.now, job)
    if oddities.recreated(state):
        state.agenda.after(SECOND // 4, arrive, state, job.name)
    else:
        state.agenda.after(state.between(state.scenario.job_arrival_delay), arrive, state)
