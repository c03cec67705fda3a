"""What is exposed of many jobs, each as a default configuration shows it, and the same as gauges.

Whoever would not use this program's exposition would keep a Gauge of prometheus_client for each
family and set a child of it for each series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge

from exporter import collectors
from exporter.batch.models import Counts
from exporter.collectors.health import Health
from exporter.collectors.node_run import RESULTS, STATES
from exporter.collectors.node_runs import Runs
from exporter.collectors.tally import Tally
from exporter.exposition.body import Exposition, Format
from exporter.exposition.metric import Identity
from exporter.state.counters import Counters
from tools.sample_job import SAMPLE_SNAPSHOTS

TABLES = (
    collectors.JOB,
    "task_counts",
    collectors.counters_of("task_counts"),
    "preparation_release",
    collectors.counters_of("preparation_release"),
    collectors.JOB_HEALTH,
)
"""Of a job that is polled with the collectors that are the default."""

SERIES_OF_A_JOB = 53
POOLS = 7

Polled = tuple[str, Identity, Any]
"""A table, whose snapshot it is, and the snapshot."""


def show(exposition: Exposition, polled: Iterable[Polled]) -> None:
    """Put what polls have brought."""
    for table, identity, snapshot in polled:
        exposition.put(table, identity, snapshot)


def polled(number: int, step: int) -> Iterator[Polled]:
    """What polls bring of one job; from step to step each number of it is another one.

    Jobs run on several pools.
    """
    identity = (("account", "account"), ("job_id", f"nf-rnaseq-{number}"))
    watched = SAMPLE_SNAPSHOTS[collectors.JOB]
    pool_id = f"pool-{number % POOLS}"
    job = msgspec.structs.replace(
        watched.job,
        execution_info=msgspec.structs.replace(watched.job.execution_info, pool_id=pool_id),
        priority=step,
    )
    yield collectors.JOB, identity, replace(watched, job=job)
    for table, snapshot in _snapshots(step, pool_id).items():
        yield table, identity, snapshot


@lru_cache(maxsize=2 * POOLS)
def _snapshots(step: int, pool_id: str) -> dict[str, Any]:
    """What jobs on a pool have in common, by table."""
    counts = SAMPLE_SNAPSHOTS["task_counts"]
    nodes = SAMPLE_SNAPSHOTS["preparation_release"]
    shown: dict[str, Any] = {
        "task_counts": replace(
            counts,
            tasks=Counts(*[step + n for n in range(5)]),
            slots=Counts(*[step + n for n in range(5)]),
            last_progress=1_790_000_000.123456 + step,
        ),
        "preparation_release": replace(
            nodes,
            pools=(pool_id,),
            preparation=_grown(nodes.preparation, step, pool_id),
            release=_grown(nodes.release, step, pool_id),
        ),
        collectors.JOB_HEALTH: {
            name: Health(step % 2 == 0, 1_790_000_000.654321 + step)
            for name in SAMPLE_SNAPSHOTS[collectors.JOB_HEALTH]
        },
    }
    for name in ("task_counts", "preparation_release"):
        table = collectors.counters_of(name)
        keys = [
            (sample, tuple(pool_id if label == "pool-1" else label for label in labels))
            for sample, labels in SAMPLE_SNAPSHOTS[table].totals
        ]
        totals = dict.fromkeys(keys, step)
        shown[table] = Counters.of(totals, totals)
    assert {collectors.JOB, *shown} == set(TABLES)
    return shown


def _grown(runs: Runs, step: int, pool_id: str) -> Runs:
    tally = Tally(
        {
            (what, (pool_id, value)): step
            for what, values in (("state", STATES), ("result", RESULTS))
            for value in values
        }
    )
    return replace(runs, tally=tally, running=((pool_id, "node-1", 1_790_000_000.5 + step),))


def shown(series: int) -> tuple[Exposition, int]:
    """An exposition of at least so many series, and its number of jobs."""
    exposition = Exposition(collectors.tables())
    jobs = -(-series // SERIES_OF_A_JOB)
    for number in range(jobs):
        show(exposition, polled(number, 0))
    assert exposition.body(Format.TEXT).series == jobs * SERIES_OF_A_JOB
    return exposition, jobs


def gauges(jobs: int) -> CollectorRegistry:
    """Gauges with exactly the series that are shown of so many jobs."""
    registry = CollectorRegistry()
    tables = collectors.tables()
    # As a gauge prometheus_client writes each as it is named.
    gauges = {
        metric.name: Gauge(
            metric.name,
            metric.documentation,
            (*tables[name].identity, *metric.labels),
            registry=registry,
        )
        for name in TABLES
        for metric in tables[name].metrics
    }
    for number in range(jobs):
        for name, identity, snapshot in polled(number, 0):
            whose = [value for _, value in identity]
            for metric in tables[name].metrics:
                for values, value in zip(*metric.samples(snapshot), strict=True):
                    gauges[metric.name].labels(*whose, *values).set(value)
    return registry
