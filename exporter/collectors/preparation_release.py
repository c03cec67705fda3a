"""Job preparation and release on the nodes of a job (Job_ListPreparationAndReleaseTaskStatus).

The list has an entry for every node that ever ran one of the tasks, so it may be long. After one
full listing only what changed is read; a full listing now and then corrects what that missed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from exporter.batch import odata
from exporter.batch.models import NodeTaskStatus
from exporter.collectors import incremental
from exporter.collectors.collector import AccountRow, Folded, JobCollector
from exporter.collectors.incremental import missed_before, read_changes
from exporter.collectors.node_runs import Change, Runs, Seen
from exporter.collectors.packed_runs import RESULTS, STATES, Run, pack, unpack
from exporter.collectors.special_tasks import (
    KINDS,
    OPERATION,
    PREPARATION,
    PREPARED,
    RELEASE,
    RELEASED,
    Kind,
)
from exporter.counters import Key, total
from exporter.errors import InvalidResponse, TaskNotConfigured
from exporter.failures import LATEST, Failure, latest
from exporter.metric import Merge, Metric, Sample
from exporter.selection import WatchedJob


class Api(incremental.Api, Protocol):
    """What this collector needs of the client."""

    def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[NodeTaskStatus, ...]]: ...


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


@dataclass(frozen=True)
class Reading:
    """What was read of the nodes, or None where the job has neither task.

    `pool_id`: the pool that the job runs on now, "" where it has none.
    `seen`: runs of preparation and release tasks. `failures`: the latest that were not known.
    `started`: when the reading began, in Unix seconds of the service.
    `since`: changes from then on were asked for; None: all nodes were.
    """

    pool_id: str
    seen: tuple[Seen, Seen] | None
    failures: Sequence[Failure] = ()
    started: float = 0.0
    since: float | None = None


class Pages:
    """Takes in the pages of a listing: of each record only what is kept, and what has changed."""

    def __init__(self, state: PreparationRelease | None) -> None:
        known = state or PreparationRelease(configured=True)
        self.seen = (Seen(known.preparation), Seen(known.release))
        self.failures: list[Failure] = []

    def add(self, page: Sequence[NodeTaskStatus]) -> None:
        """Take in one page."""
        for kind, seen in zip(KINDS, self.seen, strict=True):
            self.failures += [
                kind.failure(change, info)
                for change, info in seen.add(page, kind.info)
                if change.fails
            ]
        if len(self.failures) > 2 * LATEST:
            self.failures = latest(self.failures)

    def reading(self, pool_id: str, started: float, since: float | None) -> Reading:
        """What was taken in."""
        return Reading(pool_id, self.seen, self.failures, started, since)


async def read(
    api: Api, watched: WatchedJob, state: PreparationRelease | None, now: float
) -> Reading:
    """Ask for what changed on the nodes of one job, or for all of them."""
    job, resync_interval = watched.job, watched.rule.resync_interval

    async def listing(since: float | None) -> Pages | None:
        filter_ = None if since is None else changes_since(since)
        pages = Pages(state)
        try:
            async for page in api.list_preparation_and_release_task_status(job.id, filter_):
                pages.add(page)
        except TaskNotConfigured:
            return None
        return pages

    pages, extent = await read_changes(api, OPERATION, state, resync_interval, now, listing)
    if pages is None:
        if state is not None and state.configured:
            # That never changes; to believe it would be to ask no more.
            raise InvalidResponse(f"{OPERATION}: a job that had the tasks is said to have none")
        return Reading(job.pool_id, None, (), *extent)
    return pages.reading(job.pool_id, *extent)


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
    if reading.seen is None:
        return Folded(PreparationRelease(configured=False))
    before = state or PreparationRelease(configured=True)
    full = reading.since is None
    pools = {*before.pools, *filter(None, [reading.pool_id])}
    pools.update(*(seen.runs for seen in reading.seen))
    events: list[tuple[Key, float]] = []
    merged: list[Runs] = []
    records: list[tuple[tuple[str, ...], Run | None]] = []
    observations: dict[Key, float] = {}
    corrections = 0
    known = (before.preparation, before.release)
    for kind, runs, seen in zip(KINDS, known, reading.seen, strict=True):
        after = runs.merged(seen, full=full)
        merged.append(after)
        records += _records(kind, runs, after, seen)
        counted = seen.changes if state is not None or is_new else []
        events += [(key, 0) for pool_id in pools for key in kind.zeros(pool_id)]
        events += [event for change in counted for event in kind.events(change)]
        observations |= kind.durations.observed(durations_by_pool(pools, counted))
        if state is not None and full:
            since = missed_before(before)
            corrections += sum(_is_correction(change, since) for change in seen.changes)
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
        reading.failures,
    )


MISSING = "missing"
"""Stands behind the node in the key of the record of one that is missing."""


def _records(
    kind: Kind, before: Runs, after: Runs, seen: Seen
) -> Iterator[tuple[tuple[str, ...], Run | None]]:
    """What changes of the records. A node that is missing may also come back after a restart."""
    for pool_id, nodes in before.missing.items():
        for node_id in nodes:
            if node_id not in after.missing.get(pool_id, {}):
                yield (*kind.record_key(pool_id, node_id), MISSING), None
    for (pool_id, node_id), run in seen.returned.items():
        yield kind.record_key(pool_id, node_id), run
    for change in seen.changes:
        yield kind.record_key(change.pool_id, change.node_id), change.run
    for pool_id, nodes in after.missing.items():
        for node_id, packed in nodes.items():
            if node_id not in before.missing.get(pool_id, {}):
                yield kind.record_key(pool_id, node_id), None
                yield (*kind.record_key(pool_id, node_id), MISSING), unpack(packed)


def durations_by_pool(
    pools: Iterable[str], changes: Iterable[Change]
) -> Mapping[tuple[str, ...], list[float]]:
    """How long the runs took that completed; every pool is there."""
    durations: dict[tuple[str, ...], list[float]] = {(pool_id,): [] for pool_id in pools}
    for change in changes:
        start, end = change.run.start, change.end
        if change.completes and start is not None and end is not None:
            durations[change.pool_id,].append(end - start)
    return durations


def _is_correction(change: Change, since: float) -> bool:
    """Whether reading by changes should have brought this, and did not."""
    times = [time for time in (change.run.start, change.end) if time is not None]
    return change.run.state != "running" and (not times or max(times) < since)


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
            counts: dict[tuple[str, ...], float] = {
                (pool_id, value): 0 for pool_id in state.pools for value in known
            }
            counts.update(runs_of(state).tally.get(what, {}))
            return sorted(counts.items())

        return samples

    def oldest(state: PreparationRelease) -> Iterable[Sample]:
        for pool_id, starts in sorted(runs_of(state).running.items()):
            known = [start for start in starts.values() if start is not None]
            if known:
                yield (pool_id,), min(known)

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
        found: dict[str, dict[str, int]] = {}
        missing: dict[str, dict[str, int]] = {}
        for (name, pool_id, node_id, *is_missing), record in records.items():
            if name == kind.name:
                place = missing if is_missing else found
                run = pack(msgspec.json.decode(record, type=Run))
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
    is_busy=lambda state: bool(state.preparation.running or state.release.running),
    lists=True,
)
