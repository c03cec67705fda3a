"""The HTTP server: /metrics, health, and a page that says what this is.

Nothing here asks Azure anything: a scrape gets what the polls have left.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from html import escape
from itertools import islice

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

import exporter
from exporter.errors import ConfigError
from exporter.exposition import gzip_parts
from exporter.failures import LATEST
from exporter.service import Service
from exporter.web.auth import BasicAuth
from exporter.web.config_file import CurrentSettings, Settings
from exporter.web.connection import connection_of
from exporter.web.limits import InFlight, Limits, RateLimiter
from exporter.web.negotiation import accepts_gzip, choose_format
from exporter.web.sending import InParts

_SERVICE = web.AppKey("service", Service)
_TURN = web.AppKey("turn", asyncio.Lock)
"""Whose turn it is to make a body: one at a time, so that polls have their turns in between."""

_LARGE = 1024 * 1024
"""Bytes of a body from which on it is compressed in a thread; up to it that takes some 10 ms."""


Reload = Callable[[], Awaitable[None]]
"""Takes over the configuration anew; ConfigError says why that cannot be."""

_RELOAD: web.AppKey[Reload | None] = web.AppKey("reload")


def build_app(
    service: Service,
    telemetry_path: str,
    settings: CurrentSettings = Settings,
    limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
    reload: Reload | None = None,
) -> web.Application:
    """The web application; metrics are at `telemetry_path`.

    `settings`: who may see it. `reload`: None: it is not offered.
    """
    app = web.Application(middlewares=[_while_answering, _guard(settings)])
    app[_SERVICE] = service
    app[_RELOAD] = reload
    app[_TURN] = asyncio.Lock()
    app.on_response_prepare.append(_headers_of(settings))
    limited = _limited(limits)
    app.router.add_get(telemetry_path, limited(_metrics))
    app.router.add_get("/api/v1/failures", limited(_failures))
    app.router.add_get("/-/healthy", _healthy)
    app.router.add_get("/-/ready", _ready)
    app.router.add_route("*", "/-/reload", _reload)
    if telemetry_path != "/":
        page = _landing_page(telemetry_path)

        async def landing(_: web.Request) -> web.Response:
            return web.Response(
                text=page,
                content_type="text/html",
                headers={"Content-Security-Policy": "default-src 'none'"},
            )

        app.router.add_get("/", landing)
    return app


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
                    await response.send(request, limits.write_timeout)
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
        state = service.exposition.body(format_)
        if gzip and not state.is_deflated and state.size > _LARGE:
            await asyncio.to_thread(state.deflate)
        else:
            await asyncio.sleep(0)
        own = service.telemetry.text(format_, state.series)
        parts = gzip_parts(state, own) if gzip else (*state.parts, own)
    return InParts(parts, headers)


async def _failures(request: web.Request) -> web.StreamResponse:
    """The latest failures; `account`, `job_id`, `kind` and `limit` narrow them down."""
    query = request.query
    if unknown := query.keys() - {*_FAILURE_FILTERS, "limit"}:
        return _bad_request(f"unknown parameter: {', '.join(sorted(unknown))}")
    limit = query.get("limit", str(LATEST))
    if not re.fullmatch(r"[0-9]{1,6}", limit):
        return _bad_request(f"limit must be a number, not {limit!r}")
    wanted = {name: query[name] for name in _FAILURE_FILTERS if name in query}
    found = (
        shown
        for each in request.app[_SERVICE].failures.latest()
        if (shown := each.shown).items() >= wanted.items()
    )
    body = json.dumps({"failures": list(islice(found, int(limit)))}).encode()
    return InParts((body,), {"Content-Type": "application/json; charset=utf-8"})


_FAILURE_FILTERS = ("account", "job_id", "kind")


def _bad_request(reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=400)


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


def _landing_page(telemetry_path: str) -> str:
    # Links are relative: they hold behind a proxy that serves us below a path of its own.
    metrics = escape(telemetry_path.lstrip("/"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>azure-batch-exporter</title>
</head>
<body>
<h1>azure-batch-exporter</h1>
<p>Prometheus exporter for Azure Batch. Version {escape(exporter.__version__)}</p>
<ul>
<li><a href="{metrics}">Metrics</a></li>
<li><a href="api/v1/failures">Latest failures</a> (JSON)</li>
<li><a href="-/healthy">Health</a></li>
<li><a href="-/ready">Readiness</a></li>
</ul>
</body>
</html>
"""
