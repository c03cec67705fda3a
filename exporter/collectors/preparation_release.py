"""Job preparation and release on the nodes of a job (Job_ListPreparationAndReleaseTaskStatus).

The list has an entry for every node that ever ran one of the tasks, so it may be long. After one
full listing the collector reads only changes; a full listing now and then finds what those missed.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import msgspec

from exporter.batch import odata
from exporter.batch.client import BatchClient
from exporter.batch.errors import InvalidResponse, TaskNotConfigured
from exporter.batch.failure_codes import CATEGORIES, UNKNOWN
from exporter.batch.models import RESULTS, NodeTaskStatus, unix_time
from exporter.batch.spellings import MAX_LENGTH, Spellings
from exporter.collectors import known_records
from exporter.collectors.incremental import ReadTimes, missed_before, read_changes
from exporter.collectors.node_runs import (
    LABELS,
    STATES,
    ListedRuns,
    NodeRun,
    PoolEvents,
    PoolRuns,
)
from exporter.exposition.metric import Key, Labels, Metric, Samples
from exporter.state.collector import AccountRow, Events, Folded, JobCollector
from exporter.state.counters import counter, total
from exporter.state.failures import Failure, latest
from exporter.state.histogram import histogram
from exporter.state.watched_job import WatchedJob

OPERATION = "Job_ListPreparationAndReleaseTaskStatus"

DURATIONS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds: from scripts that only make a directory to downloads that block a node for an hour."""


MAX_POOLS = 20
"""Pools of a job. It runs on one at a time, and is rarely moved; each makes some 50 series."""

TaskPool = tuple[str, str]
"""The name of a task and the id of a pool."""


class Saved(ReadTimes, frozen=True, gc=False):
    """The state of a job without its runs.

    `configured`: False if the job has neither task; that never changes in a job's life.
    `pools`: every pool that the job or one of its nodes was seen in.
    """

    configured: bool = True
    pools: tuple[str, ...] = ()


class PreparationRelease(Saved, frozen=True, gc=False):
    """Both tasks on all nodes of a job."""

    runs: Mapping[TaskPool, PoolRuns] = {}

    def count(self, task: str, label: str, value: str) -> int:
        """The number of nodes whose latest run of a task has this value of a label."""
        position = LABELS.index(label)
        return sum(
            number
            for (name, _), pool in self.runs.items()
            for outcome, number in pool.outcomes.items()
            if name == task and outcome[position] == value
        )


