"""Faults that are an HTTP status: what the service, or something on the way to it, refuses."""

from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime

from aiohttp import web

from exporter.simulator.error_answers import (
    BatchError,
    authentication_failed,
    condition_not_met,
    invalid_parameter,
    job_not_found,
    neither_preparation_nor_release,
    task_not_found,
    unsupported_version,
)
from exporter.simulator.faults.answers import body_of, elsewhere, url_of
from exporter.simulator.faults.fault import JOB_OPERATIONS, Fault, Stage, fault
from exporter.simulator.operations import Call
from exporter.simulator.server import Interceptor, Proceed, service_time

RETRY_AFTER = 5
"""Seconds that the service asks to wait, where it asks for something sensible."""


def too_many_requests(retry_after: str | None = str(RETRY_AFTER)) -> BatchError:
    """429 with this Retry-After."""
    text = "Request failed as server encountered too many requests. Please try again."
    headers = () if retry_after is None else (("Retry-After", retry_after),)
    return BatchError(429, "TooManyRequests", text, headers=headers)


def server_busy(headers: tuple[tuple[str, str], ...] = ()) -> BatchError:
    """503 as the service itself says it."""
    text = "The server is currently unable to receive requests. Please retry your request."
    return BatchError(503, "ServerBusy", text, headers=headers)


async def _throttle_until(
    request: web.Request, _call: Call, _proceed: Proceed
) -> web.StreamResponse:
    until = service_time(request) + timedelta(seconds=RETRY_AFTER)
    raise too_many_requests(format_datetime(until, usegmt=True))


def _lose_once(_: Stage) -> Interceptor:
    """Answers once for each job that it does not exist."""
    lost: set[str] = set()

    async def play(_request: web.Request, call: Call, proceed: Proceed) -> web.StreamResponse:
        job_id = call.ids[0].lower()
        if job_id in lost:
            return await proceed()
        lost.add(job_id)
        raise job_not_found()

    return play


def _conflict(code: str, text: str) -> Interceptor:
    return _refuse(lambda: BatchError(409, code, text))


def forbidden() -> BatchError:
    """403 to an identity that is known and has no role that would allow the request."""
    values = (("Reason", "The specified account does not allow this access."),)
    return BatchError(403, "Forbidden", "Access is Forbidden", values)


def insufficient_permissions() -> BatchError:
    """403 to an account or a key that may not do this."""
    text = "Permission denied: the account has not the permissions for this operation."
    return BatchError(403, "InsufficientAccountPermissions", text)


