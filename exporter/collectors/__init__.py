"""All that is read, and the tables of all families that come from it.

A new collector of a job's things is one line in `JOB_COLLECTORS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from exporter.collectors import health, jobs, pool_nodes, preparation_release, task_counts
from exporter.collectors.collector import JobCollector
from exporter.metric import Table

JOB_COLLECTORS: Mapping[str, JobCollector[Any, Any]] = MappingProxyType(
    {
        collector.name: collector
        for collector in (task_counts.COLLECTOR, preparation_release.COLLECTOR)
    }
)

_ACCOUNT = ("account",)
_JOB = ("account", "job_id")

ACCOUNT_HEALTH = "account health"
JOB_HEALTH = "job health"
SELECTED_JOBS = "selected jobs"
JOB = "job"
POOL_NODES = "pool nodes"

TABLES: Mapping[str, Table[Any]] = MappingProxyType(
    {
        ACCOUNT_HEALTH: Table(_ACCOUNT, health.ACCOUNT_METRICS),
        SELECTED_JOBS: Table(_ACCOUNT, jobs.ACCOUNT_METRICS),
        JOB: Table(_JOB, jobs.METRICS),
        **{name: Table(_JOB, collector.metrics) for name, collector in JOB_COLLECTORS.items()},
        JOB_HEALTH: Table(_JOB, health.JOB_METRICS),
        POOL_NODES: Table(_ACCOUNT, pool_nodes.METRICS),
    }
)
"""Every table, in the order in which its families are exposed."""