class NodeTask:
    """The metrics of one of the two tasks. `member`: the task's name in the answer."""

    def __init__(self, name: Literal["preparation", "release"], member: str) -> None:
        self.name = name
        self.member = member
        source = f"{OPERATION} {member}"
        prefix = f"azure_batch_job_{name}"
        self.completed = counter(
            f"{prefix}_tasks_completed_total",
            f"Runs of the job {name} task on nodes that completed, each once, by result",
            f"{source}.state, .result",
            ("pool_id", "result"),
        )
        self.failed = counter(
            f"{prefix}_tasks_failed_total",
            f"Runs of the job {name} task on nodes that failed, by category",
            f"{source}.failureInfo.category",
            ("pool_id", "category"),
        )
        self.codes = counter(
            f"{prefix}_task_failure_codes_total",
            f"Runs of the job {name} task on nodes that failed, by category and code",
            f"{source}.failureInfo",
            ("pool_id", "category", "code"),
        )
        self.retries = counter(
            f"{prefix}_task_retries_total",
            f"Retries of the job {name} task on nodes",
            f"growth of {source}.retryCount",
            ("pool_id",),
        )
        rows = (self.completed, self.failed, self.codes, self.retries)
        self.is_retried = name == "preparation"
        self.counters = rows if self.is_retried else rows[:-1]
        self.account_failed = counter(
            f"azure_batch_account_{name}_tasks_failed_total",
            f"Runs of job {name} tasks on nodes that failed, by category, of all jobs that a rule"
            " names",
            f"{source}.failureInfo.category",
            ("category",),
        )
        self.durations = histogram(
            f"azure_batch_{name}_task_duration_seconds",
            f"How long runs of {name} tasks on nodes took, of the jobs of a group or of all jobs"
            " without one",
            f"{source}.endTime - .startTime",
            ("pool_id",),
            DURATIONS,
        )
        self.gauges = (
            Metric(
                f"{prefix}_tasks",
                "gauge",
                f"Nodes by state of their latest run of the job {name} task, removed nodes"
                " included",
                f"{source}.state",
                ("pool_id", "state"),
                self._nodes_by("state", zeros=STATES),
            ),
            Metric(
                f"{prefix}_completed_tasks",
                "gauge",
                f"Nodes by result of their latest completed run of the job {name} task",
                f"{source}.result",
                ("pool_id", "result"),
                self._nodes_by("result", zeros=RESULTS),
            ),
            Metric(
                f"{prefix}_failed_tasks",
                "gauge",
                f"Nodes whose latest run of the job {name} task failed, by category and code",
                f"{source}.failureInfo",
                ("pool_id", "category", "code"),
                self._nodes_by("category", "code"),
            ),
            Metric(
                f"{prefix}_oldest_running_start_timestamp_seconds",
                "gauge",
                f"When the longest running job {name} task started",
                f"{source}.startTime",
                ("pool_id",),
                self._oldest_running,
                merge=min,
            ),
        )

    def increments(self, pool_id: str, events: PoolEvents) -> Iterator[tuple[Key, float]]:
        """What the events in a pool add to its counters, which begin with 0."""
        yield from ((key, 0) for key in _zeros(self, pool_id))
        for (_, result, category, code), number in events.completed.items():
            yield (self.completed.name, (pool_id, result or "")), number
            if category is not None and code is not None:
                yield (self.failed.name, (pool_id, category)), number
                yield (self.codes.name, (pool_id, category, code)), number
        if self.is_retried:
            yield (self.retries.name, (pool_id,)), events.retries

    def _nodes_by(
        self, *labels: str, zeros: tuple[str, ...] = ()
    ) -> Callable[[PreparationRelease], Samples]:
        positions = [LABELS.index(label) for label in labels]

        def samples(state: PreparationRelease) -> Samples:
            numbers: dict[Labels, int] = dict.fromkeys(product(state.pools, zeros), 0)
            for (task, pool_id), pool in state.runs.items():
                for outcome, number in pool.outcomes.items():
                    values = [value for each in positions if (value := outcome[each]) is not None]
                    if task == self.name and len(values) == len(labels):
                        key = (pool_id, *values)
                        numbers[key] = numbers.get(key, 0) + number
            return sorted(numbers.items())

        return samples

    def _oldest_running(self, state: PreparationRelease) -> Samples:
        return sorted(
            ((pool_id,), pool.oldest_running)
            for (task, pool_id), pool in state.runs.items()
            if task == self.name
        )


PREPARATION = NodeTask("preparation", "jobPreparationTaskExecutionInfo")
RELEASE = NodeTask("release", "jobReleaseTaskExecutionInfo")
TASKS = (PREPARATION, RELEASE)


@lru_cache(maxsize=1000)
def _zeros(task: NodeTask, pool_id: str) -> tuple[Key, ...]:
    """The counters that begin with 0. The jobs on a pool share the keys, which saves memory."""
    zeros: list[Key] = [(task.completed.name, (pool_id, result)) for result in RESULTS]
    zeros += [(task.failed.name, (pool_id, category)) for category in (*CATEGORIES, UNKNOWN)]
    if task.is_retried:
        zeros.append((task.retries.name, (pool_id,)))
    return tuple(zeros)


_TOO_MANY_POOLS = f"the job has more than {MAX_POOLS} pools, or no pool has such an id"

Listing = defaultdict[TaskPool, ListedRuns]
"""The listed runs. They take half the memory of the answer."""


