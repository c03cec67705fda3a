"""What is wrong with a configuration, from what its accounts answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.batch.transport import MAX_SKEW
from exporter.cli.preflight.report import (
    MAX_PAGES,
    MAX_SECONDS,
    AccountReport,
    Answer,
    Problem,
    RuleReport,
)


def find_problems(path: str, account: AccountReport) -> Iterator[Problem]:
    """The problems of an account. `path`: of the account in the configuration."""
    yield from _refused(path, account.sign_in, account.operations)
    if not account.is_complete:
        text = f"the account did not answer everything within {MAX_SECONDS:g} s"
        yield Problem("error", path, "timeout", text, "try again; the rest below is a part of it")
    if abs(offset := account.clock_offset or 0.0) > MAX_SKEW:
        side = "behind" if offset > 0 else "ahead of"
        text = f"this machine's clock is {abs(offset):.0f} s {side} the service's"
        yield Problem("error", path, "clock", text, "set this machine's clock right, with NTP")
    if not account.is_listing_whole:
        text = f"the account lists more jobs than the {MAX_PAGES} pages that were read"
        cure = "take the numbers below as the least there will be"
        yield Problem("warning", path, "listing", text, cure)
    if all(answer.is_ok for answer in account.operations if answer.name == "Job_List"):
        yield from _idle_rules(account.rules)
    yield from _exceeded_limits(path, account)


def _refused(path: str, sign_in: Answer, operations: Sequence[Answer]) -> Iterator[Problem]:
    if sign_in.is_ok is False:
        yield Problem("error", f"{path}.auth", sign_in.cause, sign_in.error, sign_in.cure)
    for answer in operations:
        if answer.is_ok is False:
            needed = " and ".join(answer.needed_for)
            text = f"{answer.name}, which {needed} needs: {answer.error}"
            if answer.cause == "role":
                text += f"; what is missing is {answer.permission}"
            yield Problem("error", path, answer.cause, text, answer.cure)


def _idle_rules(rules: Sequence[RuleReport]) -> Iterator[Problem]:
    """Rules that select no job."""
    for rule in rules:
        if not rule.matches:
            text = f"no job matches {rule.rule} now"
            cure = "nothing, where such jobs are still to come; else see states and metadata, too"
            yield Problem("warning", rule.where, "no_match", text, cure)
        elif not rule.jobs:
            takers = " and ".join(rule.taken_by)
            text = f"all {rule.matches} jobs that match {rule.rule} go to {takers}"
            cure = "write this rule above those: the first that matches a job has it"
            yield Problem("warning", rule.where, "shadowed", text, cure)


def _exceeded_limits(path: str, account: AccountReport) -> Iterator[Problem]:
    busy, ceiling = account.requests_per_minute.busy, account.max_requests_per_minute
    limits = (
        (
            "max_jobs",
            account.dropped > 0,
            f"{account.dropped} jobs are past max_jobs and will be left out",
            "raise max_jobs, or let rules match fewer jobs",
        ),
        (
            "max_series",
            account.series > account.max_series,
            f"about {account.series} series are more than max_series, {account.max_series}",
            "use group, exclude_metrics, or raise max_series",
        ),
        (
            "requests_per_second",
            busy > ceiling,
            f"up to {busy:.0f} requests a minute are more than the ceiling, {ceiling:g}",
            "make interval longer, or raise requests_per_second; else polls will be late",
        ),
    )
    for key, is_exceeded, text, cure in limits:
        if is_exceeded:
            yield Problem("warning", f"{path}.{key}", key, text, cure)
