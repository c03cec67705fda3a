"""What is exposed of many jobs, each as a default configuration shows it, and the same as gauges.

Whoever would not use this program's exposition would keep a Gauge of prometheus_client for each
family and set a child of it for each series.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge

from exporter import collectors
from exporter.batch.models import Counts
from exporter.collectors.health import Health
from exporter.collectors.node_runs import Runs
from exporter.collectors.run import RESULTS, STATES
from exporter.counters import Counters
from exporter.exposition import Exposition, Format
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


def show(exposition: Exposition, jobs: Iterable[int], step: int) -> None:
    """New snapshots of these jobs; from step to step each number of theirs is another one."""
    for number in jobs:
        show_job(exposition, number, step)


def show_job(exposition: Exposition, number: int, step: int) -> None:
    """New snapshots of one job."""
    identity = (("account", "account"), ("job_id", f"nf-rnaseq-{number}"))
    for table, snapshot in snapshots(step).items():
        exposition.put(table, identity, snapshot)


@lru_cache(maxsize=2)
def snapshots(step: int) -> dict[str, Any]:
    """What polls bring of a job, by table."""
    watched = SAMPLE_SNAPSHOTS[collectors.JOB]
    counts = SAMPLE_SNAPSHOTS["task_counts"]
    nodes = SAMPLE_SNAPSHOTS["preparation_release"]
    shown: dict[str, Any] = {
        collectors.JOB: replace(watched, job=msgspec.structs.replace(watched.job, priority=step)),
        "task_counts": replace(
            counts,
            tasks=Counts(*[step + n for n in range(5)]),
            slots=Counts(*[step + n for n in range(5)]),
            last_progress=1_790_000_000.123456 + step,
        ),
        "preparation_release": replace(
            nodes, preparation=_grown(nodes.preparation, step), release=_grown(nodes.release, step)
        ),
        collectors.JOB_HEALTH: {
            name: Health(step % 2 == 0, 1_790_000_000.654321 + step)
            for name in SAMPLE_SNAPSHOTS[collectors.JOB_HEALTH]
        },
    }
    for name in ("task_counts", "preparation_release"):
        table = collectors.counters_of(name)
        totals = dict.fromkeys(SAMPLE_SNAPSHOTS[table].totals, step)
        shown[table] = Counters.of(totals, totals)
    assert tuple(sorted(shown)) == tuple(sorted(TABLES))
    return shown


def _grown(runs: Runs, step: int) -> Runs:
    tally = {
        (what, ("pool-1", value)): step
        for what, values in (("state", STATES), ("result", RESULTS))
        for value in values
    }
    return replace(runs, tally=tally, running={"pool-1": {"node-1": 1_790_000_000.5 + step}})


def shown(series: int) -> tuple[Exposition, int]:
    """An exposition of at least so many series, and its number of jobs."""
    exposition = Exposition(collectors.tables())
    jobs = -(-series // SERIES_OF_A_JOB)
    show(exposition, range(jobs), 0)
    assert exposition.body(Format.TEXT).series == jobs * SERIES_OF_A_JOB
    return exposition, jobs


def gauges(jobs: int) -> CollectorRegistry:
    """Gauges with exactly the series that are shown of so many jobs."""
    registry = CollectorRegistry()
    tables = collectors.tables()
    for name, snapshot in snapshots(0).items():
        for metric in tables[name].metrics:
            labels = (*tables[name].identity, *metric.labels)
            # As a gauge prometheus_client writes it as it is named.
            gauge = Gauge(metric.name, metric.documentation, labels, registry=registry)
            for number in range(jobs):
                for values, value in metric.samples(snapshot):
                    gauge.labels("account", f"nf-rnaseq-{number}", *values).set(value)
    return registry