def add_page(
    listing: Listing,
    page: Iterable[NodeTaskStatus],
    spellings: Spellings,
    pools: set[str],
    *,
    command_lines: bool = False,
) -> int:
    """Add the records of a page; returns how many are left out, as of a pool past MAX_POOLS.

    `pools`: the ids of the job's pools, in lower case. It takes new ones.
    """
    left_out = 0
    for record in page:
        given = record.pool_id or ""
        if (key := given.lower()) not in pools:
            if len(pools) >= MAX_POOLS or len(key) > MAX_LENGTH:
                left_out += 1
                continue
            pools.add(key)
        pool_id, node_id = spellings.pool(given), record.node_id or ""
        for task, info in ((PREPARATION, record.preparation), (RELEASE, record.release)):
            if info is None:
                continue
            run, end = NodeRun.of(info, spellings), unix_time(info.end_time)
            listed = listing[task.name, pool_id]
            listed.node_ids.append(node_id)
            listed.runs.append(run)
            listed.ends.append(end or 0.0)
            if run.result == "failure":
                listed.failures[node_id, run.start] = Failure.of(
                    task.name,
                    info.failure_info,
                    ended=end or run.start,
                    command_lines=command_lines,
                    container=info.container_info,
                    pool_id=pool_id,
                    node_id=node_id,
                    exit_code=info.exit_code,
                )
    return left_out


@dataclass(slots=True)
class Reading:
    """What a poll read.

    `pool_id`: the pool that the job runs on now, "" if there is none.
    `listing`: None if the job has neither task.
    `started`: when the reading began, in Unix seconds of the service.
    `since`: the listing asked for changes since then; None: it asked for all nodes.
    """

    pool_id: str
    listing: Listing | None
    started: float = 0.0
    since: float | None = None


async def read(
    client: BatchClient, watched: WatchedJob, state: PreparationRelease | None, now: float
) -> Reading:
    """List the nodes of one job that changed, or all of them."""
    job, rule = watched.job, watched.rule

    async def list_nodes(since: float | None) -> Reading:
        filter_ = None if since is None else changes_since(since)
        listing = Listing(ListedRuns)
        known = (*(state.pools if state else ()), job.pool_id)
        pools = {pool_id.lower() for pool_id in known if pool_id}
        try:
            async for page in client.list_preparation_and_release_task_status(job.id, filter_):
                left_out = add_page(
                    listing, page, client.spellings, pools, command_lines=rule.command_lines
                )
                if left_out:
                    client.left_out(OPERATION, [_TOO_MANY_POOLS] * left_out)
        except TaskNotConfigured:
            return Reading(job.pool_id, None, since=since)
        return Reading(job.pool_id, listing, since=since)

    reading, started = await read_changes(
        client, OPERATION, state, rule.resync_interval, now, list_nodes
    )
    reading.started = started
    if reading.listing is None and state is not None and state.configured:
        # The answer must be wrong. If the exporter believed it, it would never ask again.
        raise InvalidResponse(f"{OPERATION}: a job that had the tasks is said to have none")
    return reading


def changes_since(since: float) -> str:
    """The $filter for nodes on which a run started or ended since then, or is running."""
    moment = odata.literal(dt.datetime.fromtimestamp(since, dt.UTC))
    return odata.any_of(
        f"{task.member}/{term}"
        for task in TASKS
        for term in (f"startTime ge {moment}", f"endTime ge {moment}", "state eq 'running'")
    )


