"""A job's life: it arrives with tasks, is disabled for a while, ends, releases, is deleted."""

from exporter.simulator import node_life, oddities, preparation, task_life
from exporter.simulator.counts import ACTIVE, RUNNING
from exporter.simulator.failure_texts import ENDED_BY_TIME_LIMIT, ENDED_BY_USER, FailureKind
from exporter.simulator.job_creation import (
    auto_pool_of_its_own,
    fixed_pool,
    new_job,
    new_name,
    size,
)
from exporter.simulator.ledger import JobGone
from exporter.simulator.model import Job, Pool
from exporter.simulator.naming import JobName
from exporter.simulator.scenario import Scenario
from exporter.simulator.schedule import join_round
from exporter.simulator.special_tasks import PreparationTask, ReleaseTask
from exporter.simulator.state import State
from exporter.simulator.ticks import INFINITE


def arrive(state: State, name: JobName | None = None, *, extra: bool = False) -> Job:
    """A user submits a job, by this name or another, with its tasks; some may follow later."""
    scenario, random = state.scenario, state.random
    if name is None or name.id.lower() in state.jobs_by_key:
        name = new_name(state)
    auto_pool = state.chance(scenario.auto_pool_share)
    pool = auto_pool_of_its_own(state) if auto_pool else fixed_pool(state)
    job = new_job(state, name, pool, auto_pool=auto_pool)
    job.extra = extra
    total = size(state)
    if total > 1 and state.chance(scenario.later_tasks_share):
        job.tasks_to_come = random.randint(1, total - 1)
        delay = state.between(scenario.later_tasks_delay)
        state.agenda.after(delay, _rest_arrives, state, job)
    else:
        _close(state, job)
    now_due = total - job.tasks_to_come
    last = name.last_tasks[max(0, len(name.last_tasks) - now_due) :]
    ids = [f"{name.task_prefix}-{n:04d}" for n in range(1, now_due - len(last) + 1)]
    task_life.add_tasks(state, job, [*ids, *last])
    join_round(job)
    _plan_incidents(state, job)
    oddities.plan(state, job)
    if not pool.made:
        state.agenda.after(oddities.between(state, (0.2, 3.0)), _fail_to_schedule, state, job)
    return job


def _fail_to_schedule(state: State, job: Job) -> None:
    """The job's auto pool could not be made: it is over, and its tasks stay active."""
    if job.state != "active":
        return
    _become(state, job, "completed")
    job.scheduling_error = oddities.scheduling_error(state)
    job.tasks_to_come = 0
    job.queue.clear()
    job.modified = job.ended = state.now
    state.ledger.job_not_scheduled(state.now, job)
    state.agenda.after(state.between(state.scenario.job_retention), delete, state, job)


def create(
    state: State,
    job_id: str,
    pool: Pool,
    *,
    tasks: int,
    preparation: bool,
    release: bool,
    ends: bool,
) -> Job:
    """A user submits this very job, to which nothing happens but what users do then."""
    job = new_job(state, JobName(job_id, job_id, "task"), pool, auto_pool=False)
    job.extra = True
    job.max_wall_clock = INFINITE
    job.preparation = (
        PreparationTask("./prepare.sh", max_retries=0, wait_for_success=True, rerun_on_reboot=True)
        if preparation
        else None
    )
    job.release = ReleaseTask("./clean-up.sh") if release else None
    job.on_all_tasks_complete = "terminatejob" if ends else "noaction"
    add_tasks(state, job, tasks)
    state.jobs_to_settle[job] = None
    return job


def add_tasks(state: State, job: Job, number: int) -> None:
    """A user adds so many tasks."""
    first = job.tasks_made + 1
    ids = [f"{job.name.task_prefix}-{n:04d}" for n in range(first, first + number)]
    task_life.add_tasks(state, job, ids)
    join_round(job)


def _close(state: State, job: Job) -> None:
    """Once all tasks are there, a user lets the job end with the last one."""
    share = state.scenario.left_open_share
    if not (share and state.chance(share)):
        job.on_all_tasks_complete = "terminatejob"


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
    if oddities.chance(state, scenario.job_delete_active_share):
        delay = oddities.between(state, scenario.job_delete_active_after)
        agenda.after(delay, _delete_active, state, job)


