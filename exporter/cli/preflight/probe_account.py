"""Asking an account what a configuration will need of it: few requests, and soon over."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from exporter.batch import auth
from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.batch.client import BatchClient
from exporter.batch.connect import open_client
from exporter.batch.errors import JobGone, PollError, ServiceError, TaskGone
from exporter.batch.models import Job
from exporter.cli.preflight.cost import Poll
from exporter.cli.preflight.forecast import Answer
from exporter.cli.preflight.matching import Share, shares
from exporter.collectors import JOB_COLLECTORS, pool_nodes
from exporter.collectors.pool_nodes import PoolNodes
from exporter.config import Account, Rule
from exporter.config.problems import ConfigError
from exporter.diagnosis.accounts import ConfiguredAccount, diagnose
from exporter.polling.selection import listing_filter, needs_listing

MAX_REQUESTS = 200
MAX_SECONDS = 60.0
"""Most that a check costs an account, and most that it costs who waits for it."""

MAX_PAGES = 20
"""Of the listing of jobs: 20,000 of them."""

MAX_NAMED = 20
"""Jobs that are asked for because a rule names them and the listing does not."""

SAMPLE = 8
"""Jobs of each rule that are polled once, to know what all of them will cost."""

PATIENCE = 2.0
"""Seconds for which a request that failed is tried again."""

NO_JOB = "azure-batch-exporter-check"
"""A job that nobody has: where there is no other, its 404 shows what would be allowed."""

JOBS_READ = "Microsoft.Batch/batchAccounts/jobs/read"
POOLS_READ = "Microsoft.Batch/batchAccounts/pools/read"

OPERATIONS = {
    "task_counts": "Job_GetTaskCounts",
    "preparation_release": "Job_ListPreparationAndReleaseTaskStatus",
    "tasks": "Task_List",
    "watched_tasks": "Task_Get",
}
"""What each collector of jobs asks."""

_KEYS = {"watched_tasks": "jobs[].tasks"}


class BudgetSpent(PollError):
    """The check has asked as much as it may."""

    reason = "budget"


class LimitedBudget(Budget):
    """A budget that ends. `used`: requests that were begun."""

    def __init__(self, requests_per_second: float, most: int = MAX_REQUESTS) -> None:
        super().__init__(requests_per_second, lambda _: None)
        self._most = most
        self.used = 0

    async def acquire(self, until: float) -> None:
        """Wait for the turn of one request. BudgetSpent where there is none left."""
        if self.used >= self._most:
            raise BudgetSpent(f"not asked: {self._most} requests are enough for a check")
        await super().acquire(until)
        self.used += 1


class _Silent:
    """Nobody counts the requests of a check."""

    def request_done(self, operation: str, code: str, seconds: float) -> None:
        """Nothing."""

    def retried(self, operation: str) -> None:
        """Nothing."""


@dataclass
class Findings:
    """What was found out. `shares`: of each rule; `polls`: of its sample, by its number."""

    sign_in: Answer
    operations: dict[str, Answer]
    shares: list[Share]
    polls: dict[int, list[Poll]] = field(default_factory=dict)
    nodes: PoolNodes | None = None
    node_pages: int = 0
    listing_pages: int = 0
    named_requests: int = 0
    is_listing_whole: bool = True
    is_version_accepted: bool | None = None
    clock_offset: float | None = None
    requests: int = 0
    out_of_time: bool = False


async def probe(account: Account, rules: Sequence[Rule], within: float = MAX_SECONDS) -> Findings:
    """Ask an account, for so many seconds at most. Whatever fails is part of the findings.

    ConfigError where a secret cannot be read.
    """
    try:
        credential = auth.build(account)
    except ValueError as error:
        raise ConfigError((f"account {account.name}: {error}",)) from error
    budget = LimitedBudget(account.requests_per_second)
    async with AsyncExitStack() as stack:
        client = open_client(stack, account, credential, budget, _Silent())
        prober = _Prober(account, rules, client, credential, budget)
        try:
            async with asyncio.timeout(within):
                await prober.run()
        except TimeoutError:
            prober.found.out_of_time = True
        prober.found.requests = budget.used
        return prober.found


class _Stop(Exception):
    """There is no use in asking on: every other request would fail alike."""


class _Prober:
    def __init__(
        self,
        account: Account,
        rules: Sequence[Rule],
        client: BatchClient,
        credential: Auth,
        budget: LimitedBudget,
    ) -> None:
        self._account = account
        self._rules = rules
        self._client = client
        self._credential = credential
        self._budget = budget
        self._configured = ConfiguredAccount.of(account)
        self._jobs: list[Job] = []
        self.found = Findings(
            Answer("sign_in", (f"auth.method {account.auth.method}",), "", None),
            needed_operations(account, rules),
            shares(rules, (), 0.0),
        )

    async def run(self) -> None:
        """Ask for everything in turn."""
        try:
            await self._sign_in()
            await self._list_jobs()
            await self._get_named_jobs()
            self.found.shares = shares(self._rules, self._jobs, time.time())
            await self._read_pool_nodes()
            for number, share in enumerate(self.found.shares):
                await self._poll_some(number, share)
            await self._ask_for_nobody()
        except _Stop:
            pass

    async def _sign_in(self) -> None:
        sign_in = self.found.sign_in
        try:
            await self._credential.headers("GET", self._account.endpoint, {})
        except PollError as error:
            self.found.sign_in = self._refused(sign_in, error)
            raise _Stop from error

    async def _list_jobs(self) -> None:
        if not needs_listing(self._rules):
            return
        async with self._asking("Job_List") as client:
            before = self._budget.used
            try:
                async for page in client.list_jobs(listing_filter(self._rules, time.time())):
                    self._jobs += page
                    if self._budget.used - before >= MAX_PAGES:
                        self.found.is_listing_whole = False
                        break
            finally:
                self.found.listing_pages = self._budget.used - before

    async def _get_named_jobs(self) -> None:
        listed = {job.id.lower() for job in self._jobs}
        ids = [rule.id for rule in self._rules if rule.id and rule.id.lower() not in listed]
        self.found.named_requests = len(ids)
        for job_id in ids[:MAX_NAMED]:
            async with self._asking("Job_Get") as client:
                self._jobs.append(await client.get_job(job_id))

    async def _read_pool_nodes(self) -> None:
        if self._account.pool_nodes:
            async with self._asking("Account_ListPoolNodeCounts") as client:
                before = self._budget.used
                self.found.nodes = await pool_nodes.read(client)
                self.found.node_pages = self._budget.used - before

    async def _poll_some(self, number: int, share: Share) -> None:
        polls = self.found.polls[number] = []
        step = max(1, len(share.watched) / SAMPLE)  # so that every kind of id is among them
        for part in range(min(SAMPLE, len(share.watched))):
            watched = share.watched[int(part * step)]
            for name in share.rule.collect:
                async with self._asking(OPERATIONS[name]) as client:
                    before = self._budget.used
                    reading = await JOB_COLLECTORS[name].read(client, watched, None, time.time())
                    pages = self._budget.used - before
                    polls.append(Poll(watched, name, reading, pages))

    async def _ask_for_nobody(self) -> None:
        """What no job was there to be asked of, is asked of one that cannot be."""
        ask: dict[str, Callable[[BatchClient], Awaitable[object]]] = {
            "Job_Get": lambda client: client.get_job(NO_JOB),
            "Job_GetTaskCounts": lambda client: client.get_task_counts(NO_JOB),
            "Job_ListPreparationAndReleaseTaskStatus": lambda client: anext(
                client.list_preparation_and_release_task_status(NO_JOB)
            ),
            "Task_List": lambda client: anext(client.list_tasks(NO_JOB)),
            "Task_Get": lambda client: client.get_task(NO_JOB, NO_JOB),
        }
        for operation, answer in list(self.found.operations.items()):
            if answer.is_ok is None and operation in ask:
                async with self._asking(operation) as client:
                    await ask[operation](client)

    @asynccontextmanager
    async def _asking(self, operation: str) -> AsyncIterator[BatchClient]:
        """Notes what comes of asking; ends it all where nothing else can succeed either."""
        answer = self.found.operations[operation]
        try:
            yield self._client.until(asyncio.get_running_loop().time() + PATIENCE)
        except (JobGone, TaskGone):
            self._answered(operation)  # it is gone, but we were allowed to ask
        except BudgetSpent as error:
            raise _Stop from error
        except PollError as error:
            refused = self._refused(answer, error)
            self.found.operations[operation] = refused
            if isinstance(error, ServiceError):
                self._note_answer(is_version_accepted=refused.cause != "api_version")
            if error.account_wide or refused.cause in ("endpoint", "api_version"):
                raise _Stop from error
        else:
            self._answered(operation)

    def _answered(self, operation: str) -> None:
        answer = self.found.operations[operation]
        self._note_answer(is_version_accepted=True)
        if self.found.sign_in.is_ok is None:
            sign_in = self.found.sign_in
            self.found.sign_in = Answer(sign_in.name, sign_in.needed_for, "", True)
        if answer.is_ok is None:
            self.found.operations[operation] = Answer(
                answer.name, answer.needed_for, answer.permission, True
            )

    def _note_answer(self, *, is_version_accepted: bool) -> None:
        """Somebody answered, and it is the first answer that tells the time."""
        self.found.is_version_accepted = is_version_accepted
        if self.found.clock_offset is None:
            self.found.clock_offset = self._client.clock_offset

    def _refused(self, answer: Answer, error: PollError) -> Answer:
        cause, cure = diagnose(error, self._configured)
        text = str(error).removeprefix(f"{answer.name}: ")
        return Answer(answer.name, answer.needed_for, answer.permission, False, text, cause, cure)


def needed_operations(account: Account, rules: Sequence[Rule]) -> dict[str, Answer]:
    """The operations that polling will need, none of them tried yet."""

    def needs() -> Iterator[tuple[str, str, str]]:
        if needs_listing(rules):
            yield "Job_List", "jobs[].id_regex", JOBS_READ
        # A job that leaves the selection is asked for once more.
        yield "Job_Get", "jobs", JOBS_READ
        for rule in rules:
            for name in rule.collect:
                yield OPERATIONS[name], _KEYS.get(name, f"collect: {name}"), JOBS_READ
        if account.pool_nodes:
            yield "Account_ListPoolNodeCounts", "pool_nodes", POOLS_READ

    grouped: dict[str, Answer] = {}
    for name, key, permission in dict.fromkeys(needs()):
        known = grouped.get(name)
        keys = (*known.needed_for, key) if known else (key,)
        grouped[name] = Answer(name, keys, permission, None)
    order = itertools.chain(("Job_List", "Job_Get"), OPERATIONS.values(), grouped)
    return {name: grouped[name] for name in dict.fromkeys(order) if name in grouped}
