"""The JSON API, version 1: what it answers, and the parameters it takes.

The table of operations is also what docs/openapi.yaml is made from (openapi.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from exporter.state.failures import LATEST
from exporter.state.timestamps import iso_time
from exporter.web.api import job_views as jobs
from exporter.web.api import models
from exporter.web.api import status_views as status
from exporter.web.api.parameters import Choice, Number, Parameter, Text
from exporter.web.backend import Backend

MOST_JOBS = 1000
"""On one page."""

STATES = (
    *("active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"),
    "unknown",
)


class NotFound(Exception):
    """What was asked for is not there; the text says what."""


@dataclass(frozen=True)
class Operation:
    """One path that answers GET with JSON.

    `answer(service, values)`: the view for the parameters' values; NotFound where there is none.
    """

    path: str
    name: str
    summary: str
    returns: type[models.View]
    answer: Callable[[Backend, Mapping[str, Any]], Awaitable[models.View]]
    parameters: tuple[Parameter, ...] = ()

    @property
    def may_miss(self) -> bool:
        """Whether what is asked for may not be there."""
        return any(parameter.required for parameter in self.parameters)


FILTERS: tuple[Parameter, ...] = (
    Text("search", "Text in the job's id or display name, in any case of letters.", ""),
    Text("account", "Jobs of this account."),
    Choice("state", "Jobs in this state.", STATES),
    Choice("health", "Jobs whose polls go like this.", models.HEALTHS),
    Text("job_group", "Jobs of this group."),
    Text("pool_id", "Jobs on this pool."),
    Choice("sort", "What to sort by; jobs of which it is not known come last.",
           tuple(jobs.SORT_KEYS), "job_id"),
    Choice("order", "Ascending or descending.", ("asc", "desc"), "asc"),
    Number("offset", "How many to leave out first.", 0, 100_000_000, 0),
)  # fmt: skip


def query_of(values: Mapping[str, Any]) -> jobs.Query:
    """The query for jobs that parameters' values ask for."""
    given = dict(values)
    return jobs.Query(descending=given.pop("order") == "desc", **given)


async def job_list(service: Backend, query: jobs.Query) -> models.JobList:
    """A page of the jobs."""
    found = await jobs.find(service.store.accounts, query)
    now = service.now()
    page: list[models.Job] = []
    for number, each in enumerate(found.page):
        if number % jobs.SHOWN_AT_ONCE == 0:
            await asyncio.sleep(0)
        page.append(jobs.job(each, now))
    return models.JobList(
        now=iso_time(now) or "",
        total=found.total,
        matched=found.matched,
        limit=query.limit,
        offset=query.offset,
        jobs=tuple(page),
    )


async def _jobs(service: Backend, values: Mapping[str, Any]) -> models.JobList:
    return await job_list(service, query_of(values))


async def job_detail(service: Backend, values: Mapping[str, Any]) -> models.JobDetail:
    """One job."""
    found = status.job(service, values["account"], values["job_id"])
    if found is None:
        raise NotFound(
            f"no job {values['job_id'][:80]!r} is watched in the account"
            f" {values['account'][:80]!r}: api/v1/jobs lists those that are"
        )
    return found


async def failure_list(service: Backend, values: Mapping[str, Any]) -> models.FailureList:
    """The latest failures."""
    found = (
        each
        for each in service.failures.latest()
        if values["account"] in (None, each.account)
        and values["job_id"] in (None, each.job_id)
        and values["kind"] in (None, each.kind)
    )
    return models.FailureList(tuple(islice(found, values["limit"])))


async def _status(service: Backend, _: Mapping[str, Any]) -> models.Status:
    return await status.status(service)


async def _config(service: Backend, _: Mapping[str, Any]) -> models.RunningConfig:
    return status.running_config(service.config)


JOB_PARAMETERS: tuple[Parameter, ...] = (
    Text("account", "The account's name.", required=True),
    Text("job_id", "The job's id.", required=True),
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "/api/v1/status",
        "getStatus",
        "The process and its accounts: state, reason, load",
        models.Status,
        _status,
    ),
    Operation(
        "/api/v1/jobs",
        "listJobs",
        "The jobs that are watched, filtered, sorted and by the page",
        models.JobList,
        _jobs,
        (*FILTERS, Number("limit", "Most jobs of the answer.", 1, MOST_JOBS, 100)),
    ),
    Operation(
        "/api/v1/job",
        "getJob",
        "One job: its polls, series, history and failures",
        models.JobDetail,
        job_detail,
        JOB_PARAMETERS,
    ),
    Operation(
        "/api/v1/failures",
        "listFailures",
        "The latest failed preparation, release and job tasks, the latest first",
        models.FailureList,
        failure_list,
        (
            Text("account", "Failures of this account."),
            Text("job_id", "Failures of this job."),
            Choice("kind", "Failures of this kind of task.", ("preparation", "release", "task")),
            Number("limit", "Most failures of the answer.", 0, 999_999, LATEST),
        ),
    ),
    Operation(
        "/api/v1/config",
        "getConfig",
        "The configuration in force; it has no secrets",
        models.RunningConfig,
        _config,
    ),
)
