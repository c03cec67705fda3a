"""Many jobs in the exposition, each as a default configuration shows it, and the same as gauges.

The gauges are what one would write instead: a Gauge of prometheus_client for each family, and a
child of it for each series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge

from exporter import collectors
from exporter.batch.models import Counts
from exporter.collectors.node_runs import PoolRuns
from exporter.exposition.body import Exposition, Format
from exporter.exposition.metric import Identity
from exporter.service.telemetry import AccountTelemetry, Telemetry
from exporter.state import table_names
from exporter.state.counters import Counters
from tools.sample_job import SAMPLE_SNAPSHOTS

TABLES = (
    table_names.JOB,
    "task_counts",
    table_names.counters_of("task_counts"),
    "preparation_release",
    table_names.counters_of("preparation_release"),
    table_names.JOB_HEALTH,
)
"""Of a job that is polled with the collectors that are the default."""

SERIES_OF_A_JOB = sum(
    value is not None
    for name in TABLES
    for row in collectors.tables()[name].metrics
    for _, value in row.samples(SAMPLE_SNAPSHOTS[name])
)
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
    watched = SAMPLE_SNAPSHOTS[table_names.JOB]
    pool_id = f"pool-{number % POOLS}"
    job = msgspec.structs.replace(
        watched.job,
        execution_info=msgspec.structs.replace(watched.job.execution_info, pool_id=pool_id),
        priority=step,
    )
    yield table_names.JOB, identity, msgspec.structs.replace(watched, job=job)
    for table, snapshot in _snapshots(step, pool_id).items():
        yield table, identity, snapshot


@lru_cache(maxsize=2 * POOLS)
def _snapshots(step: int, pool_id: str) -> dict[str, Any]:
    """What jobs on a pool have in common, by table."""
    counts = SAMPLE_SNAPSHOTS["task_counts"]
    nodes = SAMPLE_SNAPSHOTS["preparation_release"]
    shown: dict[str, Any] = {
        "task_counts": msgspec.structs.replace(
            counts,
            tasks=Counts(*[step + n for n in range(5)]),
            slots=Counts(*[step + n for n in range(5)]),
            last_progress=1_790_000_000.123456 + step,
        ),
        "preparation_release": msgspec.structs.replace(
            nodes,
            pools=(pool_id,),
            runs={(task, pool_id): _grown(runs, step) for (task, _), runs in nodes.runs.items()},
        ),
        table_names.JOB_HEALTH: dict.fromkeys(
            SAMPLE_SNAPSHOTS[table_names.JOB_HEALTH], (step % 2 == 0, 1790000000.654321 + step)
        ),
    }
    for name in ("task_counts", "preparation_release"):
        table = table_names.counters_of(name)
        keys = [
            (sample, tuple(pool_id if label == "pool-1" else label for label in labels))
            for sample, labels in SAMPLE_SNAPSHOTS[table].totals
        ]
        totals = dict.fromkeys(keys, step)
        shown[table] = Counters.of(totals, totals)
    assert {table_names.JOB, *shown} == set(TABLES)
    return shown


def _grown(runs: PoolRuns, step: int) -> PoolRuns:
    outcomes = {
        ("running", None, None, None): step,
        ("completed", "success", None, None): step,
        ("completed", "failure", None, None): step,
    }
    return msgspec.structs.replace(runs, outcomes=outcomes, oldest_running=1_790_000_000.5 + step)


def scraped(
    exposition: Exposition, telemetry: Telemetry, format_: Format, *, zipped: bool
) -> tuple[bytes, ...]:
    """All that a scrape does except sending, the exporter's own metrics included.

    The only place of the benchmarks that knows how a body is made.
    """
    body = exposition.body(format_)
    own = telemetry.text(format_, body.series)
    return body.gzip(own) if zipped else (*body.parts(), own)


def own_metrics() -> Telemetry:
    """The exporter's own series of one account, as they are after a while."""
    telemetry = Telemetry("benchmark")
    account = AccountTelemetry(telemetry, "account")
    for operation in ("Job_List", "Job_GetTaskCounts", "Account_ListPoolNodeCounts"):
        for code in ("200", "429", "500", "timeout"):
            account.request_done(operation, code, 0.1)
    for collector in ("jobs", "pool_nodes", *collectors.JOB_COLLECTORS):
        account.poll_done(collector, 0.1)
    return telemetry


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
                for values, value in metric.samples(snapshot):
                    if value is not None:
                        gauges[metric.name].labels(*whose, *values).set(value)
    return registry
