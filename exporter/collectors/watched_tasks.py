"""Tasks that a rule names, watched one by one (Task_Get with its statistics).

Each is one request a poll. The eTag of a task is no help: that of a job stays when the job
completes, and a task's retries and use of resources come without another state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from exporter.batch.client import BatchClient
from exporter.batch.errors import TaskGone
from exporter.batch.failure_codes import category
from exporter.batch.models import (
    OTHER,
    Task,
    TaskExecutionInfo,
    TaskStatistics,
    enum_value,
    result_of,
    unix_time,
)
from exporter.batch.spellings import Spellings
from exporter.collectors.task_records import STATES
from exporter.collectors.tasks import failure_of
from exporter.collectors.wire_values import value_at
from exporter.config.rule import WATCHED_TASKS
from exporter.exposition.metric import Merge, Metric, Samples, info, only, state_set
from exporter.state.collector import Events, Folded, JobCollector
from exporter.state.failures import is_command_line
from exporter.state.watched_job import WatchedJob

OPERATION = "Task_Get"

GIB = 2**30

_NOTHING = TaskExecutionInfo()


@dataclass(frozen=True)
class Found:
    """A task as it was read. `whole_at`: Unix time at which its whole body last was.

    `code`: the label for its failure's code, "" while it is not failed; None: not known, because an
    earlier version saved it.
    """

    task: Task
    whole_at: float
    code: str | None = None

    @classmethod
    def of(cls, task: Task, now: float, spellings: Spellings) -> Found:
        """A task that was read now."""
        failure = (task.execution_info or _NOTHING).failure_info
        code = spellings.code(failure.code if failure else None) if has_failed(task) else ""
        return cls(task, now, code)


@dataclass(frozen=True)
class WatchedTasks:
    """The watched tasks of one job that exist, by the id that the rule gives them."""

    found: Mapping[str, Found] = field(default_factory=dict)


async def read(
    client: BatchClient, watched: WatchedJob, state: WatchedTasks | None, now: float
) -> WatchedTasks:
    """Get each task that the rule names; one that does not exist is left out."""
    job_id, rule = watched.job.id, watched.rule
    before = state.found if state else {}
    found = {}
    for task_id in rule.tasks:
        known = before.get(task_id)
        if known is not None and not may_ask_by_etag(known, now, rule.resync_interval):
            known = None
        try:
            task = await client.get_task(job_id, task_id, known.task.e_tag if known else None)
        except TaskGone:
            continue
        if task is not None:
            task = task if rule.command_lines else without_command_line(task)
            found[task_id] = Found.of(task, now, client.spellings)
        elif known is not None:
            found[task_id] = known
    return WatchedTasks(found)


def without_command_line(task: Task) -> Task:
    """The task without the detail CommandLine of its failure: the state file has what is kept."""
    info = task.execution_info
    if info is None or info.failure_info is None or not info.failure_info.details:
        return task
    details = tuple(each for each in info.failure_info.details if not is_command_line(each))
    failure = replace(info.failure_info, details=details)
    return replace(task, execution_info=replace(info, failure_info=failure))


def may_ask_by_etag(known: Found, now: float, resync_interval: float) -> bool:
    """Whether an unchanged eTag would prove that nothing of the task has changed.

    The documentation says so, but the eTag of a job does not change when the job completes. So it
    is trusted only if it followed a change of state before, and only while the task does not run:
    retries and statistics change without a new state. After the end statistics may change again.
    """
    task = known.task
    changed, modified = unix_time(task.state_transition_time), unix_time(task.last_modified)
    created = unix_time(task.creation_time)
    if None in (task.e_tag, known.code) or changed is None or modified is None or created is None:
        return False
    if not 0 <= now - known.whole_at < resync_interval:  # a clock may be set back
        return False
    if not created < changed <= modified:
        return False
    state = enum_value(task.state, STATES)
    if state == "completed":
        info, stats = task.execution_info or _NOTHING, task.stats or TaskStatistics()
        ended, summed = unix_time(info.end_time), unix_time(stats.last_update_time)
        never_ran = unix_time(info.start_time) is None
        return never_ran or (ended is not None and summed is not None and summed >= ended)
    return state == "active"


def fold(
    state: WatchedTasks | None, reading: WatchedTasks, _now: float, _is_new: bool
) -> Folded[WatchedTasks]:
    """What was read is the state; nothing is counted."""
    before = state.found if state else {}
    failures = [
        failure_of(found.task, command_lines=True)  # `read` has left out those that are not kept
        for task_id, found in reading.found.items()
        if found != before.get(task_id) and has_failed(found.task)
    ]
    is_busy = any(
        enum_value(found.task.state, STATES) != "completed" for found in reading.found.values()
    )
    return Folded(reading, Events(failures=failures), is_busy)


def has_failed(task: Task) -> bool:
    """Whether it is over and failed."""
    info = task.execution_info or _NOTHING
    return enum_value(task.state, STATES) == "completed" and result_of(info) == "failure"


def _value(path: str) -> Callable[[Found], float | None]:
    value = value_at(path, Task, TaskExecutionInfo, TaskStatistics)
    return lambda found: value(found.task)


def _only(path: str) -> Callable[[Found], Samples]:
    value = _value(path)
    return lambda found: only(value(found))


def _failure(found: Found) -> Samples:
    if not has_failed(found.task):
        return []
    execution = found.task.execution_info or _NOTHING
    return info(category(execution.failure_info), found.code or OTHER)


def _cpu(found: Found) -> Samples:
    return [(("user",), _user_seconds(found)), (("kernel",), _kernel_seconds(found))]


_user_seconds, _kernel_seconds = _value("stats.userCPUTime"), _value("stats.kernelCPUTime")


def _bytes(path: str) -> Callable[[Found], Samples]:
    gib = _value(path)

    def samples(found: Found) -> Samples:
        value = gib(found)
        return only(round(value * GIB) if value is not None and math.isfinite(value) else value)

    return samples


def _row(
    name: str,
    help_: str,
    path: str,
    samples: Callable[[Found], Samples] | None = None,
    labels: tuple[str, ...] = (),
    merge: Merge | None = sum,
) -> Metric[WatchedTasks]:
    """A row of the table. `samples`: those of one task; None: the value at the path."""
    of_task = samples or _only(path)

    def of_each(state: WatchedTasks) -> Samples:
        return [
            ((each.task.id, *own), value)
            for each in state.found.values()
            for own, value in of_task(each)
        ]

    source = f"{OPERATION} {path}"
    name = f"azure_batch_task_{name}"
    return Metric(name, "gauge", help_, source, ("task_id", *labels), of_each, merge)


METRICS: tuple[Metric[WatchedTasks], ...] = (
    _row(
        "state",
        "State of the watched task: 1 for the current one, 0 for the others",
        "state",
        lambda found: state_set(STATES, enum_value(found.task.state, STATES)),
        ("state",),
    ),
    _row(
        "exit_code",
        "Exit code of the watched task's last attempt",
        "executionInfo.exitCode",
        merge=None,
    ),
    _row("retries", "How often the watched task was retried", "executionInfo.retryCount"),
    _row(
        "requeues",
        "How often the watched task was put back into the queue",
        "executionInfo.requeueCount",
    ),
    _row("required_slots", "Task slots that the watched task needs on a node", "requiredSlots"),
    _row(
        "created_timestamp_seconds",
        "When the watched task was created",
        "creationTime",
        merge=min,
    ),
    _row(
        "started_timestamp_seconds",
        "When the last attempt of the watched task started",
        "executionInfo.startTime",
        merge=min,
    ),
    _row(
        "ended_timestamp_seconds",
        "When the watched task completed",
        "executionInfo.endTime",
        merge=max,
    ),
    _row(
        "failure",
        "Present with 1 while the watched task is failed",
        "executionInfo.result, .failureInfo",
        _failure,
        ("category", "code"),
    ),
    _row(
        "stats_cpu_seconds",
        "CPU time that the watched task has used, by mode",
        "stats.userCPUTime, .kernelCPUTime",
        _cpu,
        ("mode",),
        merge=math.fsum,
    ),
    _row(
        "stats_wall_clock_seconds",
        "Time for which the watched task has run, all attempts together",
        "stats.wallClockTime",
        merge=math.fsum,
    ),
    _row(
        "stats_wait_seconds",
        "Time for which the watched task waited before it ran",
        "stats.waitTime",
        merge=math.fsum,
    ),
    _row("stats_read_ops", "Disk read operations of the watched task", "stats.readIOps"),
    _row("stats_write_ops", "Disk write operations of the watched task", "stats.writeIOps"),
    _row(
        "stats_read_bytes",
        "Bytes that the watched task has read from disk",
        "stats.readIOGiB",
        _bytes("stats.readIOGiB"),
    ),
    _row(
        "stats_written_bytes",
        "Bytes that the watched task has written to disk",
        "stats.writeIOGiB",
        _bytes("stats.writeIOGiB"),
    ),
)

COLLECTOR = JobCollector(
    WATCHED_TASKS,
    OPERATION,
    read,
    fold,
    METRICS,
    dump=msgspec.json.encode,
    load=lambda saved, _: msgspec.json.decode(saved, type=WatchedTasks),
)
