"""The jobs that are watched: found, sorted, and shown one page at a time.

The numbers of a job are worked out when it is on the page that is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, TypeVar

from exporter.batch.errors import PollError
from exporter.batch.models import Job, enum_value, unix_time
from exporter.collectors import preparation_release, task_counts
from exporter.collectors.jobs import STATES
from exporter.collectors.preparation_release import PreparationRelease
from exporter.state.account import identity_of
from exporter.state.timestamps import iso_time
from exporter.state.watched_job import JobState, Outcome
from exporter.web.api.models import (
    HEALTHS,
    CollectorStatus,
    Health,
    JobDetail,
    JobList,
    JobView,
    Nodes,
)
from exporter.web.api.parameters import NotFound
from exporter.web.backend import Backend

T = TypeVar("T")

AT_ONCE = 2000
"""Jobs that are looked at between two turns of the event loop: a few milliseconds. A turn may take
as long where thousands of jobs are polled, so there are few of them."""

SHOWN_AT_ONCE = 100
"""Jobs that are shown with all their numbers between two turns of the event loop."""

FAILURES_OF_A_JOB = 100

TASK_COUNTS = task_counts.COLLECTOR.name
PREPARATION_RELEASE = preparation_release.COLLECTOR.name


async def in_turns(items: Iterable[T], at_once: int = AT_ONCE) -> AsyncIterator[T]:
    """The items. The event loop has a turn before each `at_once` of them."""
    for number, item in enumerate(list(items)):
        if number % at_once == 0:
            await asyncio.sleep(0)
        yield item


async def job_list(service: Backend, values: Mapping[str, Any]) -> JobList:
    """A page of the jobs that `values` ask for, the parameters of /api/v1/jobs."""
    now, offset, limit = service.now(), values["offset"], values["limit"]
    key = SORT_KEYS[values["sort"]]
    total = 0
    found: list[tuple[Any, str, str, JobState]] = []
    for account, state in list(service.store.accounts.items()):
        total += len(state.jobs)
        if values["account"] in (None, account):
            found += [
                (key(account, job), job.watched.job.id, account, job)
                async for job in in_turns(state.jobs.values())
                if _matches(job, values)
            ]
    # By id within the same value, in both directions; what is not known comes last.
    found.sort(key=itemgetter(1, 2))
    known = [each for each in found if each[0] is not None]
    known.sort(key=itemgetter(0), reverse=values["order"] == "desc")
    page = (known + [each for each in found if each[0] is None])[offset : offset + limit]
    views = [
        job_view(account, job, now) async for *_, account, job in in_turns(page, SHOWN_AT_ONCE)
    ]
    return JobList(iso_time(now) or "", total, len(found), limit, offset, tuple(views))


def _matches(job: JobState, values: Mapping[str, Any]) -> bool:
    known, search = job.watched.job, values["search"].casefold()
    return (
        (search in known.id.casefold() or search in (known.display_name or "").casefold())
        and values["job_group"] in (None, job.watched.group)
        and values["pool_id"] in (None, known.pool_id)
        and (values["state"] is None or values["state"] == (_state_of(known) or "unknown"))
        and (values["health"] is None or values["health"] == health_of(job))
    )


def _state_of(job: Job) -> str | None:
    return enum_value(job.state, STATES)


def _health(outcome: Outcome) -> Health:
    if outcome.error is not None:
        return "stale" if outcome.is_stale else "failing"
    return "pending" if outcome.is_stale or outcome.succeeded_at is None else "ok"


def health_of(job: JobState) -> Health:
    """How the polls of a job go: as the worst of them does."""
    worst = HEALTHS[0]
    for name in job.watched.rule.collectors:
        health = _health(job.outcome(name))
        if HEALTHS.index(health) > HEALTHS.index(worst):
            worst = health
    return worst


def _succeeded_at(job: JobState) -> float | None:
    """When the collector that is behind most last succeeded; None where one never did."""
    moments = [job.outcome(name).succeeded_at for name in job.watched.rule.collectors]
    known = [moment for moment in moments if moment is not None]
    return min(known, default=None) if len(known) == len(moments) else None


def _count(name: str) -> Callable[[str, JobState], int | None]:
    def count(_: str, job: JobState) -> int | None:
        counts = job.outcome(TASK_COUNTS).shown
        return None if counts is None else getattr(counts.tasks, name)

    return count


def _failed_nodes(_: str, job: JobState) -> int | None:
    nodes = job.outcome(PREPARATION_RELEASE).shown
    return nodes.count("preparation", "result", "failure") if nodes and nodes.configured else None


def _behind(_: str, job: JobState) -> float | None:
    moment = _succeeded_at(job)
    return None if moment is None else -moment


SORT_KEYS: Mapping[str, Callable[[str, JobState], Any]] = {
    "job_id": lambda _, job: job.watched.job.id,
    "account": lambda account, _: account,
    "state": lambda _, job: _state_of(job.watched.job),
    "health": lambda _, job: HEALTHS.index(health_of(job)),
    "created": lambda _, job: unix_time(job.watched.job.creation_time),
    "active": _count("active"),
    "running": _count("running"),
    "completed": _count("completed"),
    "failed": _count("failed"),
    "preparation_failed": _failed_nodes,
    "age": _behind,
}
"""What jobs may be sorted by: a function of the account's name and the job. None: not known."""


