"""The only HTTP: calls of the Batch REST API, each answer parsed where it arrives.

Every failure leaves here as one of `exporter.errors`; the rest of the program knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

import exporter
from exporter.batch import models, odata
from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    CredentialError,
    Forbidden,
    InvalidResponse,
    JobGone,
    PollError,
    RequestTimeout,
    ServiceError,
    TaskNotConfigured,
    TooManyRequests,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_PAGES = 10_000
"""Pages of one listing. No listing is that long; a service that repeats itself is."""

MAX_BODY = 64 * 1024 * 1024
"""Bytes of one answer, decompressed. A page of 1,000 records is about 1.3 MB."""

NOT_CONFIGURED_CODES = frozenset(
    {
        # Documented is the second; the service answers with the first.
        "JobPreparationTaskOrReleaseTaskNotSpecified",
        "JobPreparationTaskNotSpecified",
        "JobReleaseTaskNotSpecified",
    }
)

JOB_GONE = frozenset({(404, "JobNotFound"), (404, "ResourceNotFound"), (409, "JobBeingDeleted")})


class RequestObserver(Protocol):
    """Is told of every HTTP attempt."""

    def request_done(self, operation: str, code: str, seconds: float) -> None:
        """`code`: the HTTP status, or `timeout`, `connection`, `invalid`."""


class BatchClient:
    """The operations of one account that the exporter uses.

    `endpoint`: scheme, host and port. `request_timeout`: seconds for a request, body included.
    The session's life is the caller's; `auth` and `budget` are this account's own.
    """

    def __init__(
        self,
        endpoint: str,
        api_version: str,
        *,
        session: aiohttp.ClientSession,
        auth: Auth,
        budget: Budget,
        observer: RequestObserver,
        request_timeout: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._origin = _origin(endpoint)
        self._api_version = api_version
        self._session = session
        self._auth = auth
        self._budget = budget
        self._observer = observer
        self._request_timeout = request_timeout
        self._now = now
        self._refused_filters: set[str] = set()
        self._clock_offset = 0.0

    @property
    def clock_offset(self) -> float:
        """Seconds by which the service's clock is ahead of ours, from the header Date."""
        return self._clock_offset

    def is_filter_refused(self, operation: str) -> bool:
        """Whether the service refused our $filter for this operation once."""
        return operation in self._refused_filters

    def refuse_filter(self, operation: str, error: ServiceError) -> None:
        """Note that the service refuses our $filter, and say so once."""
        if operation not in self._refused_filters:
            self._refused_filters.add(operation)
            log.warning(
                "%s: the service refuses the filter, reading all instead: %s", operation, error
            )

    async def close(self) -> None:
        """Free the credential."""
        await self._auth.close()

    async def get_job(self, job_id: str) -> models.Job:
        """Job_Get. JobGone where it does not exist."""
        path = f"/jobs/{odata.path_segment(job_id)}"
        return await self._get("Job_Get", path, _JOB, {"$select": ",".join(models.JOB_FIELDS)})

    def list_jobs(self, filter_: str | None = None) -> AsyncIterator[tuple[models.Job, ...]]:
        """Job_List, page by page."""
        return self._pages("Job_List", "/jobs", _JOBS, filter_, models.JOB_FIELDS)

    async def get_task_counts(self, job_id: str) -> models.TaskCountsResult:
        """Job_GetTaskCounts, in either shape."""
        path = f"/jobs/{odata.path_segment(job_id)}/taskcounts"
        result = await self._get("Job_GetTaskCounts", path, _TASK_COUNTS, {})
        if result.tasks == models.Counts():
            raise InvalidResponse("Job_GetTaskCounts: the answer has no task counts")
        return result

    def list_preparation_and_release_task_status(
        self, job_id: str, filter_: str | None = None
    ) -> AsyncIterator[tuple[models.NodeTaskStatus, ...]]:
        """Job_ListPreparationAndReleaseTaskStatus, page by page.

        TaskNotConfigured where the job has neither a preparation nor a release task.
        """
        return self._pages(
            "Job_ListPreparationAndReleaseTaskStatus",
            f"/jobs/{odata.path_segment(job_id)}/jobpreparationandreleasetaskstatus",
            _NODE_TASK_STATUSES,
            filter_,
            models.NODE_TASK_STATUS_FIELDS,
        )

    async def get_task(self, job_id: str, task_id: str, *, stats: bool = False) -> models.Task:
        """Task_Get, with its statistics where asked for."""
        path = f"/jobs/{odata.path_segment(job_id)}/tasks/{odata.path_segment(task_id)}"
        return await self._get("Task_Get", path, _TASK, {"$expand": "stats"} if stats else {})

    def list_tasks(
        self, job_id: str, filter_: str | None = None, select: tuple[str, ...] = ()
    ) -> AsyncIterator[tuple[models.Task, ...]]:
        """Task_List, page by page."""
        path = f"/jobs/{odata.path_segment(job_id)}/tasks"
        return self._pages("Task_List", path, _TASKS, filter_, select)

    def list_pool_node_counts(self) -> AsyncIterator[tuple[models.PoolNodeCounts, ...]]:
        """Account_ListPoolNodeCounts, page by page: ten pools at most on one."""
        return self._pages("Account_ListPoolNodeCounts", "/nodecounts", _NODE_COUNTS, None, ())

    async def _get(
        self,
        operation: str,
        path: str,
        decoder: msgspec.json.Decoder[T],
        parameters: Mapping[str, str],
    ) -> T:
        query = odata.query_string({"api-version": self._api_version, **parameters})
        return await self._request(operation, f"{self._endpoint}{path}?{query}", decoder)

    async def _pages(
        self,
        operation: str,
        path: str,
        decoder: msgspec.json.Decoder[models.Page[T]],
        filter_: str | None,
        select: tuple[str, ...],
    ) -> AsyncIterator[tuple[T, ...]]:
        parameters = {"$filter": filter_ or "", "$select": ",".join(select)}
        given = {name: value for name, value in parameters.items() if value}
        page = await self._get(operation, path, decoder, given)
        seen: set[str] = set()
        while True:
            yield page.value
            link = page.next_link
            if not link:
                return
            if _origin(link) != self._origin:
                raise InvalidResponse(f"{operation}: odata.nextLink leads to another origin")
            if link in seen or len(seen) >= MAX_PAGES:
                raise InvalidResponse(f"{operation}: odata.nextLink goes round in a circle")
            seen.add(link)
            page = await self._request(operation, link, decoder)

    async def _request(self, operation: str, url: str, decoder: msgspec.json.Decoder[T]) -> T:
        headers = {
            "Accept": "application/json",
            "client-request-id": str(uuid.uuid4()),
            "User-Agent": f"azure-batch-exporter/{exporter.__version__}",
        }
        await self._budget.acquire()
        try:
            async with asyncio.timeout(self._request_timeout):
                headers |= await self._auth.headers("GET", url, headers)
        except TimeoutError as error:
            raise CredentialError(f"no token within {self._request_timeout:g} s") from error
        loop = asyncio.get_running_loop()
        started = loop.time()
        code: int | str | None = None
        try:
            async with (
                asyncio.timeout(self._request_timeout),
                # The link's own encoding is what the service signs and expects back.
                self._session.get(
                    URL(url, encoded=True), headers=headers, allow_redirects=False
                ) as response,
            ):
                body = await _read(response)
            code = response.status
            self._read_clock(response.headers)
            if response.status == 200:
                return decoder.decode(body)
            raise self._failure(response, body)
        except TimeoutError as error:
            code = "timeout"
            raise RequestTimeout(
                f"{operation}: no whole answer within {self._request_timeout:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            code = "connection"
            raise ConnectionFailed(f"{operation}: {error or type(error).__name__}") from error
        except (ValueError, RecursionError) as error:
            # Not JSON, not of the documented types, or a nextLink that is no URL.
            code = "invalid"
            raise InvalidResponse(f"{operation}: {error}") from error
        finally:
            if code is not None:  # None: cancelled, nobody waits for the answer any more
                self._observer.request_done(operation, str(code), loop.time() - started)

    def _read_clock(self, headers: Mapping[str, str]) -> None:
        try:
            theirs = parsedate_to_datetime(headers["Date"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return
        # The header has whole seconds, cut off: half of one is what it lacks on average, and what
        # is below a whole one is no difference.
        offset = theirs + 0.5 - self._now()
        self._clock_offset = offset if abs(offset) > 1.0 else 0.0

    def _failure(self, response: aiohttp.ClientResponse, body: bytes) -> PollError:
        """The error for an answer that is not 200; a request for a pause is passed on."""
        status = response.status
        code, message = "", response.reason or ""
        values: tuple[tuple[str, str], ...] = ()
        try:
            parsed = _ERROR.decode(body)
        except (ValueError, RecursionError):
            pass  # a proxy's page, or nothing: the status is all there is
        else:
            code, message = parsed.code, parsed.text
            values = tuple((item.key or "", item.value or "") for item in parsed.values or ())
        kind = ServiceError
        if status == 401 or (status == 403 and code == "AuthenticationFailed"):
            kind = AuthenticationFailed
            self._auth.forget()
        elif status == 403:
            kind = Forbidden
        elif status == 429 or (status == 503 and "Retry-After" in response.headers):
            kind = TooManyRequests
            self._budget.pause(_retry_after(response.headers))
        elif (status, code) in JOB_GONE:
            kind = JobGone
        elif status == 409 and code in NOT_CONFIGURED_CODES:
            kind = TaskNotConfigured
        return kind(status, code, message, values, response.headers.get("request-id", ""))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ("", None, None)
    return (parts.scheme, parts.hostname, port)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY:
            raise ValueError(f"the answer is longer than {MAX_BODY} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for: a number, or a date against the answer's own Date."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("Date", ""))
        return (until - now).total_seconds()
    except (TypeError, ValueError):
        return None


# Not strict: int64 stands in quotes on the wire.
_JOB = msgspec.json.Decoder(models.Job, strict=False)
_JOBS = msgspec.json.Decoder(models.Page[models.Job], strict=False)
_TASK_COUNTS = msgspec.json.Decoder(models.TaskCountsResult, strict=False)
_NODE_TASK_STATUSES = msgspec.json.Decoder(models.Page[models.NodeTaskStatus], strict=False)
_TASK = msgspec.json.Decoder(models.Task, strict=False)
_TASKS = msgspec.json.Decoder(models.Page[models.Task], strict=False)
_NODE_COUNTS = msgspec.json.Decoder(models.Page[models.PoolNodeCounts], strict=False)
_ERROR = msgspec.json.Decoder(models.BatchError, strict=False)
