"""From what accounts answered to what will be: the report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from exporter.batch.transport import MAX_SKEW
from exporter.cli.preflight.cost import Sample, Shown, describe, own_series, owners
from exporter.cli.preflight.forecast import (
    AccountForecast,
    Problem,
    Range,
    Report,
    RuleForecast,
)
from exporter.cli.preflight.matching import Share
from exporter.cli.preflight.probe_account import MAX_PAGES, MAX_SECONDS, Findings, probe
from exporter.config import Account, Config
from exporter.exposition.metric import Excluded
from exporter.service.service import info_labels

EXAMPLES = 3


async def foretell(config: Config, file: str) -> Report:
    """Ask all accounts of a configuration at once. ConfigError where a secret cannot be read."""
    shown = Shown(info_labels(config), Excluded(config.exclude_metrics))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_of_account(config, number, shown))
            for number in range(len(config.accounts))
        ]
    accounts = tuple(task.result() for task in tasks)
    problems = [problem for account in accounts for problem in account.problems]
    return Report(file, all(problem.level != "error" for problem in problems), accounts)


async def _of_account(config: Config, number: int, shown: Shown) -> AccountForecast:
    account, path = config.accounts[number], f"accounts[{number}]"
    rules = account.jobs
    found = await probe(account, rules)
    now = time.time()
    samples = [
        Sample(account.name, found.polls.get(index, ()), shown, now) for index in range(len(rules))
    ]
    forecasts = tuple(
        _of_rule(path, index, share, samples[index]) for index, share in enumerate(found.shares)
    )
    jobs = sum(forecast.jobs for forecast in forecasts)
    own = own_series(account.name, found.nodes, shown, now)
    # Rules share what the account has because of their jobs.
    shared = max(
        sample.series_of_account(share.watched)
        for sample, share in zip(samples, found.shares, strict=True)
    )
    requests = _own_requests(account, config.defaults.interval, found)
    forecast = AccountForecast(
        name=account.name,
        endpoint=account.endpoint,
        method=account.auth.method,
        api_version=account.api_version,
        sign_in=found.sign_in,
        operations=tuple(found.operations.values()),
        clock_offset=found.clock_offset and round(found.clock_offset, 1),
        is_version_accepted=found.is_version_accepted,
        rules=forecasts,
        jobs=min(jobs, account.max_jobs),
        dropped=max(0, jobs - account.max_jobs),
        is_listing_whole=found.is_listing_whole,
        series=own + shared + sum(each.series for each in forecasts),
        max_series=account.max_series,
        requests_per_minute=sum((each.requests_per_minute for each in forecasts), requests),
        max_requests_per_minute=account.requests_per_second * 60,
        requests_made=found.requests,
        problems=(),
    )
    problems = tuple(_problems(path, forecast, found))
    return AccountForecast(**{**vars(forecast), "problems": problems})


def _of_rule(path: str, index: int, share: Share, sample: Sample) -> RuleForecast:
    ids = [watched.job.id for watched in share.watched]
    return RuleForecast(
        where=_rule_path(path, index),
        rule=describe(share.rule),
        matches=share.matches,
        jobs=len(ids),
        groups=len(owners(share.watched)) if share.rule.group is not None else None,
        examples=tuple(ids[:EXAMPLES]),
        taken_by={_rule_path(path, by): count for by, count in sorted(share.taken_by.items())},
        series=sample.series_of_owners(share.watched),
        requests_per_minute=sample.requests_per_minute(len(ids)),
        sampled=sample.jobs,
    )


def _rule_path(path: str, index: int) -> str:
    return f"{path}.jobs[{index}]"


def _own_requests(account: Account, interval: float, found: Findings) -> Range:
    """Requests per minute that no job is the reason of."""
    discovery = (found.listing_pages + found.named_requests) * 60 / account.discovery_interval
    each = discovery + found.node_pages * 60 / interval
    return Range(each, each)


def _problems(path: str, forecast: AccountForecast, found: Findings) -> Iterator[Problem]:
    sign_in = forecast.sign_in
    if sign_in.is_ok is False:
        yield Problem("error", f"{path}.auth", sign_in.cause, sign_in.error, sign_in.cure)
    for answer in forecast.operations:
        if answer.is_ok is False:
            needed = f"{answer.name}, which {' and '.join(answer.needed_for)} needs"
            text = f"{needed}: {answer.error}"
            if answer.cause == "role":
                text += f"; what is missing is {answer.permission}"
            yield Problem("error", path, answer.cause, text, answer.cure)
    if found.out_of_time:
        text = f"the account did not answer everything within {MAX_SECONDS:g} s"
        yield Problem("error", path, "timeout", text, "try again; the rest below is a part of it")
    if abs(offset := found.clock_offset or 0.0) > MAX_SKEW:
        side = "behind" if offset > 0 else "ahead of"
        text = f"this machine's clock is {abs(offset):.0f} s {side} the service's"
        yield Problem("error", path, "clock", text, "set this machine's clock right, with NTP")
    if not forecast.is_listing_whole:
        text = f"the account lists more jobs than the {MAX_PAGES} pages that were read"
        cure = "take the numbers below as the least there will be"
        yield Problem("warning", path, "listing", text, cure)
    if "Job_List" not in found.operations or found.operations["Job_List"].is_ok:
        yield from _rule_problems(forecast.rules)
    yield from _limits(path, forecast)


def _rule_problems(rules: Sequence[RuleForecast]) -> Iterator[Problem]:
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


def _limits(path: str, forecast: AccountForecast) -> Iterator[Problem]:
    if forecast.dropped:
        text = f"{forecast.dropped} jobs are past max_jobs and will be left out"
        cure = "raise max_jobs, or let rules match fewer jobs"
        yield Problem("warning", f"{path}.max_jobs", "max_jobs", text, cure)
    if forecast.series > forecast.max_series:
        text = f"about {forecast.series} series are more than max_series, {forecast.max_series}"
        cure = "use group, exclude_metrics, or raise max_series"
        yield Problem("warning", f"{path}.max_series", "max_series", text, cure)
    busy, ceiling = forecast.requests_per_minute.busy, forecast.max_requests_per_minute
    if busy > ceiling:
        text = f"up to {busy:.0f} requests a minute are more than the ceiling, {ceiling:g}"
        cure = "make interval longer, or raise requests_per_second; else polls will be late"
        where = f"{path}.requests_per_second"
        yield Problem("warning", where, "requests_per_second", text, cure)