def end_by_user(state: State, job: Job, reason: str | None = None) -> None:
    """A user terminates the job, and says why or not."""
    _end(state, job, reason or oddities.terminate_reason(state), ENDED_BY_USER)


def _time_is_up(state: State, job_id: str, number: int) -> None:
    # By id, lest the agenda keeps every deleted job and its tasks until then.
    job = state.jobs.get(job_id)
    if job is not None and job.number == number:
        _end(state, job, "MaxWallClockTimeExpiry", ENDED_BY_TIME_LIMIT)


def _rest_arrives(state: State, job: Job) -> None:
    if job.state in {"terminating", "completed", "deleting"}:
        return
    number, job.tasks_to_come = job.tasks_to_come, 0
    _close(state, job)
    job.modified = state.now
    add_tasks(state, job, number)


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
    elif job.state == "deleting" and job.ended is None and not job.awaiting_release:
        _plan_its_end(state, job)


def _end(state: State, job: Job, reason: str, kind: FailureKind) -> None:
    """The job is terminating: running tasks end this way, active tasks stay active."""
    if job.state in {"terminating", "completed", "deleting"}:
        return
    _become(state, job, "terminating")
    job.modified = state.now
    job.terminate_reason = reason
    _stop(state, job, kind)


def _stop(state: State, job: Job, kind: FailureKind) -> None:
    """Running tasks end this way, and release begins."""
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
    _leave_nodes(state, job)
    state.agenda.after(state.between(state.scenario.job_retention), delete, state, job)


def _leave_nodes(state: State, job: Job) -> None:
    for record in job.records.values():
        record.node.records.pop(job.id, None)
    if job.auto_pool and job.pool.made:
        node_life.delete_pool(state, job.pool)


def delete(state: State, job: Job) -> None:
    """A user deletes the job. If it is not over, running tasks end, and release runs."""
    if job.state == "deleting" or not state.has_job(job):
        return
    was_ending = job.state == "terminating"
    _become(state, job, "deleting")
    job.modified = state.now
    if job.ended is not None:
        _plan_its_end(state, job)
    elif was_ending:
        state.jobs_to_settle[job] = None
    else:
        _stop(state, job, ENDED_BY_USER)


def _delete_active(state: State, job: Job) -> None:
    if job.state == "active":
        delete(state, job)


def _plan_its_end(state: State, job: Job) -> None:
    state.agenda.after(state.between(state.scenario.job_deletion), _gone, state, job)


def _gone(state: State, job: Job) -> None:
    if not state.has_job(job):
        return
    if job.ended is None:
        _leave_nodes(state, job)
    del state.jobs[job.id]
    del state.jobs_by_key[job.id.lower()]
    state.ledger.job(JobGone, state.now, job)
    if job.extra:
        return
    if oddities.recreated(state):
        delay = oddities.between(state, state.scenario.job_recreate_after)
        state.agenda.after(delay, _arrive_again, state, job.name)
    else:
        state.agenda.after(state.between(state.scenario.job_arrival_delay), arrive, state)


def _arrive_again(state: State, name: JobName) -> None:
    """The job is made again, and may be deleted at once to be made once more."""
    job = arrive(state, oddities.written_otherwise(state, name))
    if oddities.chance(state, state.scenario.job_recreate_twice_share):
        delay = oddities.between(state, state.scenario.job_recreate_twice_after)
        state.agenda.after(delay, delete, state, job)


def plan_storm(state: State) -> None:
    """The next storm of jobs, after which comes another."""
    if state.scenario.job_storm_interval is not None:
        delay = oddities.between(state, state.scenario.job_storm_interval)
        state.agenda.after(delay, _planned_storm, state, state.scenario)


def _planned_storm(state: State, scenario: Scenario) -> None:
    if state.scenario is scenario:
        storm(state, state.oddities.randint(*scenario.job_storm_size))
        plan_storm(state)


def storm(state: State, jobs: int) -> None:
    """So many jobs are submitted within seconds, beside those that are there at any time."""
    for _ in range(jobs):
        delay = oddities.between(state, state.scenario.job_storm_length)
        state.agenda.after(delay, _arrive_in_storm, state)


def _arrive_in_storm(state: State) -> None:
    arrive(state, extra=True)
