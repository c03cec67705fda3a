"""What an account answers to what a configuration needs of it: few requests, within a minute."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from exporter import collectors
from exporter.batch import auth
from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.connect import open_client
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
from exporter.config import Account, Config
from exporter.config.problems import ConfigError
from exporter.config.resolved_rule import Rule, resolve
from exporter.diagnosis.accounts import ConfiguredAccount, diagnose
from exporter.exposition.metric import Excluded
from exporter.polling.selection import listing_filter, matches, needs_listing, select
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

COLLECTOR_OPERATIONS: Mapping[str, tuple[str, str]] = {
    "task_counts": ("Job_GetTaskCounts", "collect: task_counts"),
    "preparation_release": (
        "Job_ListPreparationAndReleaseTaskStatus",
        "collect: preparation_release",
    ),
    "tasks": ("Task_List", "collect: tasks"),
    "watched_tasks": ("Task_Get", "jobs[].tasks"),
}
"""By collector of jobs: its operation, and the key of the configuration that asks for it."""

ASK_FOR_NO_JOB: Mapping[str, Callable[[BatchClient], Awaitable[object]]] = {
    "Job_Get": lambda client: client.get_job(NO_JOB),
    "Job_GetTaskCounts": lambda client: client.get_task_counts(NO_JOB),
    "Job_ListPreparationAndReleaseTaskStatus": lambda client: anext(
        client.list_preparation_and_release_task_status(NO_JOB)
    ),
    "Task_List": lambda client: anext(client.list_tasks(NO_JOB)),
    "Task_Get": lambda client: client.get_task(NO_JOB, NO_JOB),
}
"""How each operation is tried where no job was polled with it."""


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
        self._config = config
        self._account = config.accounts[number]
        self._path = f"accounts[{number}]"
        self._rules = [resolve(rule, config.defaults) for rule in self._account.jobs]
        self._budget = LimitedBudget(self._account.requests_per_second)
        self._signed_in = Answer("sign_in", (f"auth.method {self._account.auth.method}",), "", None)
        self._operations = _needed_operations(self._account, self._rules)
        self._jobs: tuple[WatchedJob, ...] = ()
        self._nodes: PoolNodes | None = None
        self._polls: list[SampledPoll] = []
        self._listing_requests = 0
        self._node_requests = 0
        self._is_listing_whole = True
        self._is_version_accepted: bool | None = None
        self._clock_offset: float | None = None

    async def run(self, within: float = MAX_SECONDS) -> AccountReport:
        """Ask for everything in turn, for `within` seconds at most.

        ConfigError where a secret cannot be read.
        """
        account, is_complete = self._account, True
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
                is_complete = False
            except Stopped:
                pass
        report = self._report(is_complete=is_complete)
        return replace(report, problems=tuple(find_problems(self._path, report)))

    async def _sign_in(self, credential: Auth) -> None:
        try:
            await credential.headers("GET", self._account.endpoint, {})
        except PollError as error:
            self._refuse(self._signed_in, error)
            raise Stopped from error

    async def _read_jobs(self) -> None:
        jobs: list[Job] = []
        if needs_listing(self._rules):
            async with self._asking("Job_List") as client:
                async for page in client.list_jobs(listing_filter(self._rules, time.time())):
                    jobs += page
                    self._listing_requests = self._budget.started
                    if self._budget.started >= MAX_PAGES:
                        self._is_listing_whole = False
                        break
        listed = {job.id.lower() for job in jobs}
        named = [rule.id for rule in self._rules if rule.id and rule.id.lower() not in listed]
        self._listing_requests += len(named)
        for job_id in named[:MAX_NAMED]:
            async with self._asking("Job_Get") as client:
                jobs.append(await client.get_job(job_id))
        self._jobs = select(self._rules, jobs, time.time())

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
                for collector in rule.collect:
                    await self._poll(watched[int(number * step)], collector)

    async def _poll(self, watched: WatchedJob, collector: str) -> None:
        before = self._budget.started
        operation, _ = COLLECTOR_OPERATIONS[collector]
        async with self._asking(operation) as client:
            reading = await JOB_COLLECTORS[collector].read(client, watched, None, time.time())
            requests = self._budget.started - before
            self._polls.append(SampledPoll(watched, collector, reading, requests))

    async def _ask_for_no_job(self) -> None:
        """Try the operations that no job was there for."""
        for operation, ask in ASK_FOR_NO_JOB.items():
            if operation in self._operations and self._operations[operation].is_ok is None:
                async with self._asking(operation) as client:
                    await ask(client)

    @asynccontextmanager
    async def _asking(self, operation: str) -> AsyncIterator[BatchClient]:
        """Note what the operation is answered. Stopped where no other one can succeed either."""
        answer = self._operations[operation]
        try:
            yield self._client.until(asyncio.get_running_loop().time() + PATIENCE)
        except (JobGone, TaskGone):
            self._accept(answer)  # the job does not exist, but the request is allowed
        except PollError as error:
            self._refuse(answer, error)
            if isinstance(error, ServiceError):
                self._note_answer(is_version_accepted=answer.cause != "api_version")
            if error.account_wide or answer.cause in ("endpoint", "api_version"):
                raise Stopped from error
        else:
            self._accept(answer)

    def _accept(self, answer: Answer) -> None:
        self._note_answer(is_version_accepted=True)
        for each in (answer, self._signed_in):
            if each.is_ok is None:
                each.is_ok = True

    def _refuse(self, answer: Answer, error: PollError) -> None:
        answer.is_ok = False
        answer.error = str(error).removeprefix(f"{answer.name}: ")
        answer.cause, answer.cure = diagnose(error, ConfiguredAccount.of(self._account))

    def _note_answer(self, *, is_version_accepted: bool) -> None:
        """The service answered. Its first answer tells the time."""
        self._is_version_accepted = is_version_accepted
        if self._clock_offset is None:
            self._clock_offset = round(self._client.clock_offset, 1)

    def _report(self, *, is_complete: bool) -> AccountReport:
        account, config, jobs = self._account, self._config, self._jobs
        tables = collectors.tables(info_labels(config), Excluded(config.exclude_metrics))
        sample = Sample(account.name, tables, self._polls, self._nodes, time.time())
        rules = tuple(self._rule_report(number, sample) for number in range(len(self._rules)))
        of_account = (
            self._listing_requests * 60 / account.discovery_interval
            + self._node_requests * 60 / config.defaults.interval
        )
        return AccountReport(
            name=account.name,
            endpoint=account.endpoint,
            method=account.auth.method,
            api_version=account.api_version,
            sign_in=self._signed_in,
            operations=tuple(self._operations.values()),
            clock_offset=self._clock_offset,
            is_version_accepted=self._is_version_accepted,
            rules=rules,
            jobs=min(len(jobs), account.max_jobs),
            dropped=max(0, len(jobs) - account.max_jobs),
            is_listing_whole=self._is_listing_whole,
            is_complete=is_complete,
            series=sample.series_of_account(jobs) + sum(rule.series for rule in rules),
            max_series=account.max_series,
            requests_per_minute=Range(
                of_account + sum(rule.requests_per_minute.idle for rule in rules),
                of_account + sum(rule.requests_per_minute.busy for rule in rules),
            ),
            max_requests_per_minute=account.requests_per_second * 60,
            requests_made=self._budget.started,
            problems=(),
        )

    def _rule_report(self, number: int, sample: Sample) -> RuleReport:
        rule, now = self._rules[number], time.time()
        matching = [watched for watched in self._jobs if matches(rule, watched.job, now)]
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
    needed = {"Job_List": "jobs[].id_regex"} if needs_listing(rules) else {}
    needed["Job_Get"] = "jobs"  # of a job that leaves the selection, once more
    needed |= dict(each for name, each in COLLECTOR_OPERATIONS.items() if name in collected)
    if account.pool_nodes:
        needed["Account_ListPoolNodeCounts"] = "pool_nodes"
    permission = "Microsoft.Batch/batchAccounts/{}/read"
    answers = {}
    for name, key in needed.items():
        resource = "pools" if key == "pool_nodes" else "jobs"
        answers[name] = Answer(name, (key,), permission.format(resource), None)
    return answers


def _describe(rule: Rule) -> str:
    """A rule by what it matches."""
    text = f"id_regex {rule.pattern.pattern}" if rule.pattern is not None else f"id {rule.id}"
    wanted = ", ".join(f"{name}={value}" for name, value in sorted(rule.metadata))
    return f"{text} with {wanted}" if wanted else text


async def check_accounts(config: Config, file: str) -> Report:
    """Check all accounts of a configuration at once. ConfigError where a secret cannot be read."""
    checks = [AccountCheck(config, number) for number in range(len(config.accounts))]
    accounts = tuple(await asyncio.gather(*(check.run() for check in checks)))
    problems = [problem for account in accounts for problem in account.problems]
    return Report(file, all(problem.level != "error" for problem in problems), accounts)
