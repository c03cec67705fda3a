"""Requests to one account: signed, within its budget, bounded in time and size, with retries.

Every failure leaves here as one of `exporter.batch.errors`; nothing above knows HTTP.
"""

from __future__ import annotations

import asyncio
import codecs
import math
import random
import re
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

from msgspec.json import Decoder

import exporter
from exporter.batch import errors, models
from exporter.batch.auth import Auth
from exporter.batch.budget import Budget
from exporter.batch.errors import PollError, ServiceError
from exporter.batch.page_decoder import Decode
from exporter.batch.service_clock import MAX_SKEW, ServiceClock
from exporter.batch.session import THREADS, Answer, ProxyError, Session
from exporter.config.redaction import redact

T = TypeVar("T")

_USER_AGENT = f"azure-batch-exporter/{exporter.__version__}"

FIRST_DELAY = 1.0
MAX_DELAY = 30.0
"""Upper limits, in seconds, of the wait before the first retry and any other (full jitter)."""

MAX_VALUES = 150_000
"""Commas in an answer, outside of texts. A page of 1,000 failed records has 40,000; as many as this
take some 50 ms to decode."""

OTHERS_WITHIN = 300.0
"""Seconds since a request succeeded, after which it may be the network that refuses all."""

LARGE_BODY = 64 * 1024
"""Bytes. A longer body is decoded in a thread: its records, and to mask many secrets, take time."""

_is_id = re.compile(r"[\w.-]{1,64}", re.ASCII).fullmatch

_BY_STATUS: Mapping[int, type[ServiceError]] = {
    304: errors.NotModified,
    401: errors.AuthenticationFailed,
    403: errors.Forbidden,
    429: errors.TooManyRequests,
}
_BY_CODE: Mapping[tuple[int, str], type[ServiceError]] = {
    (400, "UnsupportedRequestVersion"): errors.UnsupportedVersion,
    (403, "AuthenticationFailed"): errors.AuthenticationFailed,
    (404, "JobNotFound"): errors.JobGone,
    (404, "ResourceNotFound"): errors.JobGone,
    (404, "TaskNotFound"): errors.TaskGone,
    (409, "JobBeingDeleted"): errors.JobGone,
    # The service answers with this one. The other two are documented.
    (409, "JobPreparationTaskOrReleaseTaskNotSpecified"): errors.TaskNotConfigured,
    (409, "JobPreparationTaskNotSpecified"): errors.TaskNotConfigured,
    (409, "JobReleaseTaskNotSpecified"): errors.TaskNotConfigured,
}
"""The errors that have a class of their own, by status, and by status and BatchError.code."""


class RequestObserver(Protocol):
    """Counts the HTTP attempts."""

    def request_done(self, operation: str, code: str, seconds: float) -> None:
        """`code`: the HTTP status, or `timeout`, `connection`, `invalid`."""

    def retried(self, operation: str) -> None:
        """A failed attempt is repeated."""

    def page_read(self, operation: str, problems: Sequence[str]) -> None:
        """A page of a list was read. `problems`: of each record that had to be left out."""


