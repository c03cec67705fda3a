"""Asks an account for all that a configuration needs of it: few requests, within a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from math import ceil
from typing import Literal, TypeVar

from exporter import collectors
from exporter.batch.auth import SignIns
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient, open_client
from exporter.batch.errors import Forbidden, JobGone, PollError, TaskGone
from exporter.batch.models import Job
from exporter.batch.service_clock import MAX_SKEW
from exporter.cli.preflight.cost import Sample, SampledPoll
from exporter.cli.preflight.report import AccountReport, Operation, Problem, Report, RuleReport
from exporter.collectors import JOB_COLLECTORS, pool_nodes
from exporter.collectors.pool_nodes import PoolNodes
from exporter.config import Account, Config, Rule
from exporter.config.problems import ConfigError
from exporter.config.redaction import redact, redact_all
from exporter.config.rule import WATCHED_TASKS
from exporter.diagnosis.accounts import diagnose
from exporter.exposition.metric import Excluded
from exporter.polling.selection import listing_filter, matches, select, watch
from exporter.service.service import info_labels
from exporter.service.telemetry import AccountTelemetry, Telemetry
from exporter.state.watched_job import WatchedJob

MAX_REQUESTS = 200
"""Most requests of a check to one account."""

SAMPLE = 8
"""Most jobs of a rule that are polled once."""

SAMPLE_OF_ACCOUNT = 60
"""Jobs of all rules that are polled once: up to three requests each stay below MAX_REQUESTS."""

PATIENCE = 2.0
"""Seconds for which a request that failed is tried again."""

NO_JOB = "azure-batch-exporter-check"
"""A job that does not exist: an answer of 404 shows that the request is allowed."""


class Stopped(Exception):
    """Further requests are pointless: they would all fail, or all that are allowed are sent."""


class LimitedBudget(Budget):
    """A request budget that ends after MAX_REQUESTS requests."""

    async def acquire(self, until: float) -> None:
        """Wait for the turn of one request. Stopped where no request is left."""
        if self.started >= MAX_REQUESTS:
            raise Stopped
        await super().acquire(until)


class AccountCheck:
    """Asks one account, `accounts[number]` of the configuration, and reports what it answers."""

    def __init__(self, config: Config, number: int, sign_ins: SignIns) -> None:
        account = config.accounts[number]
        self._config = config
        self._account = account
        self._sign_ins = sign_ins
        self._path = f"accounts[{number}]"
        self._operations = {each.name: each for each in _needed_operations(account)}
        self._budget = LimitedBudget(account.requests_per_second, lambda _: None)
        self._now = time.time()
        self._jobs: tuple[WatchedJob, ...] = ()
        self._nodes: PoolNodes | None = None
        self._polls: list[SampledPoll] = []
        self._listings_per_minute = 0.0
        self._failed: list[tuple[int, Operation, PollError]] = []
        """Errors of operations, and which problems of the report these are."""
        self._report = AccountReport(
            name=account.name,
            endpoint=account.endpoint,
            max_series=account.max_series,
            max_requests_per_minute=account.requests_per_second * 60,
            operations=tuple(self._operations.values()),
        )

    async def run(self, within: float = 60.0) -> AccountReport:
        """Ask for everything in turn, for `within` seconds at most.

        ConfigError where a secret cannot be read.
        """
        account = self._account
        try:
            credential = self._sign_ins.auth(account)
        except ValueError as error:
            raise ConfigError((f"account {account.name}: {error}",)) from error
        observer = AccountTelemetry(Telemetry(""), account.name)
        async with AsyncExitStack() as stack:
            self._client = open_client(stack, account, credential, self._budget, observer)
            try:
                async with asyncio.timeout(within):
                    async with self._asking("sign_in"):
                        await credential.headers(account.endpoint)
                    await self._read_jobs()
                    await self._read_pool_nodes()
                    await self._poll_sample()
            except TimeoutError:
                text = f"the account did not answer everything within {within:g} s"
                self._add("error", "", "timeout", text, "try again; the report is incomplete")
            except Stopped:
                if self._budget.started >= MAX_REQUESTS:
                    text = f"the check stopped after {MAX_REQUESTS} requests"
                    cure = "take the numbers above as the least there will be"
                    self._add("warning", "", "incomplete", text, cure)
        self._diagnose_again()
        if abs(offset := self._client.clock.offset) > MAX_SKEW:
            side = "behind" if offset > 0 else "ahead of"
            text = f"this machine's clock is {abs(offset):.0f} s {side} the service's"
            self._add("error", "", "clock", text, "set this machine's clock right, with NTP")
        self._estimate()
        return self._report

    async def _read_jobs(self) -> None:
        jobs: list[Job] = []
        rules, before = self._account.jobs, self._budget.started
        if (filter_ := listing_filter(rules, self._now)) is not None:
            async with self._asking("Job_List") as client:
                async for page in client.list_jobs(filter_):
                    jobs += page
        pages = self._budget.started - before
        listed = {job.id.lower() for job in jobs}
        named = [rule.id for rule in rules if rule.id and rule.id.lower() not in listed]
        for job_id in named or [NO_JOB]:
            async with self._asking("Job_Get") as client:
                jobs.append(await client.get_job(job_id))
        self._jobs = select(rules, jobs, self._now)
        per_minute = 60 / self._account.discovery_interval
        self._listings_per_minute += (pages + len(named)) * per_minute
        asked = [self._operations.get("Job_List"), self._operations["Job_Get"]]
        if all(operation is None or operation.is_ok for operation in asked):
            self._warn_of_idle_rules()

    def _warn_of_idle_rules(self) -> None:
        """Warn of the rules that select no job."""
        busy = {id(watched.rule) for watched in self._jobs}
        for number, rule in enumerate(self._account.jobs):
            if id(rule) in busy:
                continue
            where, matching = f".jobs[{number}]", len(self._matching(rule))
            if matching:
                text = f"all {matching} jobs that match {_describe(rule)} go to earlier rules"
                cure = "write this rule above those: the first that matches a job has it"
                self._add("warning", where, "shadowed", text, cure)
            else:
                text = f"no job matches {_describe(rule)} now"
                cure = "nothing, where jobs are still to come; else see states and metadata, too"
                self._add("warning", where, "no_match", text, cure)

    def _matching(self, rule: Rule) -> list[WatchedJob]:
        """The jobs that a rule matches, also those that an earlier rule takes."""
        return [watched for watched in self._jobs if matches(rule, watched.job, self._now)]

    async def _read_pool_nodes(self) -> None:
        if self._account.pool_nodes:
            before = self._budget.started
            async with self._asking("Account_ListPoolNodeCounts") as client:
                self._nodes = await pool_nodes.read(client)
            requests = self._budget.started - before
            self._listings_per_minute += requests * 60 / self._config.defaults.interval

    async def _poll_sample(self) -> None:
        rules = self._account.jobs
        size = min(SAMPLE, max(1, SAMPLE_OF_ACCOUNT // len(rules)))
        for rule in rules:
            own = [watched for watched in self._jobs if watched.rule is rule]
            step = ceil(len(own) / size)  # spread over all ids
            for watched in own[::step] if own else [watch(Job(id=NO_JOB), rule)]:
                for name in rule.collectors:
                    before = self._budget.started
                    async with self._asking(JOB_COLLECTORS[name].operation) as client:
                        reading = await JOB_COLLECTORS[name].read(client, watched, None, self._now)
                        requests = self._budget.started - before
                        self._polls.append(SampledPoll(watched, name, reading, requests))

    @asynccontextmanager
    async def _asking(self, name: str) -> AsyncIterator[BatchClient]:
        """Note whether an operation succeeds. Stopped where no other one can succeed either."""
        operation = self._operations[name]
        try:
            yield self._client.until(asyncio.get_running_loop().time() + PATIENCE)
        except (JobGone, TaskGone):
            pass  # the job does not exist, but the request is allowed
        except PollError as error:
            diagnose(self._account, error)
            if operation.is_ok is not False:
                self._refused(operation, error)
            if error.account_wide or error.cause == "endpoint":
                raise Stopped from error
        if operation.is_ok is None:
            operation.is_ok = True

    def _refused(self, operation: Operation, error: PollError) -> None:
        operation.is_ok = False
        self._failed.append((len(self._report.problems), operation, error))
        self._report.problems.append(self._problem(operation, error))

    def _diagnose_again(self) -> None:
        """Tell the causes of refusals, now that it is known which operations succeed."""
        for number, operation, error in self._failed:
            if isinstance(error, Forbidden):
                others = [each for each in self._report.operations if each.name != "sign_in"]
                error.others_succeed = any(each.is_ok for each in others)
                diagnose(self._account, error)
                self._report.problems[number] = self._problem(operation, error)

    def _problem(self, operation: Operation, error: PollError) -> Problem:
        text = str(error).removeprefix(f"{operation.name}: ")
        where = self._path
        if operation.name == "sign_in":
            where += ".auth"
        else:
            text = f"{operation.name}, which {operation.needed_for} needs: {text}"
            if error.cause == "role":
                text += f"; what is missing is {operation.permission}"
        return Problem("error", where, error.cause, text, error.cure, error.trace)

    def _estimate(self) -> None:
        """Put what the rules select, and about what it costs, into the report."""
        account, report = self._account, self._report
        tables = collectors.tables(
            info_labels(self._config), Excluded(self._config.exclude_metrics)
        )
        sample = Sample(account.name, tables, self._polls, self._nodes, self._now)
        report.rules = tuple(
            self._rule_report(number, rule, sample) for number, rule in enumerate(account.jobs)
        )
        if all(rule.jobs is not None for rule in report.rules):
            report.jobs = min(len(self._jobs), account.max_jobs)
        costs = [(each.series, each.requests_per_minute) for each in report.rules]
        if self._succeeded("Account_ListPoolNodeCounts") or not account.pool_nodes:
            series, requests = zip(*costs, strict=True)
            report.series = _sum(sample.series_of_account, *series)
            report.requests_per_minute = _sum(self._listings_per_minute, *requests)
        self._check_limits()

    def _rule_report(self, number: int, rule: Rule, sample: Sample) -> RuleReport:
        matching = self._matching(rule)
        own = [watched for watched in matching if watched.rule is rule]
        is_listed = self._succeeded("Job_List" if rule.pattern else "Job_Get")
        operations = [JOB_COLLECTORS[name].operation for name in rule.collectors]
        is_sampled = is_listed and all(map(self._succeeded, operations))
        groups = len({watched.group for watched in own}) if rule.group is not None else None
        return RuleReport(
            where=f"{self._path}.jobs[{number}]",
            rule=_describe(rule),
            matches=len(matching) if is_listed else None,
            jobs=len(own) if is_listed else None,
            groups=groups if is_listed else None,
            examples=tuple(watched.job.id for watched in own[:3]),
            series=sample.series_of_rule(rule, own) if is_sampled else None,
            requests_per_minute=(
                sample.requests_per_minute(rule, len(own)) if is_sampled else None
            ),
        )

    def _succeeded(self, operation: str) -> bool:
        return self._operations[operation].is_ok is True

    def _check_limits(self) -> None:
        account, report = self._account, self._report
        if dropped := max(0, len(self._jobs) - account.max_jobs):
            text = f"{dropped} jobs are past max_jobs and will be left out"
            cure = "raise max_jobs, or let rules match fewer jobs"
            self._add("warning", ".max_jobs", "max_jobs", text, cure)
        if report.series is not None and report.series > account.max_series:
            text = f"about {report.series} series are more than max_series, {account.max_series}"
            cure = "use group, exclude_metrics, or raise max_series"
            self._add("warning", ".max_series", "max_series", text, cure)
        requests, limit = report.requests_per_minute, report.max_requests_per_minute
        if requests is not None and requests > limit:
            text = f"up to {requests:.0f} requests a minute are more than the limit, {limit:g}"
            cure = "make interval longer, or raise requests_per_second; else polls will be late"
            self._add("warning", ".requests_per_second", "requests_per_second", text, cure)

    def _add(
        self,
        level: Literal["error", "warning"],
        key: str,
        cause: str,
        text: str,
        cure: str,
    ) -> None:
        """Add a problem. `key`: where it is, below the account."""
        self._report.problems.append(
            Problem(level, self._path + key, cause, redact(text), redact(cure))
        )


N = TypeVar("N", int, float)


def _sum(*numbers: N | None) -> N | None:
    """Their sum; None where one of them is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _needed_operations(account: Account) -> Iterator[Operation]:
    """The operations that polling needs, none of them tried yet."""
    of_jobs = "Microsoft.Batch/batchAccounts/jobs/read"
    yield Operation("sign_in", "auth")
    if any(rule.pattern for rule in account.jobs):
        yield Operation("Job_List", "jobs[].id_regex", of_jobs)
    yield Operation("Job_Get", "jobs", of_jobs)  # of jobs that left the selection
    collected = {name for rule in account.jobs for name in rule.collectors}
    for name, collector in JOB_COLLECTORS.items():
        if name in collected:
            key = "jobs[].tasks" if name == WATCHED_TASKS else f"collect: {name}"
            yield Operation(collector.operation, key, of_jobs)
    if account.pool_nodes:
        of_pools = "Microsoft.Batch/batchAccounts/pools/read"
        yield Operation("Account_ListPoolNodeCounts", "pool_nodes", of_pools)


def _describe(rule: Rule) -> str:
    """A rule by what it matches."""
    text = f"id_regex {rule.pattern.text}" if rule.pattern is not None else f"id {rule.id}"
    wanted = ", ".join(
        f"{name}={value}" for name, value in sorted(redact_all(rule.metadata).items())
    )
    return f"{redact(text)} with {wanted}" if wanted else redact(text)


async def check_accounts(config: Config, file: str, warnings: Iterable[str] = ()) -> Report:
    """Check all accounts of a configuration at once. ConfigError where a secret cannot be read.

    `warnings`: of the file.
    """
    sign_ins = SignIns()
    checks = [AccountCheck(config, each, sign_ins) for each in range(len(config.accounts))]
    accounts = tuple(await asyncio.gather(*(check.run() for check in checks)))
    problems = [problem for account in accounts for problem in account.problems]
    is_ok = all(problem.level != "error" for problem in problems)
    return Report(file, is_ok, accounts, tuple(warnings))
