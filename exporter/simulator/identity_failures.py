"""Failures of the identity endpoints, to be played by name while they are served."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import MappingProxyType

from aiohttp import web

from exporter.simulator.entra_errors import EntraError
from exporter.simulator.faults.answers import hang, reset

Play = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""Answers a request for a token in place of the endpoint, or raises EntraError."""

ENDPOINTS = ("entra", "imds", "app_service")

RETRY_AFTER = 5
"""Seconds that a throttled client is told to wait."""


@dataclass(frozen=True)
class Failure:
    """One way in which signing in fails, with its answer for each endpoint that has it."""

    name: str
    summary: str
    plays: Mapping[str, Play]


def _entra(code: int, retry_after: int | None = None) -> Mapping[str, Play]:
    async def play(_: web.Request) -> web.StreamResponse:
        raise EntraError(code, retry_after)

    return {"entra": play}


def _managed(
    status: int, error: str, text: str, retry_after: int | None = None
) -> Mapping[str, Play]:
    """The same error as a virtual machine's endpoint says it, and as App Service's does."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    async def imds(_: web.Request) -> web.StreamResponse:
        body = {"error": error, "error_description": text}
        return web.json_response(body, status=status, headers=headers)

    async def app_service(_: web.Request) -> web.StreamResponse:
        body = {"statusCode": status, "message": text}
        return web.json_response(body, status=status, headers=headers)

    return {"imds": imds, "app_service": app_service}


def _everywhere(play: Play) -> Mapping[str, Play]:
    return dict.fromkeys(ENDPOINTS, play)


def _say(body: bytes, content_type: str) -> Play:
    async def play(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type)

    return play


async def _hang(_: web.Request) -> web.StreamResponse:
    return await hang()


async def _reset(request: web.Request) -> web.StreamResponse:
    return reset(request)


_HTML = b"<html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>\n"
_BLANK = (
    b'{"token_type": "Bearer", "expires_in": 3599, "expires_on": 4102444800,'
    b' "resource": "", "access_token": "blank token"}'
)
_EMPTY = b'{"token_type": "Bearer", "expires_in": 3599}'

FAILURES: Mapping[str, Failure] = MappingProxyType(
    {
        failure.name: failure
        for failure in (
            Failure("secret-expired", "7000222: the client secret has expired", _entra(7000222)),
            Failure("secret-wrong", "7000215: the client secret is wrong", _entra(7000215)),
            Failure("certificate-expired", "700027: the certificate has expired", _entra(700027)),
            Failure(
                "application-unknown",
                "700016: the tenant does not have the application",
                _entra(700016),
            ),
            Failure(
                "application-disabled", "7000112: the application is disabled", _entra(7000112)
            ),
            Failure(
                "principal-missing",
                "7000229: the application has no service principal in the tenant",
                _entra(7000229),
            ),
            Failure("tenant-unknown", "90002: there is no such tenant", _entra(90002)),
            Failure("user-unknown", "50034: the account is not in the tenant", _entra(50034)),
            Failure(
                "resource-unknown", "500011: the tenant does not know the resource", _entra(500011)
            ),
            Failure("scope-invalid", "1002012: the scope is not valid", _entra(1002012)),
            Failure(
                "assertion-expired",
                "700024: the client assertion is out of its time",
                _entra(700024),
            ),
            Failure("federation-no-match", "70021: no federated credential matches", _entra(70021)),
            Failure(
                "federation-issuer",
                "700211: no federated credential has the issuer",
                _entra(700211),
            ),
            Failure(
                "federation-audience",
                "700212: no federated credential has the audience",
                _entra(700212),
            ),
            Failure(
                "federation-subject",
                "700213: no federated credential has the subject",
                _entra(700213),
            ),
            Failure("conditional-access", "53003: blocked by Conditional Access", _entra(53003)),
            Failure(
                "risk-blocked", "530034: blocked due to risk in the home tenant", _entra(530034)
            ),
            Failure(
                "no-identity",
                "400: the machine has no such identity",
                _managed(400, "invalid_request", "Identity not found"),
            ),
            Failure(
                "header-refused",
                "401: the endpoint refuses its header",
                {"app_service": _managed(401, "", "The X-IDENTITY-HEADER is wrong")["app_service"]},
            ),
            Failure(
                "not-found",
                "404: no such endpoint here",
                _managed(404, "not_found", "The requested resource was not found"),
            ),
            Failure(
                "gone",
                "410: the endpoint is being updated",
                {"imds": _managed(410, "gone", "The endpoint is being updated")["imds"]},
            ),
            Failure(
                "throttled",
                f"429, Retry-After {RETRY_AFTER} seconds",
                {
                    **_entra(90055, RETRY_AFTER),
                    **_managed(429, "too_many_requests", "Too many requests", RETRY_AFTER),
                },
            ),
            Failure(
                "server-error",
                "500",
                {**_entra(50000), **_managed(500, "unknown", "Failed to retrieve a token")},
            ),
            Failure(
                "unavailable",
                "503",
                {**_entra(90033), **_managed(503, "unavailable", "The service is unavailable")},
            ),
            Failure("hang", "takes the request and never answers", _everywhere(_hang)),
            Failure("reset", "a TCP reset instead of an answer", _everywhere(_reset)),
            Failure("html", "200 with a web page", _everywhere(_say(_HTML, "text/html"))),
            Failure("empty", "200 without a token", _everywhere(_say(_EMPTY, "application/json"))),
            Failure(
                "blank-token",
                "200 with a token that no header can have",
                _everywhere(_say(_BLANK, "application/json")),
            ),
            Failure(
                "garbage",
                "200 with bytes that are no JSON",
                _everywhere(_say(bytes(range(128, 256)), "application/json")),
            ),
        )
    }
)
"""Every failure by name."""


@dataclass(frozen=True)
class Plan:
    """A failure, and when it is played; ValueError where it cannot be.

    `endpoint`: only this one; None: all that have the failure. `after`: so many tokens are still
    issued first.
    """

    failure: str
    endpoint: str | None = None
    after: int = 0

    def __post_init__(self) -> None:
        """Check that the plan can be played."""
        _check_known("failure", self.failure, FAILURES)
        if self.endpoint is not None:
            _check_known("endpoint", self.endpoint, ENDPOINTS)
            if self.endpoint not in FAILURES[self.failure].plays:
                has = ", ".join(FAILURES[self.failure].plays)
                raise ValueError(f"{self.endpoint} does not fail with {self.failure}: {has} does")
        if self.after < 0:
            raise ValueError(f"after {self.after}: write 0 or more")

    @property
    def plays(self) -> Mapping[str, Play]:
        """The answers by endpoint."""
        plays = FAILURES[self.failure].plays
        return plays if self.endpoint is None else {self.endpoint: plays[self.endpoint]}


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        near = get_close_matches(name, known, 1)
        cure = f"did you mean {near[0]}?" if near else "GET /simulator/identity names all"
        raise ValueError(f"there is no {kind} {name}: {cure}")


class Failures:
    """The failure in force, which holds until it is cleared. `played` counts by its name."""

    def __init__(self) -> None:
        self.played: Counter[str] = Counter()
        self.active: Plan | None = None

    def set(self, failure: str, endpoint: str | None = None, after: int = 0) -> None:
        """Play this one, in place of another; ValueError as of Plan."""
        self.active = Plan(failure, endpoint, after)

    def clear(self) -> None:
        """Play none. A request that hangs already does so until its client gives up."""
        self.active = None

    def next(self, endpoint: str) -> Play | None:
        """What answers the endpoint's next request; None: the endpoint itself."""
        plan = self.active
        if plan is None or plan.after or endpoint not in plan.plays:
            return None
        self.played[plan.failure] += 1
        return plan.plays[endpoint]

    def note_token(self, endpoint: str) -> None:
        """Count a token that the endpoint issued."""
        plan = self.active
        if plan is not None and plan.after and endpoint in plan.plays:
            self.active = replace(plan, after=plan.after - 1)