def fold(
    state: PreparationRelease | None, reading: Reading, _now: float, is_new: bool
) -> Folded[PreparationRelease]:
    """The nodes after a reading, and the events since the reading before.

    The job's own pool has zeros from the start. A pool keeps its spelling for the life of the job:
    under another one its runs would be counted again. The first listing counts only if the job is
    new: the runs of an older job may have ended before the exporter watched it.
    """
    listing, full = reading.listing, reading.since is None
    if listing is None:
        return Folded(PreparationRelease(configured=False), Events(), points={"failed_nodes": 0})
    before = state or PreparationRelease(configured=True)
    known_as = {pool_id.lower(): pool_id for pool_id in before.pools}
    listing = Listing(
        ListedRuns,
        {(task, known_as.get(pool.lower(), pool)): runs for (task, pool), runs in listing.items()},
    )
    missed = missed_before(before, reading.started) if state is not None and full else 0.0
    runs = dict(before.runs)
    events: dict[TaskPool, PoolEvents] = {}
    for key in {**runs, **listing} if full else listing:
        known, listed = runs.get(key, PoolRuns()), listing.get(key, ListedRuns())
        runs[key], events[key] = known.merged(listed, full=full, missed_before=missed)
    known_records.check_number(len(pool.latest) for pool in runs.values())
    pools = {*before.pools, *(pool_id for _, pool_id in runs)}
    if reading.pool_id and len(pools) < MAX_POOLS:
        pools.add(known_as.get(reading.pool_id.lower(), reading.pool_id))
    increments: dict[Key, float] = {}
    observations: dict[Key, float] = {}
    counted = events if state is not None or is_new else {}
    for task, pool_id in product(TASKS, sorted(pools)):
        of_pool = counted.get((task.name, pool_id), PoolEvents())
        increments |= total(task.increments(pool_id, of_pool))
        observations |= task.durations.observed({(pool_id,): of_pool.durations})
    after = PreparationRelease(
        configured=True,
        pools=tuple(sorted(pools)),
        read_at=reading.started,
        listed_at=reading.started if full else before.listed_at,
        runs=runs,
    )
    is_running = any("running" in outcome for pool in runs.values() for outcome in pool.outcomes)
    return Folded(
        after,
        Events(
            increments,
            observations,
            latest(failure for of_pool in events.values() for failure in of_pool.failures),
            sum(of_pool.corrections for of_pool in events.values()),
        ),
        is_busy=is_running,
        is_running=is_running,
        points={"failed_nodes": after.count(PREPARATION.name, "result", "failure")},
        records=_changed_records(before, after, listing),
    )


def _changed_records(
    before: PreparationRelease, after: PreparationRelease, listing: Listing
) -> Iterator[tuple[tuple[str, ...], NodeRun | None]]:
    for task_pool, pool in after.runs.items():
        known, listed = before.runs.get(task_pool, PoolRuns()), listing.get(task_pool, ListedRuns())
        for key, run in pool.changed_since(known, listed.node_ids):
            yield (*task_pool, *key), run


def dump(state: PreparationRelease) -> bytes:
    """The state without the runs, which are its records."""
    return msgspec.json.encode(Saved(state.read_at, state.listed_at, state.configured, state.pools))


def load(saved: bytes, records: Mapping[tuple[str, ...], bytes]) -> PreparationRelease:
    """The state that was dumped."""
    known = msgspec.json.decode(saved, type=Saved)
    nodes: dict[TaskPool, tuple[dict[str, NodeRun], dict[str, NodeRun]]] = {}
    for (name, pool_id, node_id, *is_missing), record in records.items():
        found, missing = nodes.setdefault((name, pool_id), ({}, {}))
        (missing if is_missing else found)[node_id] = msgspec.json.decode(record, type=NodeRun)
    runs = {key: PoolRuns.of(found, missing) for key, (found, missing) in nodes.items()}
    return PreparationRelease(known.read_at, known.listed_at, known.configured, known.pools, runs)


COLLECTOR = JobCollector(
    "preparation_release",
    OPERATION,
    read,
    fold,
    (*PREPARATION.gauges, *RELEASE.gauges),
    dump=dump,
    load=load,
    records=lambda state: (
        ((*task_pool, *key), run)
        for task_pool, pool in state.runs.items()
        for key, run in pool.all()
    ),
    counters=(*PREPARATION.counters, *RELEASE.counters),
    account={task.failed.name: AccountRow(task.account_failed, (1,)) for task in TASKS},
    histograms=(PREPARATION.durations, RELEASE.durations),
    is_settled=lambda state: not state.configured,
    lists=True,
)
