"""Tasks and task slots of a job by state (Job_GetTaskCounts)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from exporter.batch.models import Counts, Job, TaskCountsResult
from exporter.collectors.collector import JobCollector
from exporter.metric import Metric, Sample, present


class Api(Protocol):
    """What this collector needs of the client."""

    async def get_task_counts(self, job_id: str) -> TaskCountsResult: ...


@dataclass(frozen=True)
class TaskCounts:
    """The latest counts of one job.

    `slots`: None where the API version has none (before 2020-09-01.12.0).
    `last_progress`: Unix time at which `completed` was last seen to have grown.
    """

    tasks: Counts
    slots: Counts | None
    last_progress: float


async def read(api: Api, job: Job) -> TaskCountsResult:
    """Ask for the counts of one job."""
    return await api.get_task_counts(job.id)


def fold(previous: TaskCounts | None, reading: TaskCountsResult, now: float) -> TaskCounts:
    """The new counts; progress is what the exporter saw itself, from its first look on."""
    tasks = reading.tasks
    progressed = previous is None or (tasks.completed or 0) > (previous.tasks.completed or 0)
    last_progress = now if previous is None or progressed else previous.last_progress
    return TaskCounts(tasks, reading.task_slot_counts, last_progress)


def _by_state(counts: Counts | None) -> Iterable[Sample]:
    if counts is None:
        return ()
    return present(
        (("active",), counts.active),
        (("running",), counts.running),
        (("completed",), counts.completed),
    )


def _by_result(counts: Counts | None) -> Iterable[Sample]:
    if counts is None:
        return ()
    return present((("success",), counts.succeeded), (("failure",), counts.failed))


def _row(
    name: str, help_: str, field: str, label: str, samples: Callable[[TaskCounts], Iterable[Sample]]
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
        lambda counts: (((), counts.last_progress),),
    ),
)

COLLECTOR = JobCollector("task_counts", read, fold, METRICS)
