"""Tasks that a rule names, watched one by one (Task_Get with its statistics).

Each is one request a poll. The eTag of a task is no help: that of a job stays when the job
completes, and a task's retries and use of resources come without another state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from exporter.batch.errors import TaskGone
from exporter.batch.failure_codes import category, code
from exporter.batch.models import (
    Task,
    TaskExecutionInfo,
    TaskStatistics,
    duration_seconds,
    enum_value,
    unix_time,
)
from exporter.collectors.task_records import RESULTS, STATES
from exporter.collectors.tasks import failure_of
from exporter.config.rule import WATCHED_TASKS
from exporter.exposition.metric import Merge, Metric, Samples, info, only, state_set
from exporter.state.collector import Events, Folded, JobCollector
from exporter.state.watched_job import WatchedJob

OPERATION = "Task_Get"

GIB = 2**30

_NOTHING = TaskExecutionInfo()
_NO_STATISTICS = TaskStatistics()


class Api(Protocol):
    """What this collector needs of the client."""

    async def get_task(self, job_id: str, task_id: str) -> Task: ...


@dataclass(frozen=True)
class WatchedTasks:
    """The watched tasks of one job that exist, by the id that the rule gives them."""

    found: Mapping[str, Task] = field(default_factory=dict)


async def read(
    api: Api, watched: WatchedJob, _state: WatchedTasks | None, _now: float
) -> WatchedTasks:
    """Ask for each task that the rule names; one that does not exist is left out."""
    found = {}
    for task_id in watched.rule.tasks:
        with suppress(TaskGone):
            found[task_id] = await api.get_task(watched.job.id, task_id)
    return WatchedTasks(found)


def fold(
    state: WatchedTasks | None, reading: WatchedTasks, _now: float, _is_new: bool
) -> Folded[WatchedTasks]:
    """What was read is the state; nothing is counted."""
    before = state.found if state else {}
    failures = [
        failure_of(task)
        for task_id, task in reading.found.items()
        if task != before.get(task_id) and has_failed(task)
    ]
    is_busy = any(enum_value(task.state, STATES) != "completed" for task in reading.found.values())
    return Folded(reading, Events(failures=failures), is_busy)


def has_failed(task: Task) -> bool:
    """Whether it is over and failed, which its exit code does not say."""
    info = task.execution_info or _NOTHING
    return (
        enum_value(task.state, STATES) == "completed"
        and enum_value(info.result, RESULTS) == "failure"
    )


def _state(task: Task) -> Samples:
    return state_set(STATES, enum_value(task.state, STATES))


def _failure(task: Task) -> Samples:
    if not has_failed(task):
        return []
    execution = task.execution_info or _NOTHING
    return info(category(execution.failure_info), code(execution.failure_info))


def _info(value: Callable[[TaskExecutionInfo], float | None]) -> Callable[[Task], Samples]:
    return _one(lambda task: value(task.execution_info or _NOTHING))


def _stats(value: Callable[[TaskStatistics], float | None]) -> Callable[[Task], Samples]:
    return _one(lambda task: value(task.stats or _NO_STATISTICS))


def _one(value: Callable[[Task], float | None]) -> Callable[[Task], Samples]:
    return lambda task: only(value(task))


def _seconds(text: str | None) -> float | None:
    """Seconds of a duration; None where there is none, or none that can be read."""
    if text is None:
        return None
    try:
        return duration_seconds(text)
    except ValueError:
        return None


def _cpu(task: Task) -> Samples:
    stats = task.stats or _NO_STATISTICS
    return [
        (("user",), _seconds(stats.user_cpu_time)),
        (("kernel",), _seconds(stats.kernel_cpu_time)),
    ]


def _bytes(gib: float | None) -> float | None:
    if gib is None:
        return None
    return round(gib * GIB) if math.isfinite(gib) else gib


def _row(
    name: str,
    help_: str,
    field_: str,
    samples: Callable[[Task], Samples],
    labels: tuple[str, ...] = (),
    merge: Merge | None = sum,
) -> Metric[WatchedTasks]:
    def of_each(state: WatchedTasks) -> Samples:
        return [
            ((task.id, *own), value)
            for task in state.found.values()
            for own, value in samples(task)
        ]

    return Metric(
        f"azure_batch_task_{name}",
        "gauge",
        help_,
        f"{OPERATION} {field_}",
        ("task_id", *labels),
        of_each,
        merge,
    )


METRICS: tuple[Metric[WatchedTasks], ...] = (
    _row(
        "state",
        "State of the watched task: 1 for the current one, 0 for the others",
        "state",
        _state,
        ("state",),
    ),
    _row(
        "exit_code",
        "Exit code of the watched task's last attempt",
        "executionInfo.exitCode",
        _info(lambda info: info.exit_code),
        merge=None,
    ),
    _row(
        "retries",
        "How often the watched task was retried",
        "executionInfo.retryCount",
        _info(lambda info: info.retry_count),
    ),
    _row(
        "requeues",
        "How often the watched task was put back into the queue",
        "executionInfo.requeueCount",
        _info(lambda info: info.requeue_count),
    ),
    _row(
        "required_slots",
        "Task slots that the watched task needs on a node",
        "requiredSlots",
        _one(lambda task: task.required_slots),
    ),
    _row(
        "created_timestamp_seconds",
        "When the watched task was created",
        "creationTime",
        _one(lambda task: unix_time(task.creation_time)),
        merge=min,
    ),
    _row(
        "started_timestamp_seconds",
        "When the last attempt of the watched task started",
        "executionInfo.startTime",
        _info(lambda info: unix_time(info.start_time)),
        merge=min,
    ),
    _row(
        "ended_timestamp_seconds",
        "When the watched task completed",
        "executionInfo.endTime",
        _info(lambda info: unix_time(info.end_time)),
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
    ),
    _row(
        "stats_wall_clock_seconds",
        "Time for which the watched task has run, all attempts together",
        "stats.wallClockTime",
        _stats(lambda stats: _seconds(stats.wall_clock_time)),
    ),
    _row(
        "stats_wait_seconds",
        "Time for which the watched task waited before it ran",
        "stats.waitTime",
        _stats(lambda stats: _seconds(stats.wait_time)),
    ),
    _row(
        "stats_read_ops",
        "Disk read operations of the watched task",
        "stats.readIOps",
        _stats(lambda stats: stats.read_iops),
    ),
    _row(
        "stats_write_ops",
        "Disk write operations of the watched task",
        "stats.writeIOps",
        _stats(lambda stats: stats.write_iops),
    ),
    _row(
        "stats_read_bytes",
        "Bytes that the watched task has read from disk",
        "stats.readIOGiB",
        _stats(lambda stats: _bytes(stats.read_io_gib)),
    ),
    _row(
        "stats_written_bytes",
        "Bytes that the watched task has written to disk",
        "stats.writeIOGiB",
        _stats(lambda stats: _bytes(stats.write_io_gib)),
    ),
)

COLLECTOR = JobCollector(
    WATCHED_TASKS,
    read,
    fold,
    METRICS,
    dump=msgspec.json.encode,
    load=lambda saved, _: msgspec.json.decode(saved, type=WatchedTasks),
)
