"""Job preparation and release on the nodes of a job (Job_ListPreparationAndReleaseTaskStatus)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from exporter.batch.failure_codes import category, code
from exporter.batch.models import (
    Job,
    NodeTaskStatus,
    SpecialTaskExecutionInfo,
    enum_value,
    unix_time,
)
from exporter.collectors.collector import JobCollector
from exporter.errors import TaskNotConfigured
from exporter.metric import Metric, Sample

STATES = ("running", "completed")
RESULTS = ("success", "failure")


class Api(Protocol):
    """What this collector needs of the client."""

    def list_preparation_and_release_task_status(
        self, job_id: str
    ) -> AsyncIterator[tuple[NodeTaskStatus, ...]]: ...


@dataclass(frozen=True)
class Reading:
    """The latest run on each node, or None where the job has neither task.

    `pool_id`: the pool that the job runs on now, "" where it has none.
    """

    pool_id: str
    nodes: tuple[NodeTaskStatus, ...] | None


@dataclass(frozen=True)
class Runs:
    """One kind of task (preparation, or release) on the nodes of one pool: latest run of each.

    `states`, `results`: nodes by state and by result of a completed run; what is not known or not
    given counts as "unknown", or not at all. `failures`: nodes by (category, code).
    `oldest_running`: Unix time of the earliest start among the running.
    """

    states: Mapping[str, int]
    results: Mapping[str, int]
    failures: Mapping[tuple[str, str], int]
    oldest_running: float | None


@dataclass(frozen=True)
class PreparationRelease:
    """Both kinds by pool, in the order of the pool ids.

    `configured`: False where the job has neither task; that never changes in a job's life.
    """

    configured: bool
    preparation: tuple[tuple[str, Runs], ...] = ()
    release: tuple[tuple[str, Runs], ...] = ()


async def read(api: Api, job: Job) -> Reading:
    """Ask for all nodes of one job."""
    # A listing is no snapshot: a node that moved between two pages stands on both.
    nodes: dict[tuple[str | None, str | None], NodeTaskStatus] = {}
    try:
        async for page in api.list_preparation_and_release_task_status(job.id):
            nodes.update(((node.pool_id, node.node_id), node) for node in page)
    except TaskNotConfigured:
        return Reading(job.pool_id, None)
    return Reading(job.pool_id, tuple(nodes.values()))


def fold(_previous: PreparationRelease | None, reading: Reading, _now: float) -> PreparationRelease:
    """Count the nodes. The job's own pool is there from the start, with zeros."""
    if reading.nodes is None:
        return PreparationRelease(configured=False)
    pools = {node.pool_id or "" for node in reading.nodes}
    if reading.pool_id:
        pools.add(reading.pool_id)
    return PreparationRelease(
        configured=True,
        preparation=_by_pool(pools, ((n.pool_id or "", n.preparation) for n in reading.nodes)),
        release=_by_pool(pools, ((n.pool_id or "", n.release) for n in reading.nodes)),
    )


def _by_pool(
    pools: Iterable[str], runs: Iterable[tuple[str, SpecialTaskExecutionInfo | None]]
) -> tuple[tuple[str, Runs], ...]:
    grouped: dict[str, list[SpecialTaskExecutionInfo]] = {pool: [] for pool in sorted(pools)}
    for pool, run in runs:
        if run is not None:
            grouped[pool].append(run)
    return tuple((pool, _count(of_pool)) for pool, of_pool in grouped.items())


def _count(runs: Iterable[SpecialTaskExecutionInfo]) -> Runs:
    states = Counter(dict.fromkeys(STATES, 0))
    results = Counter(dict.fromkeys(RESULTS, 0))
    failures: Counter[tuple[str, str]] = Counter()
    starts: list[float] = []
    for run in runs:
        state = enum_value(run.state, STATES)
        if state is not None:
            states[state] += 1
        if state == "running":
            start = unix_time(run.start_time)
            if start is not None:
                starts.append(start)
            continue
        result = enum_value(run.result, RESULTS)
        if result is not None:
            results[result] += 1
        if result == "failure":
            failures[category(run.failure_info), code(run.failure_info)] += 1
    return Runs(
        MappingProxyType(states),
        MappingProxyType(results),
        MappingProxyType(dict(sorted(failures.items()))),
        min(starts, default=None),
    )


Pools = Callable[[PreparationRelease], tuple[tuple[str, Runs], ...]]


def _counts(pools: Pools, counts: Callable[[Runs], Mapping[str, int]]) -> Samples:
    return lambda status: [
        ((pool, name), number)
        for pool, runs in pools(status)
        for name, number in counts(runs).items()
    ]


Samples = Callable[[PreparationRelease], Iterable[Sample]]


def _rows(kind: str, member: str, pools: Pools) -> tuple[Metric[PreparationRelease], ...]:
    """The families of one kind of task; both kinds have the same."""

    def row(
        name: str, help_: str, field: str, labels: tuple[str, ...], samples: Samples
    ) -> Metric[PreparationRelease]:
        source = f"Job_ListPreparationAndReleaseTaskStatus {member}.{field}"
        return Metric(
            f"azure_batch_job_{kind}_{name}", "gauge", help_, source, ("pool_id", *labels), samples
        )

    return (
        row(
            "tasks",
            f"Nodes by state of their latest run of the job {kind} task, removed nodes included",
            "state",
            ("state",),
            _counts(pools, lambda runs: runs.states),
        ),
        row(
            "completed_tasks",
            f"Nodes by result of their latest completed run of the job {kind} task",
            "result",
            ("result",),
            _counts(pools, lambda runs: runs.results),
        ),
        row(
            "failed_tasks",
            f"Nodes whose latest run of the job {kind} task failed, by category and code",
            "failureInfo",
            ("category", "code"),
            lambda status: [
                ((pool, *failure), number)
                for pool, runs in pools(status)
                for failure, number in runs.failures.items()
            ],
        ),
        row(
            "oldest_running_start_timestamp_seconds",
            f"When the longest running job {kind} task started",
            "startTime",
            (),
            lambda status: [
                ((pool,), runs.oldest_running)
                for pool, runs in pools(status)
                if runs.oldest_running is not None
            ],
        ),
    )


METRICS: tuple[Metric[PreparationRelease], ...] = (
    *_rows("preparation", "jobPreparationTaskExecutionInfo", lambda status: status.preparation),
    *_rows("release", "jobReleaseTaskExecutionInfo", lambda status: status.release),
)

COLLECTOR = JobCollector(
    "preparation_release", read, fold, METRICS, is_settled=lambda status: not status.configured
)
