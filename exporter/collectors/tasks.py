"""Tasks of a job one by one (Task_List): why they fail, how long they wait and run.

Not collected by default: task counts cost one small answer a poll, and this lists tasks. After one
full listing only tasks that changed are read, and those that run: a retry does not change a state.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from exporter.batch import models, odata
from exporter.batch.client import BatchClient
from exporter.batch.failure_codes import CATEGORIES, UNKNOWN
from exporter.batch.spellings import Spellings
from exporter.collectors import known_records
from exporter.collectors.incremental import ReadTimes, missed_before, read_changes
from exporter.collectors.task_records import TaskEvents, TaskRecord, Tasks
from exporter.exposition.metric import Key, Metric, only
from exporter.state.collector import AccountRow, Events, Folded, JobCollector
from exporter.state.counters import Increments, counter
from exporter.state.failures import Failure, latest
from exporter.state.histogram import histogram
from exporter.state.watched_job import WatchedJob

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
"""Bounds of buckets. They are finer up to the minutes that a pool needs to grow. Waits of more than
a day share one bucket."""


@dataclass
class Reading:
    """What a poll read.

    `ids`, `records`: one entry per task, in the order of the answer; a task that stands on two
    pages is there twice. `failures`: the latest of them.
    `started`: when the reading began, in Unix seconds of the service.
    `since`: the listing asked for changes since then; None: it asked for all tasks.
    """

    ids: list[str] = field(default_factory=list)
    records: list[TaskRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    started: float = 0.0
    since: float | None = None

    def add_page(
        self, page: tuple[models.Task, ...], spellings: Spellings, *, command_lines: bool
    ) -> None:
        """Add the tasks of a page. A record takes a third of the memory of the answer's objects."""
        records = [TaskRecord.of(task, spellings) for task in page]
        self.ids += [task.id for task in page]
        self.records += records
        failed = [
            failure_of(task, command_lines=command_lines)
            for task, record in zip(page, records, strict=True)
            if record.result == "failure"
        ]
        if failed:
            self.failures = latest((*self.failures, *failed))


class JobTasks(ReadTimes, frozen=True, gc=False):
    """The tasks of one job."""

    tasks: Tasks = Tasks()


async def read(
    client: BatchClient, watched: WatchedJob, state: JobTasks | None, now: float
) -> Reading:
    """List the tasks of one job that changed or run, or all of them."""
    job, rule = watched.job, watched.rule

    async def list_tasks(since: float | None) -> Reading:
        filter_ = None if since is None else changes_since(since)
        reading = Reading(since=since)
        async for page in client.list_tasks(job.id, filter_, FIELDS):
            reading.add_page(page, client.spellings, command_lines=rule.command_lines)
        return reading

    reading, started = await read_changes(
        client, OPERATION, state, rule.resync_interval, now, list_tasks
    )
    reading.started = started
    return reading


def failure_of(task: models.Task, *, command_lines: bool) -> Failure:
    """The failure of a task, for people."""
    info = task.execution_info or models.TaskExecutionInfo()
    node = task.node_info or models.NodeInfo()
    return Failure.of(
        "task",
        info.failure_info,
        ended=models.unix_time(info.end_time) or models.unix_time(task.state_transition_time),
        command_lines=command_lines,
        container=info.container_info,
        pool_id=node.pool_id,
        node_id=node.node_id,
        task_id=task.id,
        exit_code=info.exit_code,
    )


def changes_since(since: float) -> str:
    """The $filter for tasks that came into their state since then, or that run."""
    moment = odata.literal(dt.datetime.fromtimestamp(since, dt.UTC))
    return odata.any_of(
        (f"stateTransitionTime ge {moment}", "state eq 'running'", "state eq 'preparing'")
    )


def fold(state: JobTasks | None, reading: Reading, _now: float, is_new: bool) -> Folded[JobTasks]:
    """The tasks after a reading, and the events since the reading before.

    The first listing counts only if the job is new: the tasks of an older job may have ended before
    the exporter watched it.
    """
    before, full = state or JobTasks(), reading.since is None
    tasks, events = before.tasks.merged(
        reading.ids,
        reading.records,
        full=full,
        missed_before=missed_before(before, reading.started) if state is not None and full else 0.0,
    )
    known_records.check_number([len(tasks.latest)])
    counted = events if state is not None or is_new else TaskEvents()
    return Folded(
        JobTasks(reading.started, reading.started if full else before.listed_at, tasks),
        Events(
            _increments(counted),
            {**RUN.observed({(): counted.runs}), **WAIT.observed({(): counted.waits})},
            [failure for failure in reading.failures if failure.task_id in events.failed],
            events.corrections,
        ),
        is_busy=tasks.is_busy,
        records=tasks.changed_since(before.tasks, reading.ids),
    )


def _increments(events: TaskEvents) -> Increments:
    """What the events add to the counters, which begin with 0."""
    increments: dict[Key, float] = {
        (FAILED.name, (category,)): 0 for category in (*CATEGORIES, UNKNOWN)
    }
    for (category, code), number in events.codes.items():
        increments[FAILED.name, (category,)] += number
        increments[CODES.name, (category, code)] = number
    increments[RETRIES.name, ()] = events.retries
    increments[REQUEUES.name, ()] = events.requeues
    return increments


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
    "Tasks that failed, by category, of all jobs for which a rule has the collector tasks",
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


def dump(state: JobTasks) -> bytes:
    """The state without the tasks, which are its records."""
    return msgspec.json.encode(ReadTimes(state.read_at, state.listed_at))


def load(saved: bytes, records: Mapping[tuple[str, ...], bytes]) -> JobTasks:
    """The state that was dumped."""
    times = msgspec.json.decode(saved, type=ReadTimes)
    found: dict[str, TaskRecord | float] = {}
    missing: dict[str, TaskRecord | float] = {}
    for (task_id, *is_missing), record in records.items():
        known = msgspec.json.decode(record, type=TaskRecord | float)
        (missing if is_missing else found)[task_id] = known
    return JobTasks(times.read_at, times.listed_at, Tasks.of(found, missing))


COLLECTOR = JobCollector(
    "tasks",
    OPERATION,
    read,
    fold,
    METRICS,
    dump=dump,
    load=load,
    records=lambda state: state.tasks.all(),
    counters=(FAILED, CODES, RETRIES, REQUEUES),
    account={FAILED.name: AccountRow(ACCOUNT_FAILED, (0,))},
    histograms=(RUN, WAIT),
    lists=True,
)