class Transport:
    """Sends GET requests to one account.

    `request_timeout`: seconds for an attempt, including the body. `http`, `auth` and `budget`
    belong to this account only. `jitter`: returns a random number from 0 to 1.
    `clock`: the service's, from answers that could be read; a proxy's Date says nothing.
    """

    def __init__(
        self,
        http: Session,
        auth: Auth,
        budget: Budget,
        observer: RequestObserver,
        request_timeout: float,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._http = http
        self._auth = auth
        self._budget = budget
        self.observer = observer
        self.request_timeout = request_timeout
        self._now = now
        self._jitter = jitter
        self.clock = ServiceClock(now)
        self._succeeded_at = -math.inf

    async def close(self) -> None:
        """Free the credential and the connections."""
        await self._http.close()
        await self._auth.close()

    async def get(
        self, operation: str, url: str, decode: Decode[T], until: float, e_tag: str = ""
    ) -> T:
        """The decoded body of an answer.

        `until`: time of the event loop after which no further attempt starts. `e_tag`: of the
        object as it is known; NotModified where it is the same.
        """
        loop = asyncio.get_running_loop()
        headers = {
            "Accept": "application/json",
            "client-request-id": str(uuid.uuid4()),
            "User-Agent": _USER_AGENT,
            **({"If-None-Match": e_tag} if e_tag else {}),
        }
        may_renew = True
        delay = FIRST_DELAY
        while True:
            await self._budget.acquire(until)
            credentials = await self._auth.headers(url, e_tag)
            try:
                answer = await self._attempt(operation, url, decode, {**headers, **credentials})
            except errors.AuthenticationFailed as error:
                if not may_renew or not self._auth.forget(credentials):
                    raise self._auth.failure or error from None
                may_renew = False
            except PollError as error:
                wait = self._jitter() * min(delay, MAX_DELAY)
                is_in_time = error.is_transient and loop.time() + wait < until
                if not is_in_time or not self._budget.may_retry():
                    raise
                await asyncio.sleep(wait)
                delay *= 2
            else:
                self._budget.succeeded()
                return answer
            self.observer.retried(operation)

    async def _attempt(
        self, operation: str, url: str, decode: Decode[T], headers: Mapping[str, str]
    ) -> T:
        loop = asyncio.get_running_loop()
        started = loop.time()
        code: int | str | None = None
        trace = f"client-request-id {headers['client-request-id']}"
        try:
            async with asyncio.timeout(self.request_timeout):
                answer = await self._http.get(url, headers)
            code = answer.status
            if _is_id(request_id := answer.headers.get("request-id", "")):
                trace = f"request-id {request_id}, {trace}"
            offset = self._offset(answer.headers)
            if answer.status == 200:
                decoded = await _decode(answer.body, decode)
                if offset is not None:
                    self.clock.note(offset)
                self._succeeded_at = loop.time()
                return decoded
            raise _traced(await self._failure(answer, offset or 0.0), trace)
        except errors.Forbidden as error:
            error.others_succeed = loop.time() - self._succeeded_at < OTHERS_WITHIN
            raise
        except TimeoutError as error:
            code = "timeout"
            text = f"{operation}: no whole answer within {self.request_timeout:g} s"
            raise _traced(errors.RequestTimeout(text), trace) from error
        except OSError as error:
            code = "connection"
            text = f"{operation}: {str(error) or type(error).__name__}"
            raise _traced(errors.ConnectionFailed(text, _step(error)), trace) from error
        except (ValueError, RecursionError) as error:
            # Not JSON, not of the documented types, or a nextLink that is no URL.
            code = "invalid"
            raise _traced(errors.InvalidResponse(f"{operation}: {error}"), trace) from error
        finally:
            if code is not None:  # None: the poll was cancelled
                self.observer.request_done(operation, str(code), loop.time() - started)

    def _offset(self, headers: Mapping[str, str]) -> float | None:
        """Seconds by which the clock of an answer is ahead of ours; None where it tells no time."""
        theirs = _unix_time(headers.get("date", ""))
        if theirs is None:
            return None
        # The header is cut to whole seconds: half a second is missing on average, and a difference
        # below one second means nothing.
        offset = theirs + 0.5 - self._now()
        return offset if abs(offset) > 1.0 else 0.0

    async def _failure(self, answer: Answer, offset: float) -> PollError:
        """The error for an answer that is not 200. Pauses the budget if the answer asks for it.

        `offset`: seconds by which the answer's clock is ahead of ours.
        """
        status = answer.status
        code, message = "", redact(answer.reason)
        values: tuple[tuple[str, str], ...] = ()
        try:
            parsed = await _decode(answer.body, _ERROR)
        except (ValueError, RecursionError):
            pass  # the page of a proxy, or an empty body: only the status is known
        else:
            code, message = parsed.code, parsed.text
            values = tuple((item.name or "", item.value or "") for item in parsed.values or ())
        kind = _kind(status, code, values, answer.headers)
        if kind is errors.TooManyRequests:
            self._budget.pause(_retry_after(answer.headers))
        if kind is errors.AuthenticationFailed and abs(offset) > MAX_SKEW:
            ahead = "behind" if offset > 0 else "ahead of"
            skew = f"{abs(offset):.0f} s {ahead} the service's: set it right"
            values = (*values, ("this machine's clock is", skew))
        return kind(status, code, message, values)


def _traced(error: PollError, trace: str) -> PollError:
    error.trace = trace
    return error


async def _decode(body: bytes | bytearray, decode: Decode[T]) -> T:
    text = body.removeprefix(codecs.BOM_UTF8)
    if len(text) < LARGE_BODY:
        return decode(text)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(THREADS, _decode_large, text, decode)


def _decode_large(text: bytes | bytearray, decode: Decode[T]) -> T:
    if _has_too_many_values(text):
        raise ValueError(f"the answer has more than {MAX_VALUES} values")
    return decode(text)


def _has_too_many_values(json: bytes | bytearray) -> bool:
    values = _values(json)
    if values <= MAX_VALUES:
        return False
    if values > 10 * MAX_VALUES or json.count(b'"') > 2 * MAX_VALUES:
        return True  # to look closer would be a lot of work itself
    # Those in texts do not count: a command line may have thousands of commas.
    unescaped = json.replace(b"\\\\", b"").replace(b'\\"', b"")
    return _values(b"".join(unescaped.split(b'"')[::2])) > MAX_VALUES


def _values(json: bytes | bytearray) -> int:
    return json.count(b",")  # each value of a list or an object has one before it, but the first


def _step(error: Exception) -> errors.Step:
    """The step at which a connection failed."""
    if isinstance(error, ProxyError):
        return "credentials" if error.status == 407 else "proxy"
    if isinstance(error, socket.gaierror):
        return "dns"
    if isinstance(error, ssl.SSLError):
        return "tls"
    return "connection"


def _kind(
    status: int, code: str, values: tuple[tuple[str, str], ...], headers: Mapping[str, str]
) -> type[ServiceError]:
    # Its documents name another code for a version that the service does not have.
    is_about_version = any(value.lower() == "api-version" for _, value in values)
    if code == "InvalidQueryParameterValue" and is_about_version:
        return errors.UnsupportedVersion
    if status == 503 and "retry-after" in headers:
        return errors.TooManyRequests
    return _BY_CODE.get((status, code)) or _BY_STATUS.get(status, ServiceError)


def _unix_time(date: str) -> float | None:
    try:
        return models.unix_time(parsedate_to_datetime(date).isoformat())
    except (TypeError, ValueError, OverflowError):
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for: a number, or a date after the answer's own Date."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    until, now = _unix_time(text), _unix_time(headers.get("date", ""))
    return until - now if until is not None and now is not None and until > now else None


_ERROR = Decoder(models.BatchError, strict=False).decode
