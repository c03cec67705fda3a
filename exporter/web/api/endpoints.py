"""The JSON API, version 1: what it answers, and the parameters it takes.

tools/openapi.py writes its description from this table of operations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from exporter.batch.models import OTHER
from exporter.collectors import jobs
from exporter.state.failures import LATEST
from exporter.web.api import models
from exporter.web.api.job_views import SORT_KEYS, job_detail, job_list
from exporter.web.api.parameters import Choice, Number, Parameter
from exporter.web.api.status_views import running_config, status
from exporter.web.backend import Backend

MOST_JOBS = 1000
"""On one page."""

STATES = (*jobs.STATES, OTHER, "unknown")


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
    return await status(service)


async def _config(service: Backend, _: Mapping[str, Any]) -> models.RunningConfig:
    return running_config(service.config)


FILTERS: tuple[Parameter, ...] = (
    Parameter("search", "Text in the job's id or display name, in any case of letters.", ""),
    Parameter("account", "Jobs of this account."),
    Choice("state", "Jobs in this state.", words=STATES),
    Choice("health", "Jobs whose polls go like this.", words=models.HEALTHS),
    Parameter("job_group", "Jobs of this group."),
    Parameter("pool_id", "Jobs on this pool."),
    Choice("sort", "What to sort by; jobs of which it is not known come last.", "job_id",
           words=tuple(SORT_KEYS)),
    Choice("order", "Ascending or descending.", "asc", words=("asc", "desc")),
    Number("offset", "How many to leave out first.", 0, most=100_000_000),
)  # fmt: skip
"""The parameters of the list of jobs but `limit`, which the page has not."""

JOB_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("account", "The account's name.", required=True),
    Parameter("job_id", "The job's id.", required=True),
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
        job_list,
        (*FILTERS, Number("limit", "Most jobs of the answer.", 100, least=1, most=MOST_JOBS)),
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
            Parameter("account", "Failures of this account."),
            Parameter("job_id", "Failures of this job."),
            Choice("kind", "Failures of this kind of task.",
                   words=("preparation", "release", "task")),
            Number("limit", "Most failures of the answer.", LATEST, most=999_999),
        ),
    ),
    Operation(
        "/api/v1/config",
        "getConfig",
        "The configuration in force; it has no secrets",
        models.RunningConfig,
        _config,
    ),
)  # fmt: skip
