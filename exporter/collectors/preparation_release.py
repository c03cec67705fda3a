"""Job preparation and release on the nodes of a job (Job_ListPreparationAndReleaseTaskStatus).

The list has an entry for every node that ever ran one of the tasks, so it may be long. After one
full listing only what changed is read; a full listing now and then corrects what that missed.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from exporter.batch import odata
from exporter.batch.models import NodeTaskStatus
from exporter.collectors import incremental
from exporter.collectors.collector import AccountRow, Folded, JobCollector
from exporter.collectors.incremental import missed_before, read_changes
from exporter.collectors.node_runs import RESULTS, STATES, Change, Node, Run, Runs
from exporter.collectors.special_tasks import (
    OPERATION,
    PREPARATION,
    PREPARED,
    RELEASE,
    RELEASED,
    Kind,
)
from exporter.counters import Key, total
from exporter.errors import InvalidResponse, TaskNotConfigured
from exporter.failures import Failure
from exporter.metric import Merge, Metric, Sample
from exporter.selection import WatchedJob


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
    if nodes is None and state is not None and state.configured:
        # That never changes; to believe it would be to ask no more.
        raise InvalidResponse(f"{OPERATION}: a job that had the tasks is said to have none")
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
    failures: list[Failure] = []
    corrections = 0
    for kind, runs in ((PREPARED, before.preparation), (RELEASED, before.release)):
        after, changes = runs.merged(kind.runs(reading.nodes), full=full)
        merged.append(after)
        records += _records(kind, runs, after, changes)
        counted = changes if state is not None or is_new else []
        events += [(key, 0) for pool_id in pools for key in kind.zeros(pool_id)]
        events += [event for change in counted for event in kind.events(change)]
        observations |= kind.durations.observed(durations_by_pool(pools, counted))
        failures += kind.failures(reading.nodes, changes)
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
        failures,
    )


MISSING = "missing"
"""Stands behind the node in the key of the record of one that is missing."""


def _records(
    kind: Kind, before: Runs, after: Runs, changes: Iterable[Change]
) -> Iterator[tuple[tuple[str, ...], Run | None]]:
    """What changes of the records. A node that is missing may also come back after a restart."""
    for node in before.missing:
        if node not in after.missing:
            yield (*kind.record_key(node), MISSING), None
            if node in after.latest:
                yield kind.record_key(node), after.latest[node]
    for change in changes:
        yield kind.record_key(change.node), change.run
    for node, run in after.missing.items():
        if node not in before.missing:
            yield kind.record_key(node), None
            yield (*kind.record_key(node), MISSING), run


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
        found: dict[Node, Run] = {}
        missing: dict[Node, Run] = {}
        for (name, pool_id, node_id, *is_missing), record in records.items():
            if name == kind.name:
                place = missing if is_missing else found
                node = Node(sys.intern(pool_id), node_id)
                place[node] = msgspec.json.decode(record, type=Run)
        return replace(Runs().merged(found.items(), full=True)[0], missing=missing)

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
    is_busy=lambda state: bool(state.preparation.running or state.release.running),
    lists=True,
)
