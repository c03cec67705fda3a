"""The report of `check --online`, as classes and as text.

Its JSON has the members of these classes: docs/check.schema.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Problem:
    """What is wrong. An `error` costs values; a `warning` may be intended.

    `where`: path in the configuration. `cause`: a fixed word, see docs/check.md. `trace`: the ids
    by which Microsoft's support finds the request, or "".
    """

    level: Literal["error", "warning"]
    where: str
    cause: str
    text: str
    cure: str
    trace: str = ""


@dataclass
class Operation:
    """An operation of the REST API that polling needs, or `sign_in`.

    `needed_for`: the key of the configuration that needs it. `permission`: what a role must allow.
    `is_ok`: whether every request for it succeeded; None where none was sent.
    """

    name: str
    needed_for: str
    permission: str = ""
    is_ok: bool | None = None


@dataclass(frozen=True)
class RuleReport:
    """What one rule of `jobs` selects now, and an estimate of its cost.

    `rule`: what it matches, as configured. `matches`: number of jobs that it matches. `jobs`:
    number of them that no earlier rule takes. `groups`: number of groups; None where it has no
    `group`. `examples`: ids of some jobs. `requests_per_minute`: while every job is busy. All
    numbers are None where they are not known, because a request failed or was not sent.
    """

    where: str
    rule: str
    matches: int | None
    jobs: int | None
    groups: int | None
    examples: tuple[str, ...]
    series: int | None
    requests_per_minute: float | None


@dataclass
class AccountReport:
    """One account.

    `jobs`, `series`, `requests_per_minute`: of the account and all its jobs; None where that is not
    known. `max_series`, `max_requests_per_minute`: the limits that the configuration sets.
    """

    name: str
    endpoint: str
    max_series: int
    max_requests_per_minute: float
    operations: tuple[Operation, ...]
    rules: tuple[RuleReport, ...] = ()
    jobs: int | None = None
    series: int | None = None
    requests_per_minute: float | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All accounts. `ok`: no problem is an error. `warnings`: of the file itself.

    `version`: of the shape of the JSON.
    """

    file: str
    ok: bool
    accounts: tuple[AccountReport, ...]
    warnings: tuple[str, ...] = ()
    version: int = 1


def as_text(report: Report) -> str:
    """The report for people."""
    lines = [line for account in report.accounts for line in (*_account_lines(account), "")]
    problems = [problem for account in report.accounts for problem in account.problems]
    for problem in problems:
        lines.append(f"{problem.level}: {problem.where}: {problem.cause}: {problem.text}")
        lines.append(f"  cure: {problem.cure}")
        if problem.trace:
            lines.append(f"  for support: {problem.trace}")
    lines += [f"warning: {text}" for text in report.warnings]
    errors = sum(problem.level == "error" for problem in problems)
    end = "ready to run" if report.ok else "not ready"
    warnings = len(problems) - errors + len(report.warnings)
    lines.append(f"{report.file}: {end}, {errors} error(s), {warnings} warning(s)")
    return "\n".join(lines)


def _account_lines(account: AccountReport) -> Iterator[str]:
    yield f"account {account.name} at {account.endpoint}"
    yield ""
    for operation in account.operations:
        result = {True: "ok", False: "failed", None: "not known"}[operation.is_ok]
        yield f"  {operation.name:40} {result:10} needed for {operation.needed_for}"
    yield ""
    for rule in account.rules:
        groups = "" if rule.groups is None else f" in {rule.groups} groups"
        taken = "" if rule.jobs == rule.matches else f" of {rule.matches} that match"
        examples = f", for example {', '.join(rule.examples)}" if rule.examples else ""
        yield f"  {rule.where}: {rule.rule}"
        jobs = "not known" if rule.jobs is None else f"{rule.jobs}{taken}{groups}{examples}"
        yield f"    jobs: {jobs}"
        yield f"    {_cost(rule.series, rule.requests_per_minute)}"
    jobs = "jobs: not known" if account.jobs is None else f"{account.jobs} jobs"
    most = (f" (at most {account.max_series})", f" (at most {account.max_requests_per_minute:g})")
    yield f"  in all: {jobs}, {_cost(account.series, account.requests_per_minute, most)}"


def _cost(series: int | None, requests: float | None, most: tuple[str, str] = ("", "")) -> str:
    if series is None or requests is None:
        return "series and requests: not known"
    return f"about {series} series{most[0]}, up to {requests:.0f} requests/min{most[1]}"
