"""Tasks and task slots of a job by state (Job_GetTaskCounts)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from msgspec.structs import astuple

from exporter.batch.client import BatchClient
from exporter.batch.models import Counts, TaskCountsResult
from exporter.exposition.metric import Key, Labels, Metric, Samples
from exporter.state.collector import AccountRow, Events, Folded, JobCollector
from exporter.state.counters import counter
from exporter.state.watched_job import WatchedJob

OPERATION = "Job_GetTaskCounts"


class TaskCounts(msgspec.Struct, frozen=True, gc=False):
    """The latest counts of one job.

    `slots`: None where the API version has none (before 2020-09-01.12.0).
    `known`: the latest value of each count; what an answer left out is as it was before.
    `last_progress`: Unix time at which `completed` was last seen to have grown.
    """

    tasks: Counts
    slots: Counts | None
    known: Counts
    last_progress: float


def read(
    client: BatchClient, watched: WatchedJob, _state: TaskCounts | None, _now: float
) -> Awaitable[TaskCountsResult]:
    """Ask for the counts of one job."""
    return client.get_task_counts(watched.job.id)


def fold(
    state: TaskCounts | None, reading: TaskCountsResult, now: float, is_new: bool
) -> Folded[TaskCounts]:
    """The new counts, and by how much each grew.

    A new job is counted from 0, an older one from its first counts. A decrease (a correction, or
    deleted tasks) is ignored, and a later increase is counted again.
    """
    tasks = reading.task_counts or Counts()
    before = state.known if state else _NO_TASKS if is_new else tasks
    pairs = zip(astuple(before), astuple(tasks), strict=True)
    known = Counts(*[old if new is None else new for old, new in pairs])
    growth = {}
    for key, names in CUMULATIVE.items():
        old, new = ([getattr(counts, name) for name in names] for counts in (before, known))
        growth[key] = 0 if None in (*old, *new) else sum(new) - sum(old)
    increments = {key: max(0, amount) for key, amount in growth.items()}
    # A task that is requeued starts again, so fewer started tasks are no correction.
    fell = any(amount < 0 for key, amount in growth.items() if key != _STARTED)
    progressed = state is None or (known.completed or 0) > (before.completed or 0)
    last_progress = now if state is None or progressed else state.last_progress
    return Folded(
        TaskCounts(tasks, reading.task_slot_counts, known, last_progress),
        Events({**increments, _FELL: int(fell)}),
        # A count that the service does not give is unknown.
        is_busy=known.active != 0 or known.running != 0,
        is_running=known.running != 0,
        points={name: getattr(known, name) or 0 for name in POINTS},
    )


POINTS = ("active", "running", "succeeded", "failed")
"""The counts that a job's charts show."""

_NO_TASKS = Counts(0, 0, 0, 0, 0)


def _samples(field: str | None, members: Mapping[Labels, str]) -> Callable[[TaskCounts], Samples]:
    """A row's samples: members of the state, or of one of its fields, each by its labels."""

    def samples(state: TaskCounts) -> Samples:
        found = state if field is None else getattr(state, field)
        return [(labels, getattr(found, name, None)) for labels, name in members.items()]

    return samples


_STATES: Mapping[Labels, str] = {
    ("active",): "active",
    ("running",): "running",
    ("completed",): "completed",
}
_RESULTS: Mapping[Labels, str] = {("success",): "succeeded", ("failure",): "failed"}


def _row(
    name: str, help_: str, source: str, label: str, samples: Callable[[TaskCounts], Samples]
) -> Metric[TaskCounts]:
    return Metric(name, "gauge", help_, f"{OPERATION} {source}", (label,), samples)


METRICS: tuple[Metric[TaskCounts], ...] = (
    _row(
        "azure_batch_job_tasks",
        "Tasks of the job by state; running includes preparing, active includes tasks that wait for"
        " others",
        "taskCounts.active, .running, .completed",
        "state",
        _samples("tasks", _STATES),
    ),
    _row(
        "azure_batch_job_completed_tasks",
        "Completed tasks of the job by result",
        "taskCounts.succeeded, .failed",
        "result",
        _samples("tasks", _RESULTS),
    ),
    _row(
        "azure_batch_job_task_slots",
        "Task slots that the job's tasks need, by state of the tasks",
        "taskSlotCounts.active, .running, .completed",
        "state",
        _samples("slots", _STATES),
    ),
    _row(
        "azure_batch_job_completed_task_slots",
        "Task slots of completed tasks of the job by result",
        "taskSlotCounts.succeeded, .failed",
        "result",
        _samples("slots", _RESULTS),
    ),
    Metric(
        "azure_batch_job_last_progress_timestamp_seconds",
        "gauge",
        "When the number of completed tasks was last seen to grow; at first sight of the job, that"
        " moment",
        f"{OPERATION} taskCounts.completed, observed",
        (),
        _samples(None, {(): "last_progress"}),
        merge=max,
    ),
)

COMPLETED = counter(
    "azure_batch_job_tasks_completed_total",
    "Tasks of the job that completed, by result; without those that were deleted before a poll saw"
    " them completed",
    f"growth of {OPERATION} taskCounts.succeeded, .failed",
    ("result",),
)
STARTED = counter(
    "azure_batch_job_tasks_started_total",
    "Tasks of the job that started. May be above the tasks added: a task that is requeued or"
    " reactivated starts again, and tasks from before the job was watched start but are not added",
    f"growth of {OPERATION} taskCounts.running + .completed",
    (),
)
ADDED = counter(
    "azure_batch_job_tasks_added_total",
    "Tasks that were added to the job. A task that is deleted hides one that is added between the"
    " same two polls",
    f"growth of {OPERATION} taskCounts.active + .running + .completed",
    (),
)
REGRESSIONS = counter(
    "azure_batch_job_task_count_regressions_total",
    "Polls that found a count lower than before: the service corrected it, or tasks were deleted."
    " Where it grows, the counters of tasks may lack some",
    f"{OPERATION} taskCounts",
    (),
)
_STARTED: Key = (STARTED.name, ())
_FELL: Key = (REGRESSIONS.name, ())

CUMULATIVE: Mapping[Key, tuple[str, ...]] = {
    (COMPLETED.name, ("success",)): ("succeeded",),
    (COMPLETED.name, ("failure",)): ("failed",),
    _STARTED: ("running", "completed"),
    (ADDED.name, ()): ("active", "running", "completed"),
}
"""The counts whose sum only grows in a job's life, by the counter that grows with it."""

ACCOUNT_COMPLETED = counter(
    "azure_batch_account_tasks_completed_total",
    "Tasks that completed, by result, of all jobs that a rule names",
    f"growth of {OPERATION} taskCounts.succeeded, .failed",
    ("result",),
)

COLLECTOR = JobCollector(
    "task_counts",
    OPERATION,
    read,
    fold,
    METRICS,
    dump=msgspec.json.encode,
    load=lambda saved, _: msgspec.json.decode(saved, type=TaskCounts),
    counters=(COMPLETED, STARTED, ADDED, REGRESSIONS),
    account={COMPLETED.name: AccountRow(ACCOUNT_COMPLETED, (0,))},
)
