"""Tasks of a job one by one (Task_List): why they fail, how long they wait and run.

Not collected unless asked for: task counts cost one small answer a poll, this lists. After one
full listing only tasks that changed are read, and those that run: a retry does not change a state.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from exporter.batch import models, odata
from exporter.batch.failure_codes import CATEGORIES, UNKNOWN
from exporter.collectors.incremental import missed_before, read_changes
from exporter.collectors.task_records import Change, Record, Tasks, record_of
from exporter.exposition.metric import Key, Metric, only
from exporter.state.collector import AccountRow, Events, Folded, JobCollector
from exporter.state.counters import Increments, counter, total
from exporter.state.failures import Failure, latest
from exporter.state.histogram import histogram
from exporter.state.watched_job import WatchedJob

if TYPE_CHECKING:
    from exporter.batch.client import BatchClient

OPERATION = "Task_List"

FIELDS = ("id", "state", "stateTransitionTime", "creationTime", "executionInfo")

RUN_SECONDS = (
    *(1.0, 5.0, 15.0, 60.0, 300.0, 900.0),
    *(3600.0, 10800.0, 21600.0, 86400.0, 259200.0, 604800.0),
)
"""Bounds of buckets. From commands of a second to simulations of a week, in steps of three to six:
what is asked is whether tasks take minutes or hours."""

WAIT_SECONDS = (
    *(1.0, 5.0, 15.0, 30.0, 60.0, 120.0),
    *(300.0, 900.0, 3600.0, 10800.0, 43200.0, 86400.0),
)
"""Bounds of buckets. Finer up to the minutes that a pool needs to grow; waiting for more than a day
is one thing."""


@dataclass(frozen=True)
class Reading:
    """Tasks as read, by id; one that stands on two pages is there twice.

    `started`: when the reading began, in Unix seconds of the service.
    `since`: changes from then on were asked for; None: all tasks were.
    `failures`: what a record does not hold of those that failed; the latest.
    """

    tasks: tuple[tuple[str, Record], ...]
    started: float = 0.0
    since: float | None = None
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class JobTasks:
    """The tasks of one job.

    `read_at`, `listed_at`: when the last reading and the last full one began, by the service's
    clock.
    """

    tasks: Tasks = field(default_factory=Tasks)
    read_at: float = 0.0
    listed_at: float = 0.0


async def read(
    api: BatchClient, watched: WatchedJob, state: JobTasks | None, now: float
) -> Reading:
    """Ask for the tasks of one job that changed or run, or for all of them."""
    job, resync_interval = watched.job, watched.rule.resync_interval
    (tasks, failures), started, since = await read_changes(
        api, OPERATION, state, resync_interval, now, lambda since: _tasks(api, job.id, since)
    )
    return Reading(tasks, started, since, failures)


async def _tasks(
    api: BatchClient, job_id: str, since: float | None
) -> tuple[tuple[tuple[str, Record], ...], tuple[Failure, ...]]:
    filter_ = None if since is None else changes_since(since)
    # Page by page: a record takes a third of what the answer's own objects take.
    tasks: list[tuple[str, Record]] = []
    failures: list[Failure] = []
    async for page in api.list_tasks(job_id, filter_, FIELDS):
        records = [(task.id, record_of(task)) for task in page]
        tasks += records
        failed = [
            failure_of(task)
            for task, (_, record) in zip(page, records, strict=True)
            if record.has_failed
        ]
        if failed:
            failures = latest((*failures, *failed))
    return tuple(tasks), tuple(failures)


def failure_of(task: models.Task) -> Failure:
    """What people want to know of a task that failed."""
    info = task.execution_info or models.TaskExecutionInfo()
    node = task.node_info or models.NodeInfo()
    return Failure.of(
        "task",
        info.failure_info,
        ended=models.unix_time(info.end_time or task.state_transition_time),
        pool_id=node.pool_id,
        node_id=node.node_id,
        task_id=task.id,
        exit_code=info.exit_code,
    )


def changes_since(since: float) -> str:
    """The $filter for tasks that came into their state since, or that run."""
    moment = odata.literal(dt.datetime.fromtimestamp(since, dt.UTC))
    return odata.any_of(
        (f"stateTransitionTime ge {moment}", "state eq 'running'", "state eq 'preparing'")
    )


def fold(state: JobTasks | None, reading: Reading, _now: float, is_new: bool) -> Folded[JobTasks]:
    """The tasks after a reading, and what was seen to happen to them.

    Of a job that is older than our watch, what its first listing holds is where counting begins.
    """
    before = state or JobTasks()
    full = reading.since is None
    tasks, changes = before.tasks.merged(reading.tasks, full=full)
    counted = changes if state is not None or is_new else []
    failed = {change.id for change in changes if change.fails}
    corrections = 0
    if state is not None and full:
        since = missed_before(before)
        corrections = sum(_is_correction(change.now, since) for change in changes)
    return Folded(
        JobTasks(
            tasks,
            read_at=reading.started,
            listed_at=reading.started if full else before.listed_at,
        ),
        Events(
            total(_events(counted)),
            _observations(counted),
            [each for each in reading.failures if each.task_id in failed],
            corrections,
        ),
        is_busy=not all(record.is_completed for record in tasks.unsettled.values()),
        records=_records(before.tasks, tasks, changes),
    )


MISSING = "missing"
"""Stands behind the id in the key of the record of a task that is missing."""


def _records(
    before: Tasks, after: Tasks, changes: Iterable[Change]
) -> list[tuple[tuple[str, ...], Record | float | None]]:
    """What changes of the records. A task that is missing may also come back after a restart."""
    records: list[tuple[tuple[str, ...], Record | float | None]] = []
    for task_id, last in before.missing.items():
        if task_id not in after.missing:
            records.append(((task_id, MISSING), None))
            if task_id in after:
                records.append(((task_id,), last))
    records += [((change.id,), _kept(change.now)) for change in changes]
    for task_id, last in after.missing.items():
        if task_id not in before.missing:
            records += [((task_id,), None), ((task_id, MISSING), last)]
    return records


def _kept(record: Record) -> Record | float:
    return record.changed if record.is_settled else record


def _is_correction(record: Record, since: float) -> bool:
    """Whether reading by changes should have brought this, and did not."""
    return record.changed < since and record.state not in ("running", "preparing")


def _events(changes: Iterable[Change]) -> Iterator[tuple[Key, float]]:
    for known in (*CATEGORIES, UNKNOWN):
        yield (FAILED.name, (known,)), 0
    yield (RETRIES.name, ()), sum(change.retries for change in changes)
    yield (REQUEUES.name, ()), sum(change.requeues for change in changes)
    for change in changes:
        category, code = change.now.category, change.now.code
        if change.fails and category is not None and code is not None:
            yield (FAILED.name, (category,)), 1
            yield (CODES.name, (category, code)), 1


def _observations(changes: Iterable[Change]) -> Increments:
    runs = [
        now.ended - now.started
        for change in changes
        if change.completes and (now := change.now).ended is not None and now.started is not None
    ]
    waits = [
        now.started - now.created
        for change in changes
        if change.starts and (now := change.now).started is not None and now.created is not None
    ]
    return {**RUN.observed({(): runs}), **WAIT.observed({(): waits})}


METRICS: tuple[Metric[JobTasks], ...] = (
    Metric(
        "azure_batch_job_failed_tasks",
        "gauge",
        "Tasks of the job that failed and were not reactivated, by category and code",
        f"{OPERATION} executionInfo.result, .failureInfo",
        ("category", "code"),
        lambda state: sorted(state.tasks.failed.items()),
    ),
    Metric(
        "azure_batch_job_oldest_active_task_created_timestamp_seconds",
        "gauge",
        "When the task of the job was created that waits the longest; tasks that wait for others"
        " included",
        f"{OPERATION} creationTime",
        (),
        lambda state: only(state.tasks.oldest_active),
        merge=min,
    ),
    Metric(
        "azure_batch_job_oldest_running_task_start_timestamp_seconds",
        "gauge",
        "When the longest running task of the job started",
        f"{OPERATION} executionInfo.startTime",
        (),
        lambda state: only(state.tasks.oldest_running),
        merge=min,
    ),
)

FAILED = counter(
    "azure_batch_job_tasks_failed_total",
    "Tasks of the job that failed, by category; one that is reactivated may fail again",
    f"{OPERATION} executionInfo.result, .failureInfo.category",
    ("category",),
)
CODES = counter(
    "azure_batch_job_task_failure_codes_total",
    "Tasks of the job that failed, by category and code",
    f"{OPERATION} executionInfo.result, .failureInfo",
    ("category", "code"),
)
RETRIES = counter(
    "azure_batch_job_task_retries_total",
    "Retries of the job's tasks after they failed",
    f"growth of {OPERATION} executionInfo.retryCount",
    (),
)
REQUEUES = counter(
    "azure_batch_job_task_requeues_total",
    "Times that tasks of the job were put back into the queue, as when they lost their node",
    f"growth of {OPERATION} executionInfo.requeueCount",
    (),
)
ACCOUNT_FAILED = counter(
    "azure_batch_account_tasks_failed_total",
    "Tasks of all selected jobs together that failed, by category, where the collector tasks reads"
    " them",
    f"{OPERATION} executionInfo.result, .failureInfo.category",
    ("category",),
)

RUN = histogram(
    "azure_batch_task_run_seconds",
    "How long the last attempt of each task took that completed, of the jobs of a group or of all"
    " jobs without one",
    f"{OPERATION} executionInfo.endTime - .startTime",
    (),
    RUN_SECONDS,
)
WAIT = histogram(
    "azure_batch_task_wait_seconds",
    "How long tasks waited from their creation to their start, of the jobs of a group or of all"
    " jobs without one; not of tasks that were retried or requeued before they were seen to start",
    f"{OPERATION} executionInfo.startTime - creationTime",
    (),
    WAIT_SECONDS,
)


class _Saved(msgspec.Struct):
    """The state without the tasks."""

    read_at: float
    listed_at: float


def dump(state: JobTasks) -> bytes:
    """The state without the tasks, which are its records."""
    return msgspec.json.encode(_Saved(state.read_at, state.listed_at))


def load(saved: bytes, records: Mapping[tuple[str, ...], bytes]) -> JobTasks:
    """The state that was dumped."""
    known = msgspec.json.decode(saved, type=_Saved)
    tasks: dict[str, Record | float] = {}
    missing: dict[str, Record | float] = {}
    for (task_id, *is_missing), record in records.items():
        place = missing if is_missing else tasks
        place[task_id] = msgspec.json.decode(record, type=Record | float)
    return JobTasks(Tasks.of(tasks.items(), missing), known.read_at, known.listed_at)


COLLECTOR = JobCollector(
    "tasks",
    read,
    fold,
    METRICS,
    dump=dump,
    load=load,
    counters=(FAILED, CODES, RETRIES, REQUEUES),
    account={FAILED.name: AccountRow(ACCOUNT_FAILED, (0,))},
    histograms=(RUN, WAIT),
    lists=True,
)
