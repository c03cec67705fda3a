"""One healthy job on one pool with preparation and release, as every collector sees it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from exporter import collectors
from exporter.batch.models import (
    Counts,
    Job,
    JobExecutionInfo,
    NodeTaskStatus,
    SpecialTaskExecutionInfo,
    TaskCountsResult,
)
from exporter.collectors import preparation_release, task_counts
from exporter.collectors.health import Health

_TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_COUNTS = Counts(active=10, running=2, completed=5, succeeded=5, failed=0)
_RUNNING = SpecialTaskExecutionInfo(state="running", start_time=_TIME)

JOB = Job(
    "job-1",
    state="active",
    creation_time=_TIME,
    priority=0,
    execution_info=JobExecutionInfo(start_time=_TIME, pool_id="pool-1"),
)

SAMPLE_SNAPSHOTS: Mapping[str, Any] = {
    collectors.JOB: JOB,
    "task_counts": task_counts.fold(
        None, TaskCountsResult(task_counts=_COUNTS, task_slot_counts=_COUNTS), 0.0
    ),
    "preparation_release": preparation_release.fold(
        None,
        preparation_release.Reading(
            "pool-1", (NodeTaskStatus("pool-1", "node-1", _RUNNING, _RUNNING),)
        ),
        0.0,
    ),
    collectors.JOB_HEALTH: dict.fromkeys(collectors.JOB_COLLECTORS, Health(True, 0.0)),
}
"""By name of the table."""
