"""Job preparation and release on the nodes of a job (Job_ListPreparationAndReleaseTaskStatus).

The list has an entry for every node that ever ran one of the tasks, so it may be long. After one
full listing only what changed is read; a full listing now and then corrects what that missed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import msgspec

from exporter.batch import odata
from exporter.batch.errors import InvalidResponse, TaskNotConfigured
from exporter.batch.models import NodeTaskStatus
from exporter.collectors import incremental
from exporter.collectors.incremental import missed_before, read_changes
from exporter.collectors.node_pages import NodePages
from exporter.collectors.node_run import RESULTS, STATES, Kept, Run, keep, run_of
from exporter.collectors.node_runs import ByNode, Runs
from exporter.collectors.special_tasks import (
    OPERATION,
    PREPARATION,
    PREPARED,
    RELEASE,
    RELEASED,
    Kind,
)
from exporter.exposition.metric import Key, Labels, Merge, Metric, Samples
from exporter.state.collector import AccountRow, Events, Folded, JobCollector
from exporter.state.counters import total
from exporter.state.record import StateRecord
from exporter.state.watched_job import WatchedJob


class Api(incremental.Api, Protocol):
    """What this collector needs of the client."""

    def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[NodeTaskStatus, ...]]: ...


class PreparationRelease(StateRecord, frozen=True, gc=False):
    """Both kinds of task on all nodes.

    `configured`: False where the job has neither task; that never changes in a job's life.
    `pools`: every pool that was met, the job's own first of all.
    `read_at`, `listed_at`: when the last reading and the last full one began, by the service's
    clock.
    """

    configured: bool
    pools: tuple[str, ...] = ()
    preparation: Runs = Runs()
    release: Runs = Runs()
    read_at: float = 0.0
    listed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of the nodes, or None where the job has neither task.

    `pool_id`: the pool that the job runs on now, "" where it has none.
    `pages`: those of the listing, by kind of task.
    `started`: when the reading began, in Unix seconds of the service.
    `since`: changes from then on were asked for; None: all nodes were.
    """

    pool_id: str
    pages: tuple[NodePages, ...] | None
    started: float = 0.0
    since: float | None = None


def no_pages(state: PreparationRelease | None) -> tuple[NodePages, ...]:
    """Takes in what is read after a state, by kind of task."""
    known = state or PreparationRelease(configured=True)
    since = missed_before(known)
    return (
        NodePages(PREPARED, known.preparation, since),
        NodePages(RELEASED, known.release, since),
    )


async def read(
    api: Api, watched: WatchedJob, state: PreparationRelease | None, now: float
) -> Reading:
    """Ask for what changed on the nodes of one job, or for all of them."""
    job, resync_interval = watched.job, watched.rule.resync_interval

    async def listing(since: float | None) -> tuple[NodePages, ...] | None:
        filter_ = None if since is None else changes_since(since)
        pages = no_pages(state)
        try:
            async for page in api.list_preparation_and_release_task_status(job.id, filter_):
                for of_kind in pages:
                    of_kind.add(page)
        except TaskNotConfigured:
            return None
        return pages

    pages, window = await read_changes(api, OPERATION, state, resync_interval, now, listing)
    if pages is None and state is not None and state.configured:
        # That never changes; to believe it would be to ask no more.
        raise InvalidResponse(f"{OPERATION}: a job that had the tasks is said to have none")
    return Reading(job.pool_id, pages, *window)


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
    if reading.pages is None:
        return Folded(PreparationRelease(configured=False), Events(), points={"failed_nodes": 0})
    before = state or PreparationRelease(configured=True)
    full = reading.since is None
    counts = state is not None or is_new
    pools = {*before.pools, *filter(None, [reading.pool_id])}
    pools.update(*(pages.seen.runs for pages in reading.pages))
    counted: list[tuple[Key, float]] = []
    observed: list[tuple[Key, float]] = []
    for pages in reading.pages:
        counted += [(key, 0) for pool_id in pools for key in pages.kind.zeros(pool_id)]
        observed += pages.kind.durations.observed({(pool_id,): () for pool_id in pools}).items()
        if counts:
            counted += pages.increments.items()
            observed += pages.observations.items()
    merged = [pages.known.merged(pages.seen, full=full) for pages in reading.pages]
    return Folded(
        PreparationRelease(
            configured=True,
            pools=tuple(sorted(pools)),
            preparation=merged[0],
            release=merged[1],
            read_at=reading.started,
            listed_at=reading.started if full else before.listed_at,
        ),
        Events(
            total(counted),
            total(observed),
            [failure for pages in reading.pages for failure in pages.failures],
            sum(pages.corrections for pages in reading.pages) if state and full else 0,
        ),
        is_busy=bool(merged[0].running or merged[1].running),
        points={"failed_nodes": merged[0].count("result", "failure")},
        records=_records(reading.pages, merged),
    )


