"""Job preparation and release on the nodes of a job (Job_ListPreparationAndReleaseTaskStatus).

The list has an entry for every node that ever ran one of the tasks, so it may be long. After one
full listing only what changed is read; a full listing now and then corrects what that missed.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from exporter.batch import odata
from exporter.batch.failure_codes import CATEGORIES, UNKNOWN
from exporter.batch.models import NodeTaskStatus, SpecialTaskExecutionInfo
from exporter.collectors import incremental
from exporter.collectors.collector import AccountRow, Folded, JobCollector
from exporter.collectors.incremental import missed_before, read_changes
from exporter.collectors.node_runs import RESULTS, STATES, Change, Node, Run, Runs, run_of
from exporter.counters import CounterRow, Key, counter, total
from exporter.errors import TaskNotConfigured
from exporter.histogram import Histogram, histogram
from exporter.metric import Merge, Metric, Sample
from exporter.selection import WatchedJob

OPERATION = "Job_ListPreparationAndReleaseTaskStatus"

PREPARATION = "jobPreparationTaskExecutionInfo"
RELEASE = "jobReleaseTaskExecutionInfo"

DURATIONS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds. From a script that only makes a directory to downloads that hold up a whole node."""


class Api(incremental.Api, Protocol):
    """What this collector needs of the client."""

    def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[NodeTaskStatus, ...]]: ...


@dataclass(frozen=True)
class Reading:
    """Nodes as read, or None where the job has neither task.

    `pool_id`: the pool that the job runs on now, "" where it has none.
    `started`: when the reading began, in Unix seconds of the service.
    `since`: changes from then on were asked for; None: all nodes were.
    """

    pool_id: str
    nodes: tuple[NodeTaskStatus, ...] | None
    started: float = 0.0
    since: float | None = None


@dataclass(frozen=True)
class PreparationRelease:
    """Both kinds of task on all nodes.

    `configured`: False where the job has neither task; that never changes in a job's life.
    `pools`: every pool that was met, the job's own first of all.
    `read_at`, `listed_at`: when the last reading and the last full one began, by the service's
    clock.
    """

    configured: bool
    pools: tuple[str, ...] = ()
    preparation: Runs = field(default_factory=Runs)
    release: Runs = field(default_factory=Runs)
    read_at: float = 0.0
    listed_at: float = 0.0


async def read(
    api: Api, watched: WatchedJob, state: PreparationRelease | None, now: float
) -> Reading:
    """Ask for what changed on the nodes of one job, or for all of them."""
    job, resync_interval = watched.job, watched.rule.resync_interval
    nodes, extent = await read_changes(
        api, OPERATION, state, resync_interval, now, lambda since: _nodes(api, job.id, since)
    )
    return Reading(job.pool_id, nodes, extent.started, extent.since)


async def _nodes(api: Api, job_id: str, since: float | None) -> tuple[NodeTaskStatus, ...] | None:
    filter_ = None if since is None else changes_since(since)
    nodes: list[NodeTaskStatus] = []
    try:
        async for page in api.list_preparation_and_release_task_status(job_id, filter_):
            nodes += page
    except TaskNotConfigured:
        return None
    return tuple(nodes)


def changes_since(since: float) -> str:
    """The $filter for nodes on which something started or ended since, or runs now."""
    moment = odata.literal(dt.datetime.fromtimestamp(since, dt.UTC))
    return odata.any_of(
        term
        for member in (PREPARATION, RELEASE)
        for term in (
            f"{member}/startTime ge {moment}",
            f"{member}/endTime ge {moment}",
            f"{member}/state eq 'running'",
        )
    )


def fold(
    state: PreparationRelease | None, reading: Reading, _now: float, is_new: bool
) -> Folded[PreparationRelease]:
    """The nodes after a reading, and the runs that were seen to complete.

    The job's own pool is there from the start, with zeros. Of a job that is older than our watch,
    what its first listing holds is where counting begins.
    """
    if reading.nodes is None:
        return Folded(PreparationRelease(configured=False))
    before = state or PreparationRelease(configured=True)
    full = reading.since is None
    pools = {*before.pools, *filter(None, [reading.pool_id])}
    pools |= {node.pool_id or "" for node in reading.nodes}
    events: list[tuple[Key, float]] = []
    merged: list[Runs] = []
    records: list[tuple[tuple[str, ...], Run | None]] = []
    observations: dict[Key, float] = {}
    corrections = 0
    for kind, runs in ((PREPARED, before.preparation), (RELEASED, before.release)):
        after, changes, gone = runs.merged(kind.runs(reading.nodes), full=full)
        merged.append(after)
        records += [((kind.name, node.pool_id, node.id), run) for node, _, run in changes]
        records += [((kind.name, node.pool_id, node.id), None) for node in gone]
        counted = changes if state is not None or is_new else []
        events += [(key, 0) for pool_id in pools for key in kind.zeros(pool_id)]
        events += [event for change in counted for event in kind.events(change)]
        observations |= kind.durations.observed(durations_by_pool(pools, counted))
        if state is not None and full:
            since = missed_before(before)
            corrections += sum(_is_correction(change.run, since) for change in changes)
    return Folded(
        PreparationRelease(
            configured=True,
            pools=tuple(sorted(pools)),
            preparation=merged[0],
            release=merged[1],
            read_at=reading.started,
            listed_at=reading.started if full else before.listed_at,
        ),
        total(events),
        corrections,
        records,
        observations,
    )


