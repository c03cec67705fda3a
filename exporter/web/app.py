"""The HTTP server: /metrics, health, and a page that says what this is.

Nothing here asks Azure anything: a scrape gets what the polls have left.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from html import escape
from itertools import islice

from aiohttp import web

import exporter
from exporter.errors import ConfigError
from exporter.exposition import gzip_body
from exporter.failures import LATEST
from exporter.service import Service
from exporter.web.negotiation import accepts_gzip, choose_format

_SERVICE = web.AppKey("service", Service)


Reload = Callable[[], Awaitable[None]]
"""Takes over the configuration anew; ConfigError says why that cannot be."""

_RELOAD: web.AppKey[Reload | None] = web.AppKey("reload")


def build_app(
    service: Service, telemetry_path: str, reload: Reload | None = None
) -> web.Application:
    """The web application; metrics are at `telemetry_path`. `reload`: None: it is not offered."""
    app = web.Application(middlewares=[_no_sniffing])
    app[_SERVICE] = service
    app[_RELOAD] = reload
    app.router.add_get(telemetry_path, _metrics)
    app.router.add_get("/api/v1/failures", _failures)
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
async def _no_sniffing(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers["X-Content-Type-Options"] = "nosniff"
        raise
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def _metrics(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    # A header may stand several times: together they are one list.
    format_, content_type = choose_format(",".join(request.headers.getall("Accept", [])))
    state = service.exposition.body(format_)
    own = service.telemetry.text(format_, state.series)
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if accepts_gzip(",".join(request.headers.getall("Accept-Encoding", []))):
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=gzip_body(state, own), headers=headers)
    return web.Response(body=state.plain + own, headers=headers)


async def _failures(request: web.Request) -> web.Response:
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
    return web.json_response({"failures": list(islice(found, int(limit)))})


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


class Listening:
    """A server that listens. `urls`: where, one for each address."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URL of each listening socket."""
        return tuple(
            f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            for host, port, *_ in self._runner.addresses
        )

    async def close(self) -> None:
        """Let answers that are under way finish, then stop."""
        await self._runner.cleanup()


async def listen(app: web.Application, addresses: tuple[tuple[str | None, int], ...]) -> Listening:
    """Serve `app` on each (host, port); None: all interfaces. OSError where one cannot be had."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0, handle_signals=False)
    await runner.setup()
    try:
        for host, port in addresses:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
    except OSError:
        await runner.cleanup()
        raise
    return Listening(runner)
