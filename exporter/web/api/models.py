"""The shapes of the JSON API, version 1, that only it has. What is not known is absent.

The descriptions are those of docs/openapi.yaml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from exporter.batch.models import Counts
from exporter.polling.load import Load
from exporter.state.failures import Failure
from exporter.state.history import Point
from exporter.state.timestamps import Time

Count = Annotated[int, Meta(ge=0)]

Health = Literal["ok", "pending", "failing", "stale"]
HEALTHS: tuple[Health, ...] = ("ok", "pending", "failing", "stale")
"""From good to bad. `pending`: not yet polled. `failing`: the last poll failed, the values before
it are shown. `stale`: polls failed for so long that the values were dropped."""


class View(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all views."""


class Nodes(View, frozen=True):
    """Nodes by their latest run of the preparation or release task."""

    running: Count
    succeeded: Count
    failed: Count


class CollectorStatus(View, frozen=True):
    """What the polls of one collector came to. `age_seconds`: since the last good one.

    `error`: why the last poll failed; absent where it succeeded, or there was none. `cause`,
    `cure`: its probable cause, a word of docs/check.md, and what to do about it. `trace`: the ids
    by which Microsoft's support finds the request.
    """

    collector: str
    health: Health
    error: str | None = None
    cause: str | None = None
    cure: str | None = None
    trace: str | None = None
    last_success: Time | None = None
    age_seconds: float | None = None


class JobView(View, frozen=True):
    """A job that is watched.

    `error`, `cause`, `cure`, `trace`, `last_success`, `age_seconds`: of the collector that is worst
    off.
    """

    account: str
    job_id: str
    health: Health
    job_group: str | None = None
    display_name: str | None = None
    state: str | None = None
    pool_id: str | None = None
    priority: int | None = None
    created: Time | None = None
    started: Time | None = None
    ended: Time | None = None
    last_progress: Time | None = None
    tasks: Counts | None = None
    task_slots: Counts | None = None
    preparation: Nodes | None = None
    release: Nodes | None = None
    error: str | None = None
    cause: str | None = None
    cure: str | None = None
    trace: str | None = None
    last_success: Time | None = None
    age_seconds: float | None = None


class JobList(View, frozen=True):
    """A page of the jobs. `total`: of all that are watched; `matched`: of those asked for."""

    now: Time
    total: Count
    matched: Count
    limit: Count
    offset: Count
    jobs: tuple[JobView, ...]


class FailureList(View, frozen=True):
    """The latest failures, the latest first."""

    failures: tuple[Failure, ...]


class JobDetail(View, frozen=True):
    """One job with all that is known of it.

    `series`: its lines in the exposition; those of its group where it is in one.
    `history`: how its numbers changed since the process began, thinned out evenly.
    `failures`: its latest, at most 100.
    """

    now: Time
    job: JobView
    polls: tuple[CollectorStatus, ...]
    series: tuple[str, ...]
    history: tuple[Point, ...]
    failures: tuple[Failure, ...]


class SignIn(View, frozen=True):
    """Why the token of an account cannot be renewed, since when, and what to do about it.

    `good_until`: when the present token expires; absent where that is not known.
    """

    error: str
    cause: str
    cure: str
    since: Time
    good_until: Time | None = None


class AccountView(View, frozen=True):
    """An account. `up`: absent until its jobs were listed. `error`: why it is not.

    `cause`: the probable cause, the word of `azure_batch_account_failure`. `cure`: what to do.
    `trace`: the ids by which Microsoft's support finds the request.
    `sign_in`: absent unless its token cannot be renewed; the account is up while the token is good.
    `jobs_by_state`, `jobs_by_health`: of the jobs that are watched. `jobs_dropped`: beyond
    `max_jobs`.
    """

    name: str
    endpoint: str
    ready: bool
    jobs: Count
    jobs_dropped: Count
    jobs_by_state: dict[str, int]
    jobs_by_health: dict[str, int]
    series: Count
    load: Load
    polls: tuple[CollectorStatus, ...]
    up: bool | None = None
    error: str | None = None
    cause: str | None = None
    cure: str | None = None
    trace: str | None = None
    sign_in: SignIn | None = None


class Status(View, frozen=True):
    """The process and its accounts. `problem`: why it should be started anew; absent: it need not.

    `shard`: which part of the jobs this process polls, as `I/N`.
    """

    now: Time
    version: str
    ready: bool
    shard: str
    series: Count
    accounts: tuple[AccountView, ...]
    problem: str | None = None


class RunningConfig(View, frozen=True):
    """The configuration in force, with its defaults, in the form of the file. It has no secrets."""

    config: dict[str, Any]


class Error(View, frozen=True):
    """Why a request cannot be answered."""

    error: str
