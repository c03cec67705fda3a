"""The operations of the Batch REST API that the exporter uses. Lists come in slices of a page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from copy import copy
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec.json import Decoder
from yarl import URL

from exporter.batch import models, odata
from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.batch.errors import InvalidResponse, NotModified, TooLarge
from exporter.batch.page_decoder import Decode, Decoded, page_decoder
from exporter.batch.service_clock import ServiceClock
from exporter.batch.session import Session, proxy_for
from exporter.batch.spellings import Spellings
from exporter.batch.transport import RequestObserver, Transport
from exporter.config import Account, is_loopback
from exporter.config.problems import ConfigError
from exporter.config.redaction import MASK

T = TypeVar("T")

MAX_PAGES = 10_000
"""Pages of one listing. Only a service that repeats itself sends more."""

MAX_EMPTY_PAGES = 200
"""Empty pages in a row. A filter may leave a page empty, but not 200 of them."""

MAX_RECORDS = 2_000_000
"""Records of one listing. As many tasks take some 600 MB."""

MAX_LINK = 8_192
"""Characters of a nextLink."""

SLICE = 100
"""Records that are handed over at once. Between two slices the event loop does other work."""

_MASKED_ID = "a job's id looks like a credential, so the job is neither shown nor polled"


def open_client(
    stack: AsyncExitStack,
    account: Account,
    credential: Auth,
    budget: Budget,
    observer: RequestObserver,
    spellings: Spellings | None = None,
    now: Callable[[], float] = time.time,
) -> BatchClient:
    """A client whose connections, and the credential, are closed with the stack.

    ConfigError where the environment names an invalid proxy.
    """
    host = urlsplit(account.endpoint).hostname or ""
    # The proxy is for the service, not for a simulator on this machine.
    try:
        proxy = None if is_loopback(host) else proxy_for(host)
    except ValueError as error:
        raise ConfigError((str(error),)) from error
    http = Session(account.endpoint, proxy)
    transport = Transport(http, credential, budget, observer, account.request_timeout, now)
    stack.push_async_callback(transport.close)
    return BatchClient(account.endpoint, account.api_version, transport, spellings)


class BatchClient:
    """The operations of one account.

    `endpoint`: scheme, host and port. `deadline`: time of the event loop after which no failed
    request is repeated and no request waits for the end of a pause. `refused_filters`: operations
    whose $filter the service refused. `spellings`: how the account spells codes and pool ids.
    """

    def __init__(
        self,
        endpoint: str,
        api_version: str,
        transport: Transport,
        spellings: Spellings | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._origin = _origin(endpoint)
        self._api_version = api_version
        self._transport = transport
        self.deadline = 0.0
        self.refused_filters: set[str] = set()
        self.spellings = spellings or Spellings()

    def until(self, deadline: float) -> BatchClient:
        """The same client with another deadline."""
        client = copy(self)
        client.deadline = deadline
        return client

    @property
    def clock(self) -> ServiceClock:
        """The service's clock."""
        return self._transport.clock

    async def get_job(self, job_id: str) -> models.Job:
        """Job_Get. JobGone where it does not exist."""
        path = f"/jobs/{odata.path_segment(job_id)}"
        url = self._url(path, {"$select": _SELECT_JOB})
        return self._spelled(await self._transport.get("Job_Get", url, _JOB, self.deadline))

    async def list_jobs(self, filter_: str | None = None) -> AsyncIterator[tuple[models.Job, ...]]:
        """Job_List, in slices of its pages."""
        async for page in self._pages("Job_List", "/jobs", _JOBS, filter_, _SELECT_JOB):
            shown = tuple([self._spelled(job) for job in page if MASK not in job.id])
            if len(shown) < len(page):
                self.left_out("Job_List", [_MASKED_ID] * (len(page) - len(shown)))
            yield shown

    def _spelled(self, job: models.Job) -> models.Job:
        """The job, naming its pool as the account does: users write it in any case."""
        pool_id = self.spellings.pool(job.pool_id)
        error = job.execution_info and job.execution_info.scheduling_error
        if pool_id == job.pool_id and not error:
            return job
        return job.spelled(pool_id, self.spellings.code(error.code) if error else "")

    async def get_task_counts(self, job_id: str) -> models.TaskCountsResult:
        """Job_GetTaskCounts. `task_counts` is always set, in old versions of the API too."""
        url = self._url(f"/jobs/{odata.path_segment(job_id)}/taskcounts", {})
        result = await self._transport.get("Job_GetTaskCounts", url, _TASK_COUNTS, self.deadline)
        if result.task_counts is None:
            flat = [getattr(result, name) for name in models.Counts.__struct_fields__]
            result = msgspec.structs.replace(result, task_counts=models.Counts(*flat))
        if result.task_counts == models.Counts():
            raise InvalidResponse("Job_GetTaskCounts: the answer has no task counts")
        return result

    def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[models.NodeTaskStatus, ...]]:
        """Job_ListPreparationAndReleaseTaskStatus, in slices of its pages.

        TaskNotConfigured where the job has neither a preparation nor a release task.
        """
        return self._pages(
            "Job_ListPreparationAndReleaseTaskStatus",
            f"/jobs/{odata.path_segment(job_id)}/jobpreparationandreleasetaskstatus",
            _NODE_TASK_STATUSES,
            filter_,
            _SELECT_NODE_TASK_STATUS,
        )

    async def get_task(
        self, job_id: str, task_id: str, e_tag: str | None = None
    ) -> models.Task | None:
        """Task_Get, with its statistics. None where it still has the eTag that is given.

        TaskGone where the job has no such task.
        """
        path = f"/jobs/{odata.path_segment(job_id)}/tasks/{odata.path_segment(task_id)}"
        # The other members are large, and the environment of a task may hold secrets.
        url = self._url(path, {"$select": _SELECT_TASK, "$expand": "stats"})
        try:
            return await self._transport.get("Task_Get", url, _TASK, self.deadline, e_tag or "")
        except NotModified:
            if e_tag is None:
                raise
            return None

    def list_tasks(
        self, job_id: str, filter_: str | None = None, select: tuple[str, ...] = ()
    ) -> AsyncIterator[tuple[models.Task, ...]]:
        """Task_List, in slices of its pages."""
        path = f"/jobs/{odata.path_segment(job_id)}/tasks"
        return self._pages("Task_List", path, _TASKS, filter_, ",".join(select))

    def list_pool_node_counts(self) -> AsyncIterator[tuple[models.PoolNodeCounts, ...]]:
        """Account_ListPoolNodeCounts, in slices of its pages, which have ten pools at most."""
        return self._pages("Account_ListPoolNodeCounts", "/nodecounts", _NODE_COUNTS)

    def left_out(self, operation: str, problems: Sequence[str]) -> None:
        """Count the records of a list that are left out, and say why. `problems`: of each one."""
        self._transport.observer.page_read(operation, problems)

    def _url(self, path: str, parameters: Mapping[str, str]) -> str:
        given = {name: value for name, value in parameters.items() if value}
        # The service works on for so long, though nobody may wait any more; 30 is its most.
        seconds = str(min(30, max(1, int(self._transport.request_timeout))))
        always = {"api-version": self._api_version, "timeout": seconds}
        query = odata.query_string({**always, **given})
        return f"{self._endpoint}{path}?{query}"

    async def _pages(
        self,
        operation: str,
        path: str,
        decode: Decode[Decoded[T]],
        filter_: str | None = None,
        select: str = "",
    ) -> AsyncIterator[tuple[T, ...]]:
        link = self._url(path, {"$filter": filter_ or "", "$select": select})
        seen: set[int] = set()  # hashes: the links themselves may be long
        empty = records = 0
        while True:
            page, problems = await self._transport.get(operation, link, decode, self.deadline)
            self.left_out(operation, problems)
            records += len(page.value)
            if records > MAX_RECORDS:
                raise TooLarge(f"{operation}: the list has more than {MAX_RECORDS} records")
            for start in range(0, len(page.value), SLICE):
                yield page.value[start : start + SLICE]
                await asyncio.sleep(0)
            empty = 0 if page.value else empty + 1
            if not page.next_link:
                return
            link = page.next_link
            if len(link) > MAX_LINK:
                raise InvalidResponse(f"{operation}: odata.nextLink is longer than {MAX_LINK}")
            if _origin(link) != self._origin:
                raise InvalidResponse(f"{operation}: odata.nextLink leads to another origin")
            if hash(link) in seen or len(seen) >= MAX_PAGES:
                raise InvalidResponse(f"{operation}: odata.nextLink goes round in a circle")
            if empty > MAX_EMPTY_PAGES:
                raise InvalidResponse(f"{operation}: pages without records, and no end of them")
            seen.add(hash(link))


def _origin(text: str) -> tuple[str, str | None, int | None]:
    try:
        url = URL(text)
        return (url.scheme, url.host, url.port)
    except ValueError:
        return ("", None, None)


_SELECT_JOB = models.select(models.Job)
_SELECT_NODE_TASK_STATUS = models.select(models.NodeTaskStatus)
_SELECT_TASK = models.select(models.Task)

# Not strict: int64 is in quotes on the wire.
_JOB = Decoder(models.Job, strict=False).decode
_JOBS = page_decoder(models.Job)
_TASK_COUNTS = Decoder(models.TaskCountsResult, strict=False).decode
_NODE_TASK_STATUSES = page_decoder(models.NodeTaskStatus)
_TASK = Decoder(models.Task, strict=False).decode
_TASKS = page_decoder(models.Task)
_NODE_COUNTS = page_decoder(models.PoolNodeCounts)
