"""Tasks and task slots of a job by state (Job_GetTaskCounts)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
from msgspec.structs import astuple

from exporter.batch.models import Counts, TaskCountsResult
from exporter.collectors.collector import AccountRow, Folded, JobCollector
from exporter.exposition.metric import NO_SAMPLES, Metric, Samples, only, present
from exporter.state.counters import Increments, counter
from exporter.state.series import Key
from exporter.state.watched_job import WatchedJob


class Api(Protocol):
    """What this collector needs of the client."""

    async def get_task_counts(self, job_id: str) -> TaskCountsResult: ...


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """The latest counts of one job.

    `slots`: None where the API version has none (before 2020-09-01.12.0).
    `known`: the latest value of each count; what an answer left out is as it was before.
    `last_progress`: Unix time at which `completed` was last seen to have grown.
    """

    tasks: Counts
    slots: Counts | None
    known: Counts
    last_progress: float


async def read(
    api: Api, watched: WatchedJob, _state: TaskCounts | None, _now: float
) -> TaskCountsResult:
    """Ask for the counts of one job."""
    return await api.get_task_counts(watched.job.id)


def fold(
    state: TaskCounts | None, reading: TaskCountsResult, now: float, is_new: bool
) -> Folded[TaskCounts]:
    """The new counts, and by how much each grew.

    Of a job that is older than our watch the first counts are where counting begins; of a new one
    it begins at nothing. What the service takes back (a correction, tasks deleted) is no growth,
    and what grows again after that has happened again as far as anybody can see.
    """
    tasks = reading.tasks
    before = state.known if state else _NONE if is_new else tasks
    known = tasks
    if None in astuple(tasks):
        pairs = zip(astuple(before), astuple(tasks), strict=True)
        known = Counts(*[old if new is None else new for old, new in pairs])
    progressed = state is None or (known.completed or 0) > (before.completed or 0)
    last_progress = now if state is None or progressed else state.last_progress
    return Folded(
        TaskCounts(tasks, reading.task_slot_counts, known, last_progress),
        _increments(before, known),
    )


_NONE = Counts(0, 0, 0, 0, 0)


def _increments(before: Counts, after: Counts) -> Increments:
    fell = (
        _growth(after.succeeded, before.succeeded)
        or _growth(after.failed, before.failed)
        or _growth(_added(after), _added(before))
    )
    return {
        _SUCCEEDED: _growth(before.succeeded, after.succeeded),
        _FAILED: _growth(before.failed, after.failed),
        _STARTED: _growth(_started(before), _started(after)),
        _ADDED: _growth(_added(before), _added(after)),
        _FELL: 1 if fell else 0,
    }


def _growth(old: int | None, new: int | None) -> int:
    return 0 if old is None or new is None or new < old else new - old


def _started(counts: Counts) -> int | None:
    if counts.running is None or counts.completed is None:
        return None
    return counts.running + counts.completed


def _added(counts: Counts) -> int | None:
    started = _started(counts)
    return None if started is None or counts.active is None else started + counts.active


_STATES = (("active",), ("running",), ("completed",))
_RESULTS = (("success",), ("failure",))


def _by_state(counts: Counts | None) -> Samples:
    if counts is None:
        return NO_SAMPLES
    return present(_STATES, (counts.active, counts.running, counts.completed))


def _by_result(counts: Counts | None) -> Samples:
    if counts is None:
        return NO_SAMPLES
    return present(_RESULTS, (counts.succeeded, counts.failed))


def _row(
    name: str, help_: str, field: str, label: str, samples: Callable[[TaskCounts], Samples]
) -> Metric[TaskCounts]:
    return Metric(name, "gauge", help_, f"Job_GetTaskCounts {field}", (label,), samples)


METRICS: tuple[Metric[TaskCounts], ...] = (
    _row(
        "azure_batch_job_tasks",
        "Tasks of the job by state; running includes preparing, active includes tasks that wait for"
        " others",
        "taskCounts.active, .running, .completed",
        "state",
        lambda counts: _by_state(counts.tasks),
    ),
    _row(
        "azure_batch_job_completed_tasks",
        "Completed tasks of the job by result",
        "taskCounts.succeeded, .failed",
        "result",
        lambda counts: _by_result(counts.tasks),
    ),
    _row(
        "azure_batch_job_task_slots",
        "Task slots that the job's tasks need, by state of the tasks",
        "taskSlotCounts.active, .running, .completed",
        "state",
        lambda counts: _by_state(counts.slots),
    ),
    _row(
        "azure_batch_job_completed_task_slots",
        "Task slots of completed tasks of the job by result",
        "taskSlotCounts.succeeded, .failed",
        "result",
        lambda counts: _by_result(counts.slots),
    ),
    Metric(
        "azure_batch_job_last_progress_timestamp_seconds",
        "gauge",
        "When the number of completed tasks was last seen to grow; at first sight of the job, that"
        " moment",
        "Job_GetTaskCounts taskCounts.completed, observed",
        (),
        lambda counts: only(counts.last_progress),
        merge=max,
    ),
)

COMPLETED = counter(
    "azure_batch_job_tasks_completed_total",
    "Tasks of the job that completed, by result",
    "growth of Job_GetTaskCounts taskCounts.succeeded, .failed",
    ("result",),
)
STARTED = counter(
    "azure_batch_job_tasks_started_total",
    "Tasks of the job that started; one that is requeued starts again",
    "growth of Job_GetTaskCounts taskCounts.running + .completed",
    (),
)
ADDED = counter(
    "azure_batch_job_tasks_added_total",
    "Tasks that were added to the job",
    "growth of Job_GetTaskCounts taskCounts.active + .running + .completed",
    (),
)
REGRESSIONS = counter(
    "azure_batch_job_task_count_regressions_total",
    "Polls at which a cumulative count had gone backwards: a correction, or tasks were deleted",
    "Job_GetTaskCounts taskCounts",
    (),
)
_SUCCEEDED: Key = (COMPLETED.name, ("success",))
_FAILED: Key = (COMPLETED.name, ("failure",))
_STARTED: Key = (STARTED.name, ())
_ADDED: Key = (ADDED.name, ())
_FELL: Key = (REGRESSIONS.name, ())

ACCOUNT_COMPLETED = counter(
    "azure_batch_account_tasks_completed_total",
    "Tasks of all selected jobs together that completed, by result",
    "growth of Job_GetTaskCounts taskCounts.succeeded, .failed",
    ("result",),
)

COLLECTOR = JobCollector(
    "task_counts",
    read,
    fold,
    METRICS,
    dump=msgspec.json.encode,
    load=lambda saved, _: msgspec.json.decode(saved, type=TaskCounts),
    counters=(COMPLETED, STARTED, ADDED, REGRESSIONS),
    account={COMPLETED.name: AccountRow(ACCOUNT_COMPLETED, (0,))},
    # What the service does not say may be anything.
    is_busy=lambda state: state.known.active != 0 or state.known.running != 0,
)
