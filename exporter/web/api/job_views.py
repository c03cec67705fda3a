"""The jobs that are watched: found, sorted, and shown one page at a time.

Of 10,000 jobs only what is asked for is worked out, and the event loop has its turns meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from exporter.batch import models as batch
from exporter.batch.models import unix_time
from exporter.collectors import preparation_release, task_counts
from exporter.collectors.jobs import STATES
from exporter.collectors.preparation_release import PreparationRelease
from exporter.state.account import AccountState
from exporter.state.timestamps import iso_time
from exporter.state.watched_job import JobState, Outcome, WatchedJob
from exporter.web.api.models import HEALTHS, Counts, Health, Job, Nodes, Poll

AT_ONCE = 2000
"""Jobs that are looked at before the event loop has its turn: some milliseconds. Each turn may take
as long again where thousands of jobs are polled, so there are few of them."""

SHOWN_AT_ONCE = 100
"""Likewise, of jobs that are shown with all their numbers."""

TASK_COUNTS = task_counts.COLLECTOR.name
PREPARATION_RELEASE = preparation_release.COLLECTOR.name


class Found(NamedTuple):
    """A job, and what its polls came to by collector."""

    account: str
    watched: WatchedJob
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True)
class Query:
    """Which jobs, in which order; None: any. `search`: in the id or the display name."""

    account: str | None = None
    state: str | None = None
    health: str | None = None
    job_group: str | None = None
    pool_id: str | None = None
    search: str = ""
    sort: str = "job_id"
    descending: bool = False
    limit: int = 50
    offset: int = 0


class Matches(NamedTuple):
    """A page of what a query found. `total`: before filters, `matched`: after them."""

    total: int
    matched: int
    page: tuple[Found, ...]


async def find(accounts: Mapping[str, AccountState], query: Query) -> Matches:
    """The jobs of a query."""
    key = SORT_KEYS[query.sort]
    wanted = _filters(query)
    total = 0
    known: list[tuple[Any, str, str, Found]] = []
    unknown: list[tuple[str, str, Found]] = []
    for name, state in list(accounts.items()):
        total += len(state.jobs)
        if query.account not in (None, name):
            continue
        for some in _slices(list(state.jobs.values())):
            await asyncio.sleep(0)
            for entry in some:
                job_id = entry.watched.job.id
                found = Found(name, entry.watched, entry.outcomes)
                for matches in wanted:
                    if not matches(found):
                        break
                else:
                    value = key(found)
                    if value is None:
                        unknown.append((job_id, name, found))
                    else:
                        known.append((value, job_id, name, found))
    # By id within the same value, in both directions; what is not known comes last.
    known.sort(key=itemgetter(1, 2))
    known.sort(key=itemgetter(0), reverse=query.descending)
    unknown.sort(key=itemgetter(0, 1))
    every = [found for *_, found in known] + [found for *_, found in unknown]
    page = every[query.offset : query.offset + query.limit]
    return Matches(total, len(every), tuple(page))


def _slices(jobs: Sequence[JobState]) -> Iterable[Sequence[JobState]]:
    return (jobs[start : start + AT_ONCE] for start in range(0, len(jobs), AT_ONCE))


def _filters(query: Query) -> list[Callable[[Found], bool]]:
    """What a job must fulfil; the cheapest first."""
    wanted: list[Callable[[Found], bool]] = []
    if query.search:
        wanted.append(partial(_mentions, query.search.casefold()))
    if query.job_group is not None:
        wanted.append(lambda found: found.watched.group == query.job_group)
    if query.pool_id is not None:
        wanted.append(lambda found: found.watched.job.pool_id == query.pool_id)
    if query.state is not None:
        wanted.append(lambda found: state_of(found.watched.job) == query.state)
    if query.health is not None:
        wanted.append(lambda found: health_of(found) == query.health)
    return wanted


def _mentions(words: str, found: Found) -> bool:
    job = found.watched.job
    return words in job.id.casefold() or words in (job.display_name or "").casefold()


def state_of(job: batch.Job) -> str | None:
    """The state of a job, as the metrics name it."""
    return batch.enum_value(job.state, STATES)


def _health(outcome: Outcome | None) -> Health:
    if outcome is None:
        return "pending"
    if outcome.is_stale:
        return "stale" if outcome.error is not None else "pending"
    return "ok" if outcome.error is None else "failing"


_RANKS = {health: rank for rank, health in enumerate(HEALTHS)}


def _rank_of(watched: WatchedJob, outcomes: Mapping[str, Outcome]) -> int:
    worst = 0
    for name in watched.rule.collect:
        outcome = outcomes.get(name)
        # Nearly all are well, and there are very many.
        if outcome is None or outcome.error is not None or outcome.is_stale:
            worst = max(worst, _RANKS[_health(outcome)])
    return worst


def _rank(found: Found) -> int:
    return _rank_of(found.watched, found.outcomes)


def health_of(found: Found) -> Health:
    """How the polls of a job go: as the worst of them does."""
    return HEALTHS[_rank(found)]


async def healths(accounts: Mapping[str, AccountState]) -> Mapping[str, Counter[str]]:
    """How many jobs of each account are how well."""
    counts: dict[str, Counter[str]] = {}
    for name, state in list(accounts.items()):
        ranks = [0] * len(HEALTHS)
        for some in _slices(list(state.jobs.values())):
            await asyncio.sleep(0)
            for entry in some:
                ranks[_rank_of(entry.watched, entry.outcomes)] += 1
        counts[name] = Counter(dict(zip(HEALTHS, ranks, strict=True)))
    return counts


def _succeeded_at(found: Found) -> float | None:
    """When the collector that is behind most last succeeded; None where one never did."""
    moments = []
    for name in found.watched.rule.collect:
        outcome = found.outcomes.get(name)
        if outcome is None or outcome.succeeded_at is None:
            return None
        moments.append(outcome.succeeded_at)
    return min(moments, default=None)


def _shown(found: Found, collector: str) -> Any:
    outcome = found.outcomes.get(collector)
    return None if outcome is None else outcome.shown


def _count(name: str) -> Callable[[Found], int | None]:
    def count(found: Found) -> int | None:
        state = _shown(found, TASK_COUNTS)
        return None if state is None else getattr(state.tasks, name)

    return count


def _failed_nodes(found: Found) -> int | None:
    state = _shown(found, PREPARATION_RELEASE)
    if state is None or not state.configured:
        return None
    return int(state.count("preparation", "result", "failure"))


def _created(found: Found) -> float | None:
    return unix_time(found.watched.job.creation_time)


def _behind(found: Found) -> float | None:
    moment = _succeeded_at(found)
    return None if moment is None else -moment


SORT_KEYS: Mapping[str, Callable[[Found], Any]] = {
    "job_id": lambda found: found.watched.job.id,
    "account": lambda found: found.account,
    "state": lambda found: state_of(found.watched.job),
    "health": _rank,
    "created": _created,
    "active": _count("active"),
    "running": _count("running"),
    "completed": _count("completed"),
    "failed": _count("failed"),
    "preparation_failed": _failed_nodes,
    "age": _behind,
}
"""What jobs may be sorted by; None: not known."""


def job(found: Found, now: float) -> Job:
    """A job as it is shown. `now`: Unix time."""
    known, watched = found.watched.job, found.watched
    counts = _shown(found, TASK_COUNTS)
    nodes = _shown(found, PREPARATION_RELEASE)
    info = known.execution_info
    succeeded_at = _succeeded_at(found)
    return Job(
        account=found.account,
        job_id=known.id,
        health=health_of(found),
        job_group=watched.group,
        display_name=known.display_name or None,
        state=state_of(known),
        pool_id=known.pool_id or None,
        priority=known.priority,
        created=_time(unix_time(known.creation_time)),
        started=_time(unix_time(info.start_time)) if info else None,
        ended=_time(unix_time(info.end_time)) if info else None,
        last_progress=_time(counts.last_progress) if counts else None,
        tasks=_counts(counts.tasks) if counts else None,
        task_slots=_counts(counts.slots) if counts else None,
        preparation=_nodes(nodes, "preparation") if nodes and nodes.configured else None,
        release=_nodes(nodes, "release") if nodes and nodes.configured else None,
        error=_error(found),
        last_success=_time(succeeded_at),
        age_seconds=_age(succeeded_at, now),
    )


def polls(names: Iterable[str], outcomes: Mapping[str, Outcome], now: float) -> tuple[Poll, ...]:
    """What the polls of these collectors came to."""
    return tuple(
        Poll(
            name,
            _health(outcome),
            str(outcome.error) if outcome and outcome.error else None,
            _time(outcome.succeeded_at) if outcome else None,
            _age(outcome.succeeded_at, now) if outcome else None,
        )
        for name in names
        for outcome in (outcomes.get(name),)
    )


def _error(found: Found) -> str | None:
    collect = sorted(
        found.watched.rule.collect, key=lambda name: -_RANKS[_health(found.outcomes.get(name))]
    )
    for name in collect:
        outcome = found.outcomes.get(name)
        if outcome is not None and outcome.error is not None:
            return f"{name}: {outcome.error}"
    return None


def _counts(counts: batch.Counts | None) -> Counts | None:
    if counts is None:
        return None
    return Counts(counts.active, counts.running, counts.completed, counts.succeeded, counts.failed)


def _nodes(nodes: PreparationRelease, task: str) -> Nodes:
    return Nodes(
        nodes.count(task, "state", "running"),
        nodes.count(task, "result", "success"),
        nodes.count(task, "result", "failure"),
    )


def _time(moment: float | None) -> str | None:
    return None if moment is None else iso_time(moment)


def _age(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(max(0.0, now - moment), 3)