MISSING = "missing"
"""Stands behind the node in the key of the record of one that is missing."""


def _records(
    pages: Iterable[NodePages], merged: Iterable[Runs]
) -> Iterator[tuple[tuple[str, ...], Run | None]]:
    """What changes of the records. A node that is missing may also come back after a restart."""
    for of_kind, after in zip(pages, merged, strict=True):
        key, before = of_kind.kind.record_key, of_kind.known
        for pool_id, node_id, _ in _only_in(before.missing, after.missing):
            yield (*key(pool_id, node_id), MISSING), None
        for pool_id, node_id, run in before.changed_by(of_kind.seen, after):
            yield key(pool_id, node_id), run
        for pool_id, node_id, kept in _only_in(after.missing, before.missing):
            yield key(pool_id, node_id), None
            yield (*key(pool_id, node_id), MISSING), run_of(kept)


def _only_in(some: ByNode, others: ByNode) -> Iterator[tuple[str, str, Kept]]:
    for pool_id, nodes in some.items():
        for node_id, run in nodes.items():
            if node_id not in others.get(pool_id, {}):
                yield pool_id, node_id, run


SamplesOf = Callable[[PreparationRelease], Samples]


def _rows(kind: Kind) -> tuple[Metric[PreparationRelease], ...]:
    """The gauges of one kind of task; both kinds have the same."""
    runs_of: Callable[[PreparationRelease], Runs] = attrgetter(kind.name)

    def row(
        name: str,
        help_: str,
        field: str,
        labels: tuple[str, ...],
        samples: SamplesOf,
        merge: Merge = sum,
    ) -> Metric[PreparationRelease]:
        source = f"{OPERATION} {kind.member}.{field}"
        name = f"azure_batch_job_{kind.name}_{name}"
        return Metric(name, "gauge", help_, source, ("pool_id", *labels), samples, merge)

    def tallied(what: str, known: tuple[str, ...] = ()) -> SamplesOf:
        def samples(state: PreparationRelease) -> Samples:
            numbers: dict[Labels, int] = {
                (pool_id, value): 0 for pool_id in state.pools for value in known
            }
            for (of, labels), number in runs_of(state).tally.items():
                if of == what:
                    numbers[labels] = number
            return sorted(numbers.items())

        return samples

    def oldest_running(state: PreparationRelease) -> Samples:
        oldest: dict[Labels, float] = {}
        for pool_id, _, start in runs_of(state).running:
            if start is not None and start <= oldest.get((pool_id,), start):
                oldest[pool_id,] = start
        return sorted(oldest.items())

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
            oldest_running,
            merge=min,
        ),
    )


METRICS: tuple[Metric[PreparationRelease], ...] = (
    *_rows(PREPARED),
    *_rows(RELEASED),
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
        found: dict[str, dict[str, Kept]] = {}
        missing: dict[str, dict[str, Kept]] = {}
        for (name, pool_id, node_id, *is_missing), record in records.items():
            if name == kind.name:
                place = missing if is_missing else found
                run = keep(msgspec.json.decode(record, type=Run))
                place.setdefault(pool_id, {})[node_id] = run
        return Runs.of(found, missing)

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
    lists=True,
)
