"""One healthy job on one pool with preparation and release, as every collector sees it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from exporter.batch.models import (
    Counts,
    Job,
    JobExecutionInfo,
    NodeTaskStatus,
    SpecialTaskExecutionInfo,
    Task,
    TaskCountsResult,
    TaskExecutionInfo,
    TaskStatistics,
)
from exporter.collectors import preparation_release, task_counts, tasks
from exporter.collectors.node_runs import ListedRuns
from exporter.collectors.task_records import record_of
from exporter.collectors.watched_tasks import WatchedTasks
from exporter.config import Defaults, Rule
from exporter.state import table_names
from exporter.state.counters import Counters
from exporter.state.watched_job import Outcome, WatchedJob

_TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_COUNTS = Counts(active=10, running=2, completed=5, succeeded=5, failed=0)
_RUNNING = SpecialTaskExecutionInfo(state="running", start_time=_TIME)

JOB = Job(
    "job-1",
    state="active",
    creation_time=_TIME,
    priority=0,
    uses_task_dependencies=False,
    execution_info=JobExecutionInfo(start_time=_TIME, pool_id="pool-1"),
)

_TASK_COUNTS = task_counts.fold(
    None, TaskCountsResult(task_counts=_COUNTS, task_slot_counts=_COUNTS), 0.0, True
)


def nodes_read(
    pool_id: str,
    nodes: Sequence[NodeTaskStatus],
    started: float = 0.0,
    since: float | None = None,
) -> preparation_release.Reading:
    """The reading of these nodes, on one page."""
    listing = preparation_release.Listing(ListedRuns)
    preparation_release.add_page(listing, nodes)
    return preparation_release.Reading(pool_id, listing, started, since)


_NODES = preparation_release.fold(
    None,
    nodes_read("pool-1", (NodeTaskStatus("pool-1", "node-1", _RUNNING, _RUNNING),)),
    0.0,
    True,
)
_TASKS = tasks.fold(
    None,
    tasks.Reading(
        tuple(
            (task.id, record_of(task))
            for task in (
                Task("waits", state="active", creation_time=_TIME),
                Task("runs", state="running", execution_info=TaskExecutionInfo(start_time=_TIME)),
            )
        )
    ),
    0.0,
    True,
)

_WATCHED = Task(
    "task-1",
    state="completed",
    creation_time=_TIME,
    required_slots=1,
    execution_info=TaskExecutionInfo(
        start_time=_TIME, end_time=_TIME, exit_code=0, retry_count=0, requeue_count=0
    ),
    stats=TaskStatistics(
        user_cpu_time="PT1S",
        kernel_cpu_time="PT1S",
        wall_clock_time="PT1S",
        wait_time="PT1S",
        read_iops=1,
        write_iops=1,
        read_io_gib=1.0,
        write_io_gib=1.0,
    ),
)

SAMPLE_SNAPSHOTS: Mapping[str, Any] = {
    table_names.JOB: WatchedJob(JOB, Rule(id="job-1")),
    "task_counts": _TASK_COUNTS.state,
    table_names.counters_of("task_counts"): Counters().add(_TASK_COUNTS.events.increments),
    "preparation_release": _NODES.state,
    table_names.counters_of("preparation_release"): Counters().add(_NODES.events.increments),
    "tasks": _TASKS.state,
    table_names.counters_of("tasks"): Counters().add(_TASKS.events.increments),
    "watched_tasks": WatchedTasks({"task-1": _WATCHED}),
    table_names.counters_of("watched_tasks"): Counters(),
    table_names.JOB_HEALTH: dict.fromkeys(Defaults().collect, Outcome(None, None, 0.0)),
}
"""By name of the table."""
