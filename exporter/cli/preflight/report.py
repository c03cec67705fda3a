"""The report of `check --online`. Its JSON is these classes: docs/check.schema.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

VERSION = 1
"""Version of the JSON. It grows when a member is renamed or removed; new members may come."""

MAX_PAGES = 20
"""Most pages of an account's job list that are read: 20,000 jobs."""

MAX_SECONDS = 60.0
"""Most seconds that a check takes."""


@dataclass(frozen=True)
class Problem:
    """What is wrong. An `error` costs values; a `warning` may be intended.

    `where`: path in the configuration. `cause`: a fixed word, see docs/check.md.
    """

    level: Literal["error", "warning"]
    where: str
    cause: str
    text: str
    cure: str


@dataclass
class Answer:
    """The result of one request, or of signing in.

    `name`: an operation of the REST API, or `sign_in`. `needed_for`: keys of the configuration
    that need it. `permission`: what a role must allow. `is_ok`: None where it was not tried, or
    the answer says nothing. `error`, `cause`, `cure`: of what was answered instead.
    """

    name: str
    needed_for: tuple[str, ...]
    permission: str
    is_ok: bool | None = None
    error: str = ""
    cause: str = ""
    cure: str = ""


@dataclass(frozen=True)
class Range:
    """Requests per minute while all jobs are idle, and while all jobs are busy."""

    idle: float = 0.0
    busy: float = 0.0


@dataclass(frozen=True)
class RuleReport:
    """What one rule of `jobs` selects now, and about what it costs.

    `rule`: what it matches, as configured. `matches`: number of jobs that it matches. `jobs`: those
    that no earlier rule takes. `taken_by`: number of the others, by path of the rule that takes
    them. `groups`: number of groups; None where it has no `group`. `examples`: ids of some jobs.
    `sampled`: number of jobs that were polled to estimate series and requests.
    """

    where: str
    rule: str
    matches: int
    jobs: int
    groups: int | None
    examples: tuple[str, ...]
    taken_by: Mapping[str, int]
    series: int
    requests_per_minute: Range
    sampled: int


@dataclass
class AccountReport:
    """One account.

    `clock_offset`: seconds by which the service's clock is ahead of this machine's; None where
    nothing answered. `is_version_accepted`: None where no answer tells. `dropped`: number of jobs
    past `max_jobs`. `is_listing_whole`: False where only the first pages of the job list were read.
    `is_complete`: False where the check ended before everything was answered.
    `series`, `requests_per_minute`: of the account itself and all its jobs.
    """

    name: str
    endpoint: str
    method: str
    api_version: str
    max_series: int
    max_requests_per_minute: float
    sign_in: Answer
    operations: tuple[Answer, ...]
    clock_offset: float | None = None
    is_version_accepted: bool | None = None
    rules: tuple[RuleReport, ...] = ()
    jobs: int = 0
    dropped: int = 0
    is_listing_whole: bool = True
    is_complete: bool = True
    series: int = 0
    requests_per_minute: Range = Range()
    requests_made: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Report:
    """All accounts. `ok`: no problem is an error."""

    file: str
    ok: bool
    accounts: tuple[AccountReport, ...]
    version: int = VERSION
