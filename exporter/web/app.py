"""The HTTP server: /metrics, health, the JSON API and the pages for people.

Nothing here asks Azure anything: a scrape gets what the polls have left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib import resources
from itertools import chain

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from exporter.config.problems import ConfigError
from exporter.web import api, pages
from exporter.web.api import models
from exporter.web.api.endpoints import OPERATIONS, Operation
from exporter.web.api.job_views import NotFound
from exporter.web.api.parameters import BadQuery, parse
from exporter.web.backend import Backend
from exporter.web.server.basic_auth import BasicAuth
from exporter.web.server.client_connection import connection_of
from exporter.web.server.limits import InFlight, Limits, RateLimiter
from exporter.web.server.negotiation import accepts_gzip, choose_format
from exporter.web.server.sending import InParts
from exporter.web.server.web_config_file import CurrentSettings, Settings

_SERVICE = web.AppKey("service", Backend)
_THREAD = web.AppKey("thread", ThreadPoolExecutor)
"""Makes large bodies, one at a time, while the event loop goes on."""

_TURN = web.AppKey("turn", asyncio.Lock)
"""Held while a body is made: between two of them the event loop has time for polls."""

_VIEWING = web.AppKey("viewing", asyncio.Lock)
"""Held while a view of all jobs is made: many who look must not delay the scrapes."""

_LARGE = 1024 * 1024
"""Bytes of a body from which on a thread makes it; a smaller one takes less than a millisecond."""


Reload = Callable[[], Awaitable[None]]
"""Takes over the configuration anew; ConfigError says why that cannot be."""

_RELOAD: web.AppKey[Reload | None] = web.AppKey("reload")


def build_app(
    service: Backend,
    telemetry_path: str,
    settings: CurrentSettings = Settings,
    limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
    reload: Reload | None = None,
    docs_url: str = "",
) -> web.Application:
    """The web application; metrics are at `telemetry_path`.

    `settings`: who may see it. `reload`: None: it is not offered. `docs_url`: where the files
    of the project can be read; "": the pages do not link to them.
    """
    app = web.Application(middlewares=[_while_answering, _guard(settings)])
    app[_SERVICE] = service
    app[_RELOAD] = reload
    app[_THREAD] = ThreadPoolExecutor(1, "bodies")
    app.on_cleanup.append(_end_thread)
    app[_TURN] = asyncio.Lock()
    app[_VIEWING] = asyncio.Lock()
    app.on_response_prepare.append(_headers_of(settings))
    limited = _limited(limits)
    app.router.add_get(telemetry_path, limited(_metrics))
    for operation in OPERATIONS:
        app.router.add_get(operation.path, limited(_json(operation)))
    app.router.add_get("/api/v1/openapi.json", limited(_description()))
    app.router.add_get("/-/healthy", _healthy)
    app.router.add_get("/-/ready", _ready)
    app.router.add_route("*", "/-/reload", _reload)
    if telemetry_path != "/":
        links = pages.Links(telemetry_path, docs_url.rstrip("/"))
        for path, show in pages.PAGES.items():
            app.router.add_get(path, limited(_page(show, links)))
        for file in pages.STATIC.values():
            app.router.add_get(f"/{file.path}", limited(_static(file)))
    return app


async def _end_thread(app: web.Application) -> None:
    app[_THREAD].shutdown(wait=False)


@web.middleware
async def _while_answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    connection = connection_of(request)
    with connection.answering() if connection is not None else nullcontext():
        return await handler(request)


def _guard(settings: CurrentSettings) -> Middleware:
    """Lets in what is within the rate limit and has credentials, on every path."""
    auth, rate = BasicAuth(), RateLimiter()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        config = settings().config
        if not rate.allow(config.rate_limit):
            return web.Response(status=429, text="Too many requests.\n")
        users = config.basic_auth_users
        if users and not await auth.allows(users, request.headers.get("Authorization", "")):
            return web.Response(
                status=401, text="Unauthorized.\n", headers={"WWW-Authenticate": "Basic"}
            )
        return await handler(request)

    return guard


def _headers_of(
    settings: CurrentSettings,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def set_headers(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.update(settings().config.http_server_config.headers.given)

    return set_headers


def _limited(limits: Limits) -> Callable[[Handler], Handler]:
    """Makes a handler answer 503 while too many requests are answered; sends what it answers."""
    in_flight = InFlight(limits.max_requests)

    def limited(handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            with in_flight.one_more() as has_room:
                if not has_room:
                    text = "Too many requests are being answered.\n"
                    return web.Response(status=503, text=text)
                response = await handler(request)
                if isinstance(response, InParts):
                    await response.send(request, limits)
                return response

        return answer

    return limited


async def _metrics(request: web.Request) -> web.StreamResponse:
    service = request.app[_SERVICE]
    # A header may stand several times: together they are one list.
    format_, content_type = choose_format(",".join(request.headers.getall("Accept", [])))
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    gzip = accepts_gzip(",".join(request.headers.getall("Accept-Encoding", [])))
    if gzip:
        headers["Content-Encoding"] = "gzip"
    async with request.app[_TURN]:
        await asyncio.sleep(0)
        state = service.exposition.body(format_)
        own = service.own_metrics(format_, state.series)
        parts: Iterable[bytes]
        if not gzip:
            parts = chain(state.parts(), (own,))
        elif state.size > _LARGE:
            # A large body is compressed in a thread of the web server's own: name resolution,
            # passwords and the configuration have theirs, and cannot delay a scrape.
            loop = asyncio.get_running_loop()
            parts = await loop.run_in_executor(request.app[_THREAD], state.gzip, own)
        else:
            parts = state.gzip(own)
    return InParts(parts if state.size > _LARGE else tuple(parts), headers)


def _json(operation: Operation) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            values = parse(request.query, operation.parameters)
            async with request.app[_VIEWING]:
                view = await operation.answer(request.app[_SERVICE], values)
        except BadQuery as error:
            return _refusal(400, error)
        except NotFound as error:
            return _refusal(404, error)
        return InParts((msgspec.json.encode(view),), _JSON)

    return answer


_JSON = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}


def _refusal(status: int, reason: Exception) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(models.Error(str(reason))), headers=_JSON
    )


def _description() -> Handler:
    body = resources.files(api).joinpath("openapi.json").read_bytes()

    async def answer(_: web.Request) -> web.StreamResponse:
        return InParts((body,), _JSON)

    return answer


def _page(show: pages.Page, links: pages.Links) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            async with request.app[_VIEWING]:
                text = await show(request.app[_SERVICE], request.query, links)
            status = 200
        except BadQuery as error:
            text, status = pages.refused(400, str(error), links), 400
        except NotFound as error:
            text, status = pages.refused(404, str(error), links), 404
        body = text.encode("utf-8", "replace")
        response = InParts((body,), pages.HEADERS)
        response.set_status(status)
        return response

    return answer


def _static(file: pages.StaticFile) -> Handler:
    # The path has a digest of the content: what is there stays as it is.
    headers = {
        "Content-Type": file.content_type,
        "Cache-Control": "public, max-age=31536000, immutable",
    }

    async def answer(_: web.Request) -> web.StreamResponse:
        return InParts((file.content,), headers)

    return answer


async def _healthy(request: web.Request) -> web.Response:
    problem = request.app[_SERVICE].problem
    if problem is not None:
        return web.Response(status=503, text=f"Not healthy: {problem}.\n")
    return web.Response(text="Healthy.\n")


async def _ready(request: web.Request) -> web.Response:
    if request.app[_SERVICE].is_ready:
        return web.Response(text="Ready.\n")
    return web.Response(status=503, text="Not ready: the first round of polls is not over.\n")


async def _reload(request: web.Request) -> web.Response:
    if request.method != "POST":
        allow = {"Allow": "POST"}
        return web.Response(status=405, headers=allow, text="Use POST to reload.\n")
    reload = request.app[_RELOAD]
    if reload is None:
        text = "Reloading is not enabled: start with --web.enable-lifecycle, or send SIGHUP.\n"
        return web.Response(status=403, text=text)
    try:
        # Whoever asked may go away: what was begun comes to its end.
        await asyncio.shield(reload())
    except ConfigError as error:
        text = "\n".join(("The old configuration is still in force:", *error.problems, ""))
        return web.Response(status=500, text=text)
    return web.Response(text="Reloaded.\n")
