"""What a real account does to those who watch it: wrong counts, deleted tasks, clocks that differ.

All chance in here is drawn apart from the account's own, and none where an oddity is off.
"""

from exporter.simulator.counts import FAILED, SUCCEEDED, Report
from exporter.simulator.ledger import CountsCorrected, CountsRaised
from exporter.simulator.model import Job
from exporter.simulator.scenario import Span
from exporter.simulator.state import State
from exporter.simulator.ticks import SECOND

_RESULTS = {SUCCEEDED: "success", FAILED: "failure"}


def _between(state: State, span: Span) -> int:
    low, high = span
    return int((low + (high - low) * state.oddities.random()) * SECOND)


def _next(state: State, interval: float) -> int:
    return int(state.oddities.expovariate(1.0 / interval) * SECOND)


def clock_skew(state: State) -> int:
    """By how many ticks a new node's clock is ahead of the service's."""
    low, high = state.scenario.clock_skew
    return _between(state, (low, high)) if low or high else 0


def count_report(state: State) -> Report | None:
    """What a new job's counts are answered from, where not from themselves."""
    scenario = state.scenario
    if not scenario.count_lag and not scenario.count_correction_interval:
        return None
    return Report(state.agenda, int(scenario.count_lag * SECOND))


def recreated(state: State) -> bool:
    """Whether the job that was just deleted is made again."""
    share = state.scenario.job_recreate_share
    return bool(share) and state.oddities.random() < share


def plan(state: State, job: Job) -> None:
    """What will befall the job."""
    scenario, agenda = state.scenario, state.agenda
    if scenario.count_correction_interval:
        agenda.after(_next(state, scenario.count_correction_interval), _raise_counts, state, job)
    if scenario.task_deletion_interval:
        agenda.after(_next(state, scenario.task_deletion_interval), _delete_tasks, state, job)


def _is_there(state: State, job: Job) -> bool:
    return state.jobs.get(job.id) is job


def _raise_counts(state: State, job: Job) -> None:
    """The service counts some tasks twice, until it looks again."""
    if job.report is None or not _is_there(state, job):
        return
    scenario, random = state.scenario, state.oddities
    failed = random.random() < scenario.count_correction_failed_share
    bucket = FAILED if failed else SUCCEEDED
    by = random.randint(*scenario.count_correction_size)
    job.report.excess[bucket] += by
    state.ledger.counts(CountsRaised, state.now, job, _RESULTS[bucket], by)
    delay = _between(state, scenario.count_correction_after)
    state.agenda.after(delay, _correct_counts, state, job, bucket, by)


def _correct_counts(state: State, job: Job, bucket: int, by: int) -> None:
    if job.report is None or not _is_there(state, job):
        return
    job.report.excess[bucket] -= by
    state.ledger.counts(CountsCorrected, state.now, job, _RESULTS[bucket], by)
    delay = _next(state, state.scenario.count_correction_interval)
    state.agenda.after(delay, _raise_counts, state, job)


def _delete_tasks(state: State, job: Job) -> None:
    """A user deletes some completed tasks of the job."""
    if not _is_there(state, job):
        return
    scenario, random = state.scenario, state.oddities
    completed = [task for task in job.tasks.values() if task.state == "completed"]
    number = min(len(completed), random.randint(*scenario.tasks_deleted))
    if job.state != "deleting":
        for task in random.sample(completed, number):
            job.remove(task)
            state.ledger.task_deleted(state.now, task)
    delay = _next(state, scenario.task_deletion_interval)
    state.agenda.after(delay, _delete_tasks, state, job)