def _refuse(error: Callable[[], BatchError]) -> Interceptor:
    async def play(_request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
        raise error()

    return play


def _say(status: int, text: str = "", content_type: str = "text/html") -> Interceptor:
    """What is between us and the service answers, and knows nothing of its errors."""

    async def play(_request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
        return web.Response(status=status, text=text or None, content_type=content_type)

    return play


def _html(title: str) -> str:
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"


def _redirect(status: int, target: Callable[[web.Request, Call], str]) -> Interceptor:
    async def play(request: web.Request, call: Call, _proceed: Proceed) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": target(request, call)})

    return play


async def _garbage(_request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
    return web.Response(status=418, body=bytes(range(256)))


async def _half(_request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
    response = await proceed()
    body = body_of(response)
    if body is None:
        return response
    half = len(body) // 2
    headers = {"Content-Range": f"bytes 0-{half - 1}/{len(body)}"}
    return web.Response(
        status=206, body=body[:half], headers=headers, content_type="application/json"
    )


_FILTER = ("$filter", "state ne 'completed'", "The filter is not supported")

STATUSES: tuple[Fault, ...] = (
    fault("invalid-query", "400: refuses the query", _refuse(lambda: invalid_parameter(*_FILTER))),
    fault(
        "unsupported-version",
        "400: does not know the API version",
        _refuse(lambda: unsupported_version("2024-07-01.20.0")),
    ),
    fault("unauthorized", "401 without a body or a challenge, as from a gateway", _say(401)),
    fault(
        "authentication-failed",
        "403 AuthenticationFailed, as for a wrong key",
        _refuse(lambda: authentication_failed("The signature is not valid.")),
    ),
    fault("forbidden", "403: known, but not allowed to read", _refuse(forbidden)),
    fault(
        "account-disabled",
        "403 AccountIsDisabled",
        _refuse(lambda: BatchError(403, "AccountIsDisabled", "The account is disabled.")),
    ),
    fault(
        "insufficient-permissions",
        "403 InsufficientAccountPermissions",
        _refuse(insufficient_permissions),
    ),
    fault("job-not-found", "404: the job is gone", _refuse(job_not_found), JOB_OPERATIONS),
    Fault(
        "job-not-found-once",
        "404 to one request on each job, which is there all the same",
        _lose_once,
        JOB_OPERATIONS,
    ),
    fault(
        "task-not-found",
        "404: the task is gone",
        _refuse(task_not_found),
        frozenset({"Task_Get", "Task_ListSubtasks"}),
    ),
    fault("not-found-html", "404 with a web page", _say(404, _html("404 Not Found"))),
    fault(
        "request-timeout",
        "408: the service waited for the request for too long",
        _refuse(lambda: BatchError(408, "RequestTimeout", "The request timed out.")),
    ),
    fault(
        "job-being-deleted",
        "409 JobBeingDeleted",
        _conflict("JobBeingDeleted", "The specified job is marked for deletion."),
        JOB_OPERATIONS,
    ),
    fault(
        "job-being-terminated",
        "409 JobBeingTerminated",
        _conflict("JobBeingTerminated", "The specified job is being terminated."),
        JOB_OPERATIONS,
    ),
    fault(
        "not-configured",
        "409: the job has neither preparation nor release",
        _refuse(neither_preparation_nor_release),
        frozenset({"Job_ListPreparationAndReleaseTaskStatus"}),
    ),
    fault(
        "invalid-state",
        "409 OperationInvalidForCurrentState",
        _conflict("OperationInvalidForCurrentState", "This is not possible in the current state."),
    ),
    fault("condition-not-met", "412 though nothing was demanded", _refuse(condition_not_met)),
    fault("teapot", "418 with bytes that are no text", _garbage),
    fault("too-many-requests", "429, Retry-After in seconds", _refuse(too_many_requests)),
    fault(
        "too-many-requests-date",
        "429, Retry-After as a date",
        _throttle_until,
    ),
    fault(
        "too-many-requests-silent",
        "429 without Retry-After",
        _refuse(lambda: too_many_requests(None)),
    ),
    fault(
        "too-many-requests-nonsense",
        "429, Retry-After is no time at all",
        _refuse(lambda: too_many_requests("when it suits us")),
    ),
    fault(
        "too-many-requests-huge",
        "429, Retry-After is some millennia",
        _refuse(lambda: too_many_requests("99999999999999999999")),
    ),
    fault(
        "too-many-requests-hours",
        "429, Retry-After is six hours",
        _refuse(lambda: too_many_requests(str(6 * 3600))),
    ),
    fault(
        "too-many-requests-negative",
        "429, Retry-After lies in the past",
        _refuse(lambda: too_many_requests("-5")),
    ),
    fault(
        "internal-error",
        "500 InternalError",
        _refuse(lambda: BatchError(500, "InternalError", "Server encountered an internal error.")),
    ),
    fault(
        "operation-timed-out",
        "500 OperationTimedOut",
        _refuse(lambda: BatchError(500, "OperationTimedOut", "The operation timed out.")),
    ),
    fault("bad-gateway", "502 with a proxy's web page", _say(502, _html("502 Bad Gateway"))),
    fault("server-busy", "503 ServerBusy without Retry-After", _refuse(server_busy)),
    fault(
        "server-busy-retry-after",
        "503 ServerBusy with Retry-After",
        _refuse(lambda: server_busy((("Retry-After", str(RETRY_AFTER)),))),
    ),
    fault("gateway-timeout", "504 with a web page", _say(504, _html("504 Gateway Time-out"))),
    fault("html-instead", "200 with a web page, as a portal's login", _say(200, _html("Sign in"))),
    fault("no-content", "204: nothing", _say(204)),
    fault("partial-content", "206: the first half, though all was asked for", _half),
    fault("not-modified", "304 though no condition was sent", _say(304)),
    fault("moved-permanently", "301 to another origin", _redirect(301, elsewhere)),
    fault("found", "302 to another origin", _redirect(302, elsewhere)),
    fault("temporary-redirect", "307 to another origin", _redirect(307, elsewhere)),
    fault("permanent-redirect", "308 to another origin", _redirect(308, elsewhere)),
    fault("redirect-to-itself", "307 to the very same URL", _redirect(307, url_of)),
)