def durations_by_pool(
    pools: Iterable[str], changes: Iterable[Change]
) -> Mapping[tuple[str, ...], list[float]]:
    """How long the runs took that completed; every pool is there."""
    durations: dict[tuple[str, ...], list[float]] = {(pool_id,): [] for pool_id in pools}
    for change in changes:
        pool_id, run = change.node.pool_id, change.run
        if change.completes and run.start is not None and run.end is not None:
            durations[pool_id,].append(run.end - run.start)
    return durations


def _is_correction(run: Run, since: float) -> bool:
    """Whether reading by changes should have brought this, and did not."""
    times = [time for time in (run.start, run.end) if time is not None]
    return run.state != "running" and (not times or max(times) < since)


@dataclass(frozen=True)
class Kind:
    """One of the two kinds of task: its member on the wire, and its counters."""

    name: str
    member: str
    info: Callable[[NodeTaskStatus], SpecialTaskExecutionInfo | None]
    completed: CounterRow
    failed: CounterRow
    codes: CounterRow
    account_failed: CounterRow
    durations: Histogram
    retries: CounterRow | None

    def runs(self, nodes: Iterable[NodeTaskStatus]) -> Iterator[tuple[Node, Run]]:
        """The latest run on each node that had one."""
        for node in nodes:
            info = self.info(node)
            if info is not None:
                # Interned: most nodes are of one pool.
                yield Node(sys.intern(node.pool_id or ""), node.node_id or ""), run_of(info)

    def zeros(self, pool_id: str) -> Iterator[Key]:
        """Counters that are there as soon as their pool is."""
        for result in RESULTS:
            yield self.completed.name, (pool_id, result)
        for category in (*CATEGORIES, UNKNOWN):
            yield self.failed.name, (pool_id, category)
        if self.retries is not None:
            yield self.retries.name, (pool_id,)

    def events(self, change: Change) -> Iterator[tuple[Key, float]]:
        """What a change of a node's run counts."""
        pool_id, run = change.node.pool_id, change.run
        if self.retries is not None and change.retries:
            yield (self.retries.name, (pool_id,)), change.retries
        if not change.completes:
            return
        if run.result is not None:
            yield (self.completed.name, (pool_id, run.result)), 1
        if run.category is not None and run.code is not None:
            yield (self.failed.name, (pool_id, run.category)), 1
            yield (self.codes.name, (pool_id, run.category, run.code)), 1

    @property
    def counters(self) -> tuple[CounterRow, ...]:
        """All of them."""
        rows = (self.completed, self.failed, self.codes, self.retries)
        return tuple(row for row in rows if row is not None)


def _kind(
    name: str, member: str, info: Callable[[NodeTaskStatus], SpecialTaskExecutionInfo | None]
) -> Kind:
    source = f"{OPERATION} {member}"
    prefix = f"azure_batch_job_{name}"
    return Kind(
        name,
        member,
        info,
        completed=counter(
            f"{prefix}_tasks_completed_total",
            f"Runs of the job {name} task on nodes that completed, each once, by result",
            f"{source}.state, .result",
            ("pool_id", "result"),
        ),
        failed=counter(
            f"{prefix}_tasks_failed_total",
            f"Runs of the job {name} task on nodes that failed, by category",
            f"{source}.failureInfo.category",
            ("pool_id", "category"),
        ),
        codes=counter(
            f"{prefix}_task_failure_codes_total",
            f"Runs of the job {name} task on nodes that failed, by category and code",
            f"{source}.failureInfo",
            ("pool_id", "category", "code"),
        ),
        account_failed=counter(
            f"azure_batch_account_{name}_tasks_failed_total",
            f"Runs of the {name} tasks of all selected jobs together that failed, by category",
            f"{source}.failureInfo.category",
            ("category",),
        ),
        durations=histogram(
            f"azure_batch_{name}_task_duration_seconds",
            f"How long runs of {name} tasks on nodes took, of the jobs of a group or of all jobs"
            " without one",
            f"{source}.endTime - .startTime",
            ("pool_id",),
            DURATIONS,
        ),
        # A release task is not retried.
        retries=counter(
            f"{prefix}_task_retries_total",
            f"Retries of the job {name} task on nodes",
            f"growth of {source}.retryCount",
            ("pool_id",),
        )
        if name == "preparation"
        else None,
    )


