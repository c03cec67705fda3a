"""What is found out about an account before it is polled: the shape of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

VERSION = 1
"""Of the shape as JSON. It grows when a member is renamed or removed; new ones may come."""


@dataclass(frozen=True)
class Problem:
    """What is wrong. An `error` costs values; a `warning` may be as it was meant to be.

    `where`: path in the configuration. `cause`: a fixed word, see docs/check.md.
    """

    level: Literal["error", "warning"]
    where: str
    cause: str
    text: str
    cure: str


@dataclass(frozen=True)
class Answer:
    """What came of one thing that was tried.

    `name`: an operation of the REST API, or `sign_in`. `needed_for`: keys of the configuration
    that need it. `permission`: what a role must allow. `is_ok`: None where it was not tried, or
    the answer says nothing. `error`: what was answered instead, and `cause` and `cure` of that.
    """

    name: str
    needed_for: tuple[str, ...]
    permission: str
    is_ok: bool | None
    error: str = ""
    cause: str = ""
    cure: str = ""


@dataclass(frozen=True)
class Range:
    """From an account of which nothing happens in any job, to one where all are busy."""

    idle: float = 0.0
    busy: float = 0.0

    def __add__(self, other: Range) -> Range:
        return Range(self.idle + other.idle, self.busy + other.busy)


@dataclass(frozen=True)
class RuleForecast:
    """What a rule of `jobs` comes to now.

    `rule`: its match, as it is configured. `matches`: jobs that it matches; `jobs`: those of them
    that no earlier rule takes; `taken_by`: the others, by the path of the rule that takes them.
    `groups`: into how many they go; None: it has no `group`. `examples`: ids of some of its jobs.
    `sampled`: from how many of its jobs the numbers of series and requests were worked out.
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


@dataclass(frozen=True)
class AccountForecast:
    """One account.

    `clock_offset`: seconds by which the service's clock is ahead of this machine's; None: it did
    not say. `is_version_accepted`: None where no answer tells. `is_listing_whole`: False where the
    listing is longer than what was read of it. `dropped`: jobs past `max_jobs`.
    `series`, `requests_per_minute`: of all its jobs, and of the account itself.
    """

    name: str
    endpoint: str
    method: str
    api_version: str
    sign_in: Answer
    operations: tuple[Answer, ...]
    clock_offset: float | None
    is_version_accepted: bool | None
    rules: tuple[RuleForecast, ...]
    jobs: int
    dropped: int
    is_listing_whole: bool
    series: int
    max_series: int
    requests_per_minute: Range
    max_requests_per_minute: float
    requests_made: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Report:
    """Everything. `ok`: there is no problem that is an error."""

    file: str
    ok: bool
    accounts: tuple[AccountForecast, ...]
    version: int = field(default=VERSION)
