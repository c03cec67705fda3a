"""What an account answers to what a configuration needs of it: few requests, within a minute."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from exporter import collectors
from exporter.batch import auth
from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient, open_client
from exporter.batch.errors import JobGone, PollError, ServiceError, TaskGone
from exporter.batch.models import Job
from exporter.cli.preflight.cost import Sample, SampledPoll
from exporter.cli.preflight.find_problems import find_problems
from exporter.cli.preflight.report import (
    MAX_PAGES,
    MAX_SECONDS,
    AccountReport,
    Answer,
    Range,
    Report,
    RuleReport,
)
from exporter.collectors import JOB_COLLECTORS, pool_nodes
from exporter.collectors.pool_nodes import PoolNodes
from exporter.config import Account, Config, Rule
from exporter.config.problems import ConfigError
from exporter.config.rule import WATCHED_TASKS
from exporter.diagnosis.accounts import ConfiguredAccount, diagnose
from exporter.exposition.metric import Excluded
from exporter.polling.selection import listing_filter, matches, select, watch
from exporter.service.service import info_labels
from exporter.service.telemetry import Telemetry
from exporter.state.watched_job import WatchedJob

MAX_REQUESTS = 200
"""Most requests of a check to one account."""

MAX_NAMED = 20
"""Most jobs that are read one by one, because a rule names them and the list does not."""

SAMPLE = 8
"""Jobs of each rule that are polled once."""

EXAMPLES = 3
"""Ids of jobs that are shown of each rule."""

PATIENCE = 2.0
"""Seconds for which a request that failed is tried again."""

NO_JOB = "azure-batch-exporter-check"
"""A job that does not exist: an answer of 404 shows that the request is allowed."""

OPERATIONS = {
    "task_counts": "Job_GetTaskCounts",
    "preparation_release": "Job_ListPreparationAndReleaseTaskStatus",
    "tasks": "Task_List",
    WATCHED_TASKS: "Task_Get",
}
"""The operation of each collector of jobs."""


class Stopped(Exception):
    """Further requests are pointless: they would all fail, or all that are allowed are sent."""


class LimitedBudget(Budget):
    """A request budget that ends after `most` requests."""

    def __init__(self, requests_per_second: float, most: int = MAX_REQUESTS) -> None:
        super().__init__(requests_per_second, lambda _: None)
        self._most = most

    async def acquire(self, until: float) -> None:
        """Wait for the turn of one request. Stopped where no request is left."""
        if self.started >= self._most:
            raise Stopped
        await super().acquire(until)


class AccountCheck:
    """Asks one account, `accounts[number]` of the configuration, and reports what it answers."""

    def __init__(self, config: Config, number: int) -> None:
        account = config.accounts[number]
        self._config = config
        self._account = account
        self._path = f"accounts[{number}]"
        self._rules = account.jobs
        self._operations = _needed_operations(account, self._rules)
        self._budget = LimitedBudget(account.requests_per_second)
        self._now = time.time()
        self._jobs: tuple[WatchedJob, ...] = ()
        self._nodes: PoolNodes | None = None
        self._polls: list[SampledPoll] = []
        self._listing_requests = 0
        self._node_requests = 0
        self._report = AccountReport(
            name=account.name,
            endpoint=account.endpoint,
            method=account.auth.method,
            api_version=account.api_version,
            max_series=account.max_series,
            max_requests_per_minute=account.requests_per_second * 60,
            sign_in=Answer("sign_in", (f"auth.method {account.auth.method}",), ""),
            operations=tuple(self._operations.values()),
        )

    async def run(self, within: float = MAX_SECONDS) -> AccountReport:
        """Ask for everything in turn, for `within` seconds at most.

        ConfigError where a secret cannot be read.
        """
        account = self._account
        try:
            credential = auth.build(account)
        except ValueError as error:
            raise ConfigError((f"account {account.name}: {error}",)) from error
        observer = Telemetry("").for_account(account.name)
        async with AsyncExitStack() as stack:
            self._client = open_client(stack, account, credential, self._budget, observer)
            try:
                async with asyncio.timeout(within):
                    await self._sign_in(credential)
                    await self._read_jobs()
                    await self._read_pool_nodes()
                    await self._poll_sample()
                    await self._ask_for_no_job()
            except TimeoutError:
                self._report.is_complete = False
            except Stopped:
                pass
        self._estimate()
        self._report.problems = tuple(find_problems(self._path, self._report))
        return self._report

    async def _sign_in(self, credential: Auth) -> None:
        try:
            await credential.headers(self._account.endpoint)
        except PollError as error:
            self._refuse(self._report.sign_in, error)
            raise Stopped from error

    async def _read_jobs(self) -> None:
        jobs: list[Job] = []
        filter_ = listing_filter(self._rules, self._now)
        if filter_ is not None:
            async with self._asking("Job_List") as client:
                async for page in client.list_jobs(filter_):
                    jobs += page
                    self._listing_requests = self._budget.started
                    if self._listing_requests >= MAX_PAGES:
                        self._report.is_listing_whole = False
                        break
        listed = {job.id.lower() for job in jobs}
        named = [rule.id for rule in self._rules if rule.id and rule.id.lower() not in listed]
        self._listing_requests += len(named)
        for job_id in named[:MAX_NAMED]:
            async with self._asking("Job_Get") as client:
                jobs.append(await client.get_job(job_id))
        self._jobs = select(self._rules, jobs, self._now)

    async def _read_pool_nodes(self) -> None:
        if self._account.pool_nodes:
            before = self._budget.started
            async with self._asking("Account_ListPoolNodeCounts") as client:
                self._nodes = await pool_nodes.read(client)
            self._node_requests = self._budget.started - before

    async def _poll_sample(self) -> None:
        for rule in self._rules:
            watched = [each for each in self._jobs if each.rule is rule]
            step = max(1, len(watched) / SAMPLE)  # spread over all ids
            for number in range(min(SAMPLE, len(watched))):
                await self._poll(watched[int(number * step)])

    async def _poll(self, watched: WatchedJob) -> None:
        for collector in watched.rule.collect:
            before = self._budget.started
            async with self._asking(OPERATIONS[collector]) as client:
                reading = await JOB_COLLECTORS[collector].read(client, watched, None, self._now)
                requests = self._budget.started - before
                self._polls.append(SampledPoll(watched, collector, reading, requests))

    async def _ask_for_no_job(self) -> None:
        """Try the operations that no job was there for."""
        for rule in self._rules:
            for collector in rule.collect:
                operation, watched = OPERATIONS[collector], watch(Job(id=NO_JOB), rule)
                if self._operations[operation].is_ok is None:
                    async with self._asking(operation) as client:
                        await JOB_COLLECTORS[collector].read(client, watched, None, self._now)
        if self._operations["Job_Get"].is_ok is None:
            async with self._asking("Job_Get") as client:
                await client.get_job(NO_JOB)

    @asynccontextmanager
    async def _asking(self, operation: str) -> AsyncIterator[BatchClient]:
        """Note what the operation is answered. Stopped where no other one can succeed either."""
        answer, refusal = self._operations[operation], None
        try:
            yield self._client.until(asyncio.get_running_loop().time() + PATIENCE)
        except (JobGone, TaskGone):
            pass  # the job does not exist, but the request is allowed
        except PollError as error:
            refusal = error
            self._refuse(answer, error)
        if refusal is None or isinstance(refusal, ServiceError):
            self._report.is_version_accepted = answer.cause != "api_version"
            if self._report.clock_offset is None:
                self._report.clock_offset = round(self._client.clock_offset, 1)
        if refusal is None:
            answer.is_ok = answer.is_ok is not False
            self._report.sign_in.is_ok = True
        elif refusal.account_wide or answer.cause in ("endpoint", "api_version"):
            raise Stopped from refusal

    def _refuse(self, answer: Answer, error: PollError) -> None:
        answer.is_ok = False
        answer.error = str(error).removeprefix(f"{answer.name}: ")
        answer.cause, answer.cure = diagnose(error, ConfiguredAccount.of(self._account))

    def _estimate(self) -> None:
        """Put what the rules select, and about what it costs, into the report."""
        account, config, report = self._account, self._config, self._report
        tables = collectors.tables(info_labels(config), Excluded(config.exclude_metrics))
        sample = Sample(account.name, tables, self._polls, self._nodes, self._now)
        rules = [self._rule_report(number, sample) for number in range(len(self._rules))]
        of_account = (
            self._listing_requests * 60 / account.discovery_interval
            + self._node_requests * 60 / config.defaults.interval
        )
        report.rules = tuple(rules)
        report.jobs = min(len(self._jobs), account.max_jobs)
        report.dropped = len(self._jobs) - report.jobs
        report.series = sample.series_of_account(self._jobs) + sum(rule.series for rule in rules)
        report.requests_per_minute = Range(
            of_account + sum(rule.requests_per_minute.idle for rule in rules),
            of_account + sum(rule.requests_per_minute.busy for rule in rules),
        )
        report.requests_made = self._budget.started

    def _rule_report(self, number: int, sample: Sample) -> RuleReport:
        rule = self._rules[number]
        matching = [watched for watched in self._jobs if matches(rule, watched.job, self._now)]
        own = [watched for watched in matching if watched.rule is rule]
        takers = Counter(
            self._rules.index(watched.rule) for watched in matching if watched.rule is not rule
        )
        return RuleReport(
            where=f"{self._path}.jobs[{number}]",
            rule=_describe(rule),
            matches=len(matching),
            jobs=len(own),
            groups=len({watched.group for watched in own}) if rule.group is not None else None,
            examples=tuple(watched.job.id for watched in own[:EXAMPLES]),
            taken_by={f"{self._path}.jobs[{by}]": takers[by] for by in sorted(takers)},
            series=sample.series_of_rule(rule, own),
            requests_per_minute=sample.requests_per_minute(rule, len(own)),
            sampled=len(sample.of_rule(rule)),
        )


def _needed_operations(account: Account, rules: Sequence[Rule]) -> dict[str, Answer]:
    """The operations that polling needs, none of them tried yet."""
    collected = {name for rule in rules for name in rule.collect}
    needed = {"Job_List": "jobs[].id_regex"} if any(rule.pattern for rule in rules) else {}
    needed["Job_Get"] = "jobs"  # of a job that leaves the selection, once more
    for name, operation in OPERATIONS.items():
        if name in collected:
            needed[operation] = "jobs[].tasks" if name == WATCHED_TASKS else f"collect: {name}"
    if account.pool_nodes:
        needed["Account_ListPoolNodeCounts"] = "pool_nodes"
    permission = "Microsoft.Batch/batchAccounts/{}/read"
    answers = {}
    for name, key in needed.items():
        resource = "pools" if key == "pool_nodes" else "jobs"
        answers[name] = Answer(name, (key,), permission.format(resource))
    return answers


def _describe(rule: Rule) -> str:
    """A rule by what it matches."""
    text = f"id_regex {rule.pattern.pattern}" if rule.pattern is not None else f"id {rule.id}"
    wanted = ", ".join(f"{name}={value}" for name, value in sorted(rule.metadata.items()))
    return f"{text} with {wanted}" if wanted else text


async def check_accounts(config: Config, file: str) -> Report:
    """Check all accounts of a configuration at once. ConfigError where a secret cannot be read."""
    checks = [AccountCheck(config, number) for number in range(len(config.accounts))]
    accounts = tuple(await asyncio.gather(*(check.run() for check in checks)))
    problems = [problem for account in accounts for problem in account.problems]
    return Report(file, all(problem.level != "error" for problem in problems), accounts)