def job_view(account: str, job: JobState, now: float) -> JobView:
    """A job as it is shown. `now`: Unix time."""
    watched, known = job.watched, job.watched.job
    counts = job.outcome(TASK_COUNTS).shown
    nodes = job.outcome(PREPARATION_RELEASE).shown
    info = known.execution_info
    health, succeeded_at = health_of(job), _succeeded_at(job)
    outcomes = ((name, job.outcome(name)) for name in watched.rule.collectors)
    errors = ((name, each.error) for name, each in outcomes if _health(each) == health)
    name, error = next((each for each in errors if each[1] is not None), ("", None))
    cause, cure, trace = diagnosis_of(error)
    return JobView(
        account=account,
        job_id=known.id,
        health=health,
        job_group=watched.group,
        display_name=known.display_name or None,
        state=_state_of(known),
        pool_id=known.pool_id or None,
        priority=known.priority,
        created=iso_time(unix_time(known.creation_time)),
        started=iso_time(unix_time(info.start_time)) if info else None,
        ended=iso_time(unix_time(info.end_time)) if info else None,
        last_progress=iso_time(counts.last_progress) if counts else None,
        tasks=counts.tasks if counts else None,
        task_slots=counts.slots if counts else None,
        preparation=_nodes(nodes, "preparation") if nodes and nodes.configured else None,
        release=_nodes(nodes, "release") if nodes and nodes.configured else None,
        error=f"{name}: {error}" if error else None,
        cause=cause,
        cure=cure,
        trace=trace,
        last_success=iso_time(succeeded_at),
        age_seconds=_age(succeeded_at, now),
    )


def _nodes(nodes: PreparationRelease, task: str) -> Nodes:
    return Nodes(
        nodes.count(task, "state", "running"),
        nodes.count(task, "result", "success"),
        nodes.count(task, "result", "failure"),
    )


def collector_status(name: str, outcome: Outcome, now: float) -> CollectorStatus:
    """What the polls of a collector came to."""
    error = outcome.error
    cause, cure, trace = diagnosis_of(error)
    return CollectorStatus(
        collector=name,
        health=_health(outcome),
        error=str(error) if error else None,
        cause=cause,
        cure=cure,
        trace=trace,
        last_success=iso_time(outcome.succeeded_at),
        age_seconds=_age(outcome.succeeded_at, now),
    )


def diagnosis_of(error: PollError | None) -> tuple[str | None, str | None, str | None]:
    """Cause, cure and trace of an error; None where there is none."""
    if error is None:
        return None, None, None
    return error.cause, error.cure or None, error.trace or None


def _age(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(max(0.0, now - moment), 3)


async def job_detail(service: Backend, values: Mapping[str, Any]) -> JobDetail:
    """All that is known of one job; NotFound where it is not watched."""
    account, job_id, now = values["account"], values["job_id"], service.now()
    state = service.store.accounts.get(account)
    job = state.jobs.get(job_id) if state is not None else None
    if job is None:
        raise NotFound(
            f"no job {job_id[:80]!r} is watched in the account {account[:80]!r}:"
            " api/v1/jobs lists those that are"
        )
    watched = job.watched
    lines = service.exposition.lines(identity_of(account, watched.owner))
    failures = [
        each
        for each in service.failures.latest()
        if each.account == account and each.job_id == job_id
    ]
    return JobDetail(
        now=iso_time(now) or "",
        job=job_view(account, job, now),
        polls=tuple(collector_status(n, job.outcome(n), now) for n in watched.rule.collectors),
        series=tuple(lines.decode().splitlines()),
        history=service.store.history.points(account, job_id),
        failures=tuple(failures[:FAILURES_OF_A_JOB]),
    )
