"""All that is read, and the tables of all families that come from it.

A new collector of jobs is one line in `_COLLECTORS`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from itertools import product
from typing import Any

from exporter.batch.failure_codes import CATEGORIES, UNKNOWN
from exporter.batch.models import RESULTS
from exporter.collectors import (
    health,
    jobs,
    pool_nodes,
    preparation_release,
    task_counts,
    tasks,
    watched_tasks,
)
from exporter.exposition.body import Exposition
from exporter.exposition.metric import Key, Metric, Table
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

_COLLECTORS: tuple[JobCollector[Any, Any], ...] = (
    task_counts.COLLECTOR,
    preparation_release.COLLECTOR,
    tasks.COLLECTOR,
    watched_tasks.COLLECTOR,
)
JOB_COLLECTORS: Mapping[str, JobCollector[Any, Any]] = {each.name: each for each in _COLLECTORS}

_ACCOUNT_COUNTERS = [counter.row for each in _COLLECTORS for counter in each.account.values()]
_HISTOGRAMS = [
    *jobs.COUNTERS,
    *(histogram.row for each in _COLLECTORS for histogram in each.histograms),
]


def tables(
    info_labels: tuple[str, ...] = (), excluded: Container[str] = ()
) -> Mapping[str, Table[Any]]:
    """Every table by name, in the order in which its families are exposed.

    `info_labels`: names of the labels that the configuration adds to `azure_batch_job_info`.
    `excluded`: names of families that are left out.
    """
    found: dict[str, Table[Any]] = {}

    def add(name: str, identity: tuple[str, ...], rows: Iterable[Metric[Any]]) -> None:
        found[name] = Table(identity, tuple(row for row in rows if row.name not in excluded))

    account, job = ("account",), ("account", "job_id")
    add(ACCOUNT_HEALTH, account, health.ACCOUNT_METRICS)
    add(SELECTED_JOBS, account, jobs.ACCOUNT_METRICS)
    add(JOB, job, jobs.metrics(info_labels))
    for each in _COLLECTORS:
        add(each.name, job, each.metrics)
        add(counters_of(each.name), job, each.counters)
    add(JOB_HEALTH, job, health.JOB_METRICS)
    add(ACCOUNT_COUNTERS, account, _ACCOUNT_COUNTERS)
    add(HISTOGRAMS, account, _HISTOGRAMS)
    add(POOL_NODES, account, pool_nodes.METRICS)
    return found


_LABEL_VALUES = {"result": RESULTS, "category": (*CATEGORIES, UNKNOWN)}

ACCOUNT_ZEROS: tuple[Key, ...] = tuple(
    (row.name, values)
    for row in _ACCOUNT_COUNTERS
    for values in product(*(_LABEL_VALUES[label] for label in row.labels))
)
"""The counters of an account that begin with 0."""


def new_store(
    exposition: Exposition, journal: Journal | None = None, failures: Failures | None = None
) -> Store:
    """A store of all that the collectors read. `journal`: None: nothing is saved."""
    totals = Totals(exposition, journal, ACCOUNT_ZEROS)
    return Store(exposition, totals, failures or Failures(), JOB_COLLECTORS, jobs.ended)
