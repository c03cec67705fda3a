"""What a real account does to those who watch it: wrong counts, deleted tasks, clocks that differ.

All chance in here is drawn apart from the account's own, and none where an oddity is off.
"""

from dataclasses import replace

from exporter.simulator.counts import FAILED, SUCCEEDED, Report
from exporter.simulator.failure_texts import (
    SCHEDULING_ERRORS,
    ContainerInfo,
    Failure,
    FailureKind,
)
from exporter.simulator.ledger import CountsCorrected, CountsRaised
from exporter.simulator.model import Job, Task
from exporter.simulator.naming import JobName
from exporter.simulator.scenario import Span
from exporter.simulator.special_tasks import Execution
from exporter.simulator.state import State
from exporter.simulator.ticks import SECOND

_RESULTS = {SUCCEEDED: "success", FAILED: "failure"}


def chance(state: State, share: float) -> bool:
    """True in this share of calls."""
    return bool(share) and state.oddities.random() < share


def between(state: State, span: Span) -> int:
    """Ticks drawn evenly from a pair of seconds."""
    low, high = span
    if low == high:
        return int(low * SECOND)
    return int((low + (high - low) * state.oddities.random()) * SECOND)


def _next(state: State, interval: float) -> int:
    return int(state.oddities.expovariate(1.0 / interval) * SECOND)


def clock_skew(state: State) -> int:
    """By how many ticks a new node's clock is ahead of the service's."""
    low, high = state.scenario.clock_skew
    return between(state, (low, high)) if low or high else 0


def count_report(state: State) -> Report | None:
    """What a new job's counts are answered from, where not from themselves."""
    scenario = state.scenario
    if not scenario.count_lag and not scenario.count_correction_interval:
        return None
    return Report(state.agenda, int(scenario.count_lag * SECOND))


def recreated(state: State) -> bool:
    """Whether the job that was just deleted is made again."""
    return chance(state, state.scenario.job_recreate_share)


def written_otherwise(state: State, name: JobName) -> JobName:
    """The name of a job that is made again, its id perhaps in the other case."""
    if not chance(state, state.scenario.job_recreate_case_share):
        return name
    return replace(name, id=name.id.upper() if name.id.islower() else name.id.lower())


def terminate_reason(state: State) -> str:
    """Why a user terminates a job, as they say."""
    reasons = state.scenario.terminate_reasons
    if not reasons:
        return "UserTerminate"
    words, weights = zip(*reasons, strict=True)
    return str(state.oddities.choices(words, weights)[0])


def scheduling_error(state: State) -> Failure:
    """Why a job's auto pool could not be made."""
    return state.oddities.choice(SCHEDULING_ERRORS)


def tell(state: State, run: Task | Execution, kind: FailureKind | None) -> None:
    """What a completed run shows of its end, and what it leaves out."""
    scenario = state.scenario
    run.container = None if kind is None else kind.container
    ran = run.container is None and run.exit_code is not None
    if ran and chance(state, scenario.container_share):
        run.container = ContainerInfo(f"{state.oddities.getrandbits(256):064x}", "exited")
    run.result_shown = not chance(state, scenario.exit_code_only_share)
    if not run.result_shown and run.exit_code:
        run.failure = None


def after_success(state: State, task: Task) -> None:
    """A task has succeeded: its user may delete it, as some engines do."""
    span = state.scenario.succeeded_task_deleted_after
    if span is not None:
        state.agenda.after(between(state, span), _delete_task, state, task)


def _delete_task(state: State, task: Task) -> None:
    job = task.job
    if state.has_job(job) and job.tasks.get(task.id) is task:
        delete_task(state, task)


def delete_task(state: State, task: Task) -> None:
    """A user deletes a completed task."""
    task.job.remove(task)
    state.ledger.task_deleted(state.now, task)


def plan(state: State, job: Job) -> None:
    """What will befall the job."""
    scenario, agenda = state.scenario, state.agenda
    if scenario.count_correction_interval:
        agenda.after(_next(state, scenario.count_correction_interval), _raise_counts, state, job)
    if scenario.task_deletion_interval:
        agenda.after(_next(state, scenario.task_deletion_interval), _delete_tasks, state, job)


def _raise_counts(state: State, job: Job) -> None:
    """The service counts some tasks twice, until it looks again."""
    if job.report is None or not state.has_job(job):
        return
    scenario, random = state.scenario, state.oddities
    failed = random.random() < scenario.count_correction_failed_share
    bucket = FAILED if failed else SUCCEEDED
    by = random.randint(*scenario.count_correction_size)
    job.report.excess[bucket] += by
    state.ledger.counts(CountsRaised, state.now, job, _RESULTS[bucket], by)
    delay = between(state, scenario.count_correction_after)
    state.agenda.after(delay, _correct_counts, state, job, bucket, by)


def _correct_counts(state: State, job: Job, bucket: int, by: int) -> None:
    if job.report is None or not state.has_job(job):
        return
    job.report.excess[bucket] -= by
    state.ledger.counts(CountsCorrected, state.now, job, _RESULTS[bucket], by)
    delay = _next(state, state.scenario.count_correction_interval)
    state.agenda.after(delay, _raise_counts, state, job)


def _delete_tasks(state: State, job: Job) -> None:
    """A user deletes some completed tasks of the job."""
    if not state.has_job(job):
        return
    scenario, random = state.scenario, state.oddities
    completed = [task for task in job.tasks.values() if task.state == "completed"]
    number = min(len(completed), random.randint(*scenario.tasks_deleted))
    if job.state != "deleting":
        for task in random.sample(completed, number):
            delete_task(state, task)
    delay = _next(state, scenario.task_deletion_interval)
    state.agenda.after(delay, _delete_tasks, state, job)
