"""All that is read, and the tables of all families that come from it.

A new collector of a job's things is one line in `JOB_COLLECTORS`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from itertools import product
from types import MappingProxyType
from typing import Any

from exporter.batch.failure_codes import CATEGORIES, UNKNOWN
from exporter.collectors import (
    health,
    jobs,
    pool_nodes,
    preparation_release,
    task_counts,
    tasks,
    watched_tasks,
)
from exporter.collectors.node_runs import RESULTS
from exporter.exposition.body import Exposition
from exporter.exposition.metric import Key, Table
from exporter.state.collector import JobCollector
from exporter.state.failures import Failures
from exporter.state.store import Store
from exporter.state.table_names import (
    ACCOUNT_COUNTERS,
    ACCOUNT_HEALTH,
    HISTOGRAMS,
    JOB,
    JOB_HEALTH,
    POOL_NODES,
    SELECTED_JOBS,
    counters_of,
)
from exporter.state.totals import Journal, Totals

JOB_COLLECTORS: Mapping[str, JobCollector[Any, Any]] = MappingProxyType(
    {
        collector.name: collector
        for collector in (
            task_counts.COLLECTOR,
            preparation_release.COLLECTOR,
            tasks.COLLECTOR,
            watched_tasks.COLLECTOR,
        )
    }
)

_ACCOUNT = ("account",)
_JOB = ("account", "job_id")


def tables(
    info_labels: tuple[str, ...] = (), excluded: Container[str] = ()
) -> Mapping[str, Table[Any]]:
    """Every table by name, in the order in which its families are exposed.

    `info_labels`: names of the labels that the configuration adds to `azure_batch_job_info`.
    `excluded`: names of families that are left out.
    """
    of_jobs: dict[str, Table[Any]] = {}
    for name, collector in JOB_COLLECTORS.items():
        of_jobs[name] = Table(_JOB, collector.metrics)
        of_jobs[counters_of(name)] = Table(_JOB, collector.counters)
    account_rows = (
        account.row
        for collector in JOB_COLLECTORS.values()
        for account in collector.account.values()
    )
    every: dict[str, Table[Any]] = {
        ACCOUNT_HEALTH: Table(_ACCOUNT, health.ACCOUNT_METRICS),
        SELECTED_JOBS: Table(_ACCOUNT, jobs.ACCOUNT_METRICS),
        JOB: Table(_JOB, jobs.metrics(info_labels)),
        **of_jobs,
        JOB_HEALTH: Table(_JOB, health.JOB_METRICS),
        ACCOUNT_COUNTERS: Table(_ACCOUNT, tuple(account_rows)),
        HISTOGRAMS: Table(
            _ACCOUNT,
            tuple(
                histogram.row
                for collector in JOB_COLLECTORS.values()
                for histogram in collector.histograms
            ),
        ),
        POOL_NODES: Table(_ACCOUNT, pool_nodes.METRICS),
    }
    return {
        name: replace(
            table, metrics=tuple(row for row in table.metrics if row.name not in excluded)
        )
        for name, table in every.items()
    }


_LABEL_VALUES = {"result": RESULTS, "category": (*CATEGORIES, UNKNOWN)}

ACCOUNT_ZEROS: tuple[Key, ...] = tuple(
    (row.name, values)
    for row in tables()[ACCOUNT_COUNTERS].metrics
    for values in product(*(_LABEL_VALUES[label] for label in row.labels))
)
"""The counters of an account that are there from the start."""


def new_store(
    exposition: Exposition, journal: Journal | None = None, failures: Failures | None = None
) -> Store:
    """A store of all that the collectors read. `journal`: None: nothing is saved."""
    totals = Totals(exposition, journal, ACCOUNT_ZEROS)
    return Store(exposition, totals, failures or Failures(), JOB_COLLECTORS)