PREPARED = _kind("preparation", PREPARATION, lambda node: node.preparation)
RELEASED = _kind("release", RELEASE, lambda node: node.release)


Samples = Callable[[PreparationRelease], Iterable[Sample]]


def _rows(
    kind: Kind, runs_of: Callable[[PreparationRelease], Runs]
) -> tuple[Metric[PreparationRelease], ...]:
    """The gauges of one kind of task; both kinds have the same."""

    def row(
        name: str,
        help_: str,
        field: str,
        labels: tuple[str, ...],
        samples: Samples,
        merge: Merge = sum,
    ) -> Metric[PreparationRelease]:
        source = f"{OPERATION} {kind.member}.{field}"
        name = f"azure_batch_job_{kind.name}_{name}"
        return Metric(name, "gauge", help_, source, ("pool_id", *labels), samples, merge)

    def tallied(what: str, known: tuple[str, ...] = ()) -> Samples:
        def samples(state: PreparationRelease) -> Iterable[Sample]:
            counts = {(pool_id, value): 0 for pool_id in state.pools for value in known}
            for (pool_id, key, *values), number in runs_of(state).tally.items():
                if key == what:
                    counts[pool_id, *values] = number  # type: ignore[index]
            return sorted(counts.items())

        return samples

    def oldest(state: PreparationRelease) -> Iterable[Sample]:
        starts: dict[str, float] = {}
        for node, start in runs_of(state).running.items():
            if start is not None:
                starts[node.pool_id] = min(start, starts.get(node.pool_id, start))
        return [((pool_id,), start) for pool_id, start in sorted(starts.items())]

    return (
        row(
            "tasks",
            f"Nodes by state of their latest run of the job {kind.name} task, removed nodes"
            " included",
            "state",
            ("state",),
            tallied("state", STATES),
        ),
        row(
            "completed_tasks",
            f"Nodes by result of their latest completed run of the job {kind.name} task",
            "result",
            ("result",),
            tallied("result", RESULTS),
        ),
        row(
            "failed_tasks",
            f"Nodes whose latest run of the job {kind.name} task failed, by category and code",
            "failureInfo",
            ("category", "code"),
            tallied("failure"),
        ),
        row(
            "oldest_running_start_timestamp_seconds",
            f"When the longest running job {kind.name} task started",
            "startTime",
            (),
            oldest,
            merge=min,
        ),
    )


METRICS: tuple[Metric[PreparationRelease], ...] = (
    *_rows(PREPARED, lambda state: state.preparation),
    *_rows(RELEASED, lambda state: state.release),
)


class _Saved(msgspec.Struct):
    """The state without the runs."""

    configured: bool
    pools: tuple[str, ...]
    read_at: float
    listed_at: float


def dump(state: PreparationRelease) -> bytes:
    """The state without the runs, which are its records."""
    saved = _Saved(state.configured, state.pools, state.read_at, state.listed_at)
    return msgspec.json.encode(saved)


def load(saved: bytes, records: Mapping[tuple[str, ...], bytes]) -> PreparationRelease:
    """The state that was dumped."""
    known = msgspec.json.decode(saved, type=_Saved)

    def runs(kind: Kind) -> Runs:
        found = (
            (Node(sys.intern(pool_id), node_id), msgspec.json.decode(record, type=Run))
            for (name, pool_id, node_id), record in records.items()
            if name == kind.name
        )
        return Runs().merged(found, full=True)[0]

    return PreparationRelease(
        known.configured,
        known.pools,
        runs(PREPARED),
        runs(RELEASED),
        known.read_at,
        known.listed_at,
    )


COLLECTOR = JobCollector(
    "preparation_release",
    read,
    fold,
    METRICS,
    dump=dump,
    load=load,
    counters=(*PREPARED.counters, *RELEASED.counters),
    account={
        kind.failed.name: AccountRow(kind.account_failed, (1,)) for kind in (PREPARED, RELEASED)
    },
    histograms=(PREPARED.durations, RELEASED.durations),
    is_settled=lambda state: not state.configured,
)
