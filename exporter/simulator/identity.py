"""Where clients get tokens: Microsoft Entra ID, a virtual machine's endpoint, App Service's.

azure-identity finds Microsoft Entra ID where AZURE_AUTHORITY_HOST is its URL, and trusts it where
SSL_CERT_FILE names its authority. It finds the endpoint of a virtual machine (IMDS) by
AZURE_POD_IDENTITY_AUTHORITY_HOST, and that of App Service by IDENTITY_ENDPOINT and
IDENTITY_HEADER.
"""

import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from aiohttp import web

from exporter.simulator.entra import CLIENT_ID, Application, check, values_of
from exporter.simulator.entra_errors import EntraError, error_response
from exporter.simulator.identity_control import identity_routes
from exporter.simulator.identity_failures import Failures, Play
from exporter.simulator.server import serve_app, utc_now
from exporter.simulator.signatures import TokenRegistry

ENTRA_PATH = "/{tenant}/oauth2/v2.0/token"
IMDS_PATH = "/metadata/identity/oauth2/token"
APP_SERVICE_PATH = "/msi/token"

_LONG = timedelta(hours=2)
"""Tokens that last longer say when to renew them."""


class TokenRequest(NamedTuple):
    """When an endpoint was asked for a token, in seconds of the monotonic clock."""

    endpoint: str
    at: float


@dataclass
class Identity:
    """The served endpoints. Everything may be changed while they are served.

    The endpoints are `entra`, `imds` and `app_service`. `lifetime`: of tokens issued from now on.
    `issued`, `requests`: how many tokens they issued and were asked for. `log`: the latest
    requests.
    """

    tokens: TokenRegistry
    lifetime: timedelta = timedelta(hours=1)
    header: str = "simulated-identity-header"
    applications: list[Application] = field(default_factory=lambda: [Application()])
    now: Callable[[], datetime] = utc_now
    failures: Failures = field(default_factory=Failures)
    issued: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    log: deque[TokenRequest] = field(default_factory=lambda: deque(maxlen=10_000))
    url: str = ""
    authority: str = ""
    """What AZURE_AUTHORITY_HOST is to be: the URL over https, where that is served."""

    @property
    def app_service_url(self) -> str:
        """What IDENTITY_ENDPOINT is to be; `header` is what IDENTITY_HEADER is to be."""
        return self.url + APP_SERVICE_PATH

    @property
    def application(self) -> Application:
        """The first registered application."""
        return self.applications[0]

    @property
    def tenant_id(self) -> str:
        """The tenant of the first application."""
        return self.application.tenant_id

    @property
    def client_id(self) -> str:
        """The id of the first application."""
        return self.application.client_id

    @property
    def client_secret(self) -> str:
        """The newest secret of the first application."""
        return self.application.secrets[-1]

    def issue(self, endpoint: str, resource: str) -> str:
        """A new token for the resource, counted."""
        self.issued[endpoint] += 1
        self.failures.note_token(endpoint)
        return self.tokens.issue(resource, self.lifetime)


def build_identity_app(identity: Identity) -> web.Application:
    """The application with all endpoints and their control."""

    async def entra(request: web.Request) -> web.StreamResponse:
        tenant = request.match_info["tenant"]
        form = {name: str(value) for name, value in (await request.post()).items()}
        try:
            play = _next(identity, "entra")
            if play is not None:
                return await play(request)
            url = f"{request.scheme}://{request.host}{request.path}"
            resource = check(identity.applications, tenant, form, url, identity.now())
        except EntraError as error:
            correlation_id = request.headers.get("client-request-id", "")
            return error_response(error, values_of(tenant, form), identity.now(), correlation_id)
        seconds = int(identity.lifetime.total_seconds())
        renewal = {"refresh_in": seconds // 2} if identity.lifetime > _LONG else {}
        return web.json_response(
            {
                "token_type": "Bearer",
                "expires_in": seconds,
                "ext_expires_in": seconds,
                **renewal,
                "access_token": identity.issue("entra", resource),
            }
        )

    async def imds(request: web.Request) -> web.StreamResponse:
        play = _next(identity, "imds")
        if play is not None:
            return await play(request)
        if request.headers.get("Metadata", "").lower() != "true":
            return _refusal(400, "bad_request_102", "Required metadata header not specified")
        return _managed_token(identity, "imds", request.query)

    async def app_service(request: web.Request) -> web.StreamResponse:
        play = _next(identity, "app_service")
        if play is not None:
            return await play(request)
        if request.headers.get("X-IDENTITY-HEADER") != identity.header:
            return _refusal(401, "unauthorized", "The X-IDENTITY-HEADER is missing or wrong")
        return _managed_token(identity, "app_service", request.query)

    app = web.Application()
    app.router.add_post(ENTRA_PATH, entra)
    app.router.add_get(IMDS_PATH, imds)
    app.router.add_get(APP_SERVICE_PATH, app_service)
    app.router.add_routes(identity_routes(identity))
    return app


def _next(identity: Identity, endpoint: str) -> Play | None:
    """Count a request for a token; what answers it in place of the endpoint, or None."""
    identity.requests[endpoint] += 1
    identity.log.append(TokenRequest(endpoint, time.monotonic()))
    return identity.failures.next(endpoint)


def _managed_token(identity: Identity, endpoint: str, query: Mapping[str, str]) -> web.Response:
    resource = query.get("resource")
    if not resource or not query.get("api-version"):
        return _refusal(400, "invalid_request", "resource and api-version are required")
    now, seconds = int(identity.now().timestamp()), int(identity.lifetime.total_seconds())
    return web.json_response(
        {
            "access_token": identity.issue(endpoint, resource),
            "client_id": query.get("client_id", CLIENT_ID),
            "expires_in": str(seconds),
            "expires_on": str(now + seconds),
            "ext_expires_in": str(seconds),
            "not_before": str(now),
            "resource": resource,
            "token_type": "Bearer",
        }
    )


def _refusal(status: int, error: str, description: str) -> web.Response:
    body = {"error": error, "error_description": description}
    return web.json_response(body, status=status)


@asynccontextmanager
async def serve_identity(
    tokens: TokenRegistry,
    *,
    lifetime: timedelta = timedelta(hours=1),
    header: str = "simulated-identity-header",
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    tls_port: int = 0,
    now: Callable[[], datetime] = utc_now,
) -> AsyncIterator[Identity]:
    """Serve the endpoints while the context lasts. With `tls` they are served over https, too.

    `now`: what certificates and assertions are checked against, aware.
    """
    identity = Identity(tokens, lifetime, header, now=now)
    async with AsyncExitStack() as stack:
        plain = serve_app(build_identity_app(identity), host, port)
        identity.url = await stack.enter_async_context(plain)
        if tls is not None:
            secure = serve_app(build_identity_app(identity), host, tls_port, tls)
            identity.authority = await stack.enter_async_context(secure)
        yield identity
