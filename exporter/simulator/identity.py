"""Managed identity endpoints, as a virtual machine and as App Service have them.

azure-identity finds the first where AZURE_POD_IDENTITY_AUTHORITY_HOST is set to its URL, the
second where IDENTITY_ENDPOINT and IDENTITY_HEADER are.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from aiohttp import web

from exporter.simulator.server import serve_app, utc_now
from exporter.simulator.signatures import TokenRegistry

IMDS_PATH = "/metadata/identity/oauth2/token"
APP_SERVICE_PATH = "/msi/token"

_CLIENT_ID = "00000000-0000-0000-0000-00000000c11e"


@dataclass(frozen=True)
class Identity:
    """Served identity endpoints; `issued` counts tokens by the endpoint (`imds`, `app_service`)."""

    url: str
    header: str
    issued: Counter[str]

    @property
    def app_service_url(self) -> str:
        """What IDENTITY_ENDPOINT is to be; `header` is what IDENTITY_HEADER is to be."""
        return self.url + APP_SERVICE_PATH


def build_identity_app(
    tokens: TokenRegistry, lifetime: timedelta, header: str, issued: Counter[str]
) -> web.Application:
    """The application that issues tokens into the registry, each for the resource asked for."""

    def token(request: web.Request, kind: str) -> web.Response:
        resource = request.query.get("resource")
        if not resource or not request.query.get("api-version"):
            return _refusal(400, "invalid_request", "resource and api-version are required")
        issued[kind] += 1
        expires = int((utc_now() + lifetime).timestamp())
        return web.json_response(
            {
                "access_token": tokens.issue(resource, lifetime),
                "client_id": request.query.get("client_id", _CLIENT_ID),
                "expires_in": str(int(lifetime.total_seconds())),
                "expires_on": str(expires),
                "resource": resource,
                "token_type": "Bearer",
            }
        )

    async def imds(request: web.Request) -> web.Response:
        if request.headers.get("Metadata", "").lower() != "true":
            return _refusal(400, "bad_request_102", "Required metadata header not specified")
        return token(request, "imds")

    async def app_service(request: web.Request) -> web.Response:
        if request.headers.get("X-IDENTITY-HEADER") != header:
            return _refusal(401, "unauthorized", "The X-IDENTITY-HEADER is missing or wrong")
        return token(request, "app_service")

    app = web.Application()
    app.router.add_get(IMDS_PATH, imds)
    app.router.add_get(APP_SERVICE_PATH, app_service)
    return app


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
) -> AsyncIterator[Identity]:
    """Serve both endpoints while the context lasts."""
    issued: Counter[str] = Counter()
    app = build_identity_app(tokens, lifetime, header, issued)
    async with serve_app(app, host, port) as url:
        yield Identity(url, header, issued)
