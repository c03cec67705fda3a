"""The HTTP server: /metrics, health, the JSON API and the pages for people.

Nothing here asks Azure anything: a scrape gets what the polls have left.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from importlib import resources
from itertools import chain

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from exporter.config.problems import ConfigError
from exporter.web import api, pages
from exporter.web.api import models
from exporter.web.api.endpoints import OPERATIONS, Operation
from exporter.web.api.parameters import Refusal, parse
from exporter.web.backend import Backend
from exporter.web.server.basic_auth import BasicAuth, TooManyPasswords
from exporter.web.server.browsers import is_allowed_host, is_cross_site
from exporter.web.server.client_connection import connection_of
from exporter.web.server.limits import Limits, RateLimiter
from exporter.web.server.negotiation import accepts_gzip, choose_format
from exporter.web.server.sending import InParts
from exporter.web.server.web_config_file import CurrentSettings, Settings

_LARGE = 1024 * 1024
"""Bytes of a body from which on a thread makes it; a smaller one takes less than a millisecond."""

_JSON = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}

HEALTHY, READY = "/-/healthy", "/-/ready"
PROBES = (HEALTHY, READY)

Reload = Callable[[], Awaitable[None]]
"""Takes over the configuration anew; ConfigError says why that cannot be."""


def build_app(
    service: Backend,
    telemetry_path: str,
    settings: CurrentSettings = Settings,
    limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
    reload: Reload | None = None,
    docs_url: str = "",
    allowed_hosts: Collection[str] = (),
    auth: BasicAuth | None = None,
) -> web.Application:
    """The web application; metrics are at `telemetry_path`.

    `settings`: who may see it. `reload`: None: it is not offered. `docs_url`: where the files
    of the project can be read; "": the pages do not link to them. `allowed_hosts`: host names by
    which clients may ask; empty: all. `auth`: checks the passwords.
    """
    handlers = _Handlers(service, settings, limits, reload, allowed_hosts, auth or BasicAuth())
    app = web.Application(middlewares=[_while_answering, handlers.guard])
    app.on_response_prepare.append(handlers.set_headers)
    app.on_cleanup.append(handlers.close)
    description = resources.files(api).joinpath("openapi.json").read_bytes()
    limited: dict[str, Handler] = {
        telemetry_path: handlers.metrics,
        **{each.path: partial(handlers.json, each) for each in OPERATIONS},
        "/api/v1/openapi.json": partial(_file, description, _JSON),
    }
    if telemetry_path != "/":
        links = pages.Links(telemetry_path, docs_url.rstrip("/"))
        limited |= {path: partial(handlers.page, show, links) for path, show in pages.PAGES.items()}
        for file in pages.STATIC.values():
            # The path has a digest of the content, which therefore never changes.
            headers = {
                "Content-Type": file.content_type,
                "Cache-Control": "public, max-age=31536000, immutable",
            }
            limited[f"/{file.path}"] = partial(_file, file.content, headers)
    for path, handler in limited.items():
        app.router.add_get(path, partial(handlers.limited, handler))
    app.router.add_get(HEALTHY, handlers.healthy)
    app.router.add_get(READY, handlers.ready)
    app.router.add_route("*", "/-/reload", handlers.reload)
    app.router.add_route("*", "/-/forget-group", handlers.forget_group)
    return app


@web.middleware
async def _while_answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    connection = connection_of(request)
    with connection.answering() if connection is not None else nullcontext():
        return await handler(request)


async def _file(content: bytes, headers: dict[str, str], _: web.Request) -> web.StreamResponse:
    return InParts((content,), headers)


class _Handlers:
    """Answers the requests for one service."""

    def __init__(
        self,
        service: Backend,
        settings: CurrentSettings,
        limits: Limits,
        reload: Reload | None,
        allowed_hosts: Collection[str],
        auth: BasicAuth,
    ) -> None:
        self._service = service
        self._settings = settings
        self._limits = limits
        self._reload = reload
        self._allowed_hosts = frozenset(each.lower() for each in allowed_hosts)
        self._auth = auth
        self._rate = RateLimiter()
        self._free = asyncio.Semaphore(limits.max_requests or sys.maxsize)
        # Large bodies are compressed in a thread of the web server's own: name resolution,
        # passwords and the configuration have theirs, and cannot delay a scrape.
        self._thread = ThreadPoolExecutor(1, "bodies")
        # One body and one view at a time: between two of them the event loop has time for polls,
        # and many who look do not delay the scrapes.
        self._body_lock = asyncio.Lock()
        self._view_lock = asyncio.Lock()

    async def close(self, _: web.Application) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in what is within the rate limit, of no hostile website, and has credentials.

        Probes are always let in: a flood that holds them up would have the process restarted.
        """
        if request.path in PROBES:
            return await handler(request)
        config = self._settings().config
        if not self._rate.allow(config.rate_limit):
            return web.Response(status=429, text="Too many requests.\n")
        if not is_allowed_host(request.headers.get("Host", ""), self._allowed_hosts):
            return web.Response(status=421, text="No --web.allowed-host has this host name.\n")
        if is_cross_site(request.method, request.headers):
            return web.Response(status=403, text="Requests of other sites are refused.\n")
        authorization = request.headers.get("Authorization", "")
        try:
            is_allowed = await self._auth.allows(
                config.basic_auth_users, authorization, request.remote or ""
            )
        except TooManyPasswords:
            text = "Too many passwords are being checked.\n"
            return web.Response(status=429, text=text, headers={"Retry-After": "1"})
        if not is_allowed:
            headers = {"WWW-Authenticate": "Basic"}
            return web.Response(status=401, text="Unauthorized.\n", headers=headers)
        return await handler(request)

    async def set_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        """Set the headers of every answer."""
        response.headers.update(self._settings().headers)

    async def limited(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        """Send what a handler answers; 503 while too many requests are answered."""
        if self._free.locked():
            return web.Response(status=503, text="Too many requests are being answered.\n")
        async with self._free:
            response = await handler(request)
            if isinstance(response, InParts):
                await response.send(request, self._limits)
            return response

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """The exposition of the state and the exporter's own metrics."""
        # A header may stand several times: together they are one list.
        accept, encodings = (
            ",".join(request.headers.getall(name, [])) for name in ("Accept", "Accept-Encoding")
        )
        format_, content_type = choose_format(accept)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        gzip, scrapes = accepts_gzip(encodings), self._service.scrapes
        if gzip:
            headers["Content-Encoding"] = "gzip"
        async with self._body_lock:
            await asyncio.sleep(0)
            taken_at = scrapes.now()
            state = self._service.exposition.body(format_)
            own = self._service.own_metrics(format_, state.series)
            parts: Iterable[bytes]
            if not gzip:
                parts = chain(state.parts(), (own,))
            elif state.size > _LARGE:
                loop = asyncio.get_running_loop()
                parts = await loop.run_in_executor(self._thread, state.gzip, own)
            else:
                parts = state.gzip(own)
        client = (request.remote or "", request.headers.get("User-Agent", ""))
        on_sent = partial(scrapes.note, client, taken_at)
        parts = parts if state.size > _LARGE else tuple(parts)
        return InParts(parts, headers, on_sent=on_sent)

    async def json(self, operation: Operation, request: web.Request) -> web.StreamResponse:
        """The answer of an operation, or why there is none."""
        view: models.View
        try:
            values = parse(request.query, operation.parameters)
            async with self._view_lock:
                view, status = await operation.answer(self._service, values), 200
        except Refusal as error:
            view, status = models.Error(str(error)), error.status
        return InParts((msgspec.json.encode(view),), _JSON, status)

    async def page(
        self, show: pages.Page, links: pages.Links, request: web.Request
    ) -> web.StreamResponse:
        """A page, or a page that says why there is none."""
        try:
            async with self._view_lock:
                text, status = await show(self._service, request.query, links), 200
        except Refusal as error:
            text, status = pages.refused(error, links), error.status
        return InParts((text.encode("utf-8", "replace"),), pages.HEADERS, status)

    async def healthy(self, _: web.Request) -> web.Response:
        """Whether the process works."""
        problem = self._service.problem
        if problem is not None:
            # Nobody was asked for a password: where there is one, the status has to do.
            is_public = not self._settings().config.basic_auth_users
            text = f"Not healthy: {problem}.\n" if is_public else "Not healthy.\n"
            return web.Response(status=503, text=text)
        return web.Response(text="Healthy.\n")

    async def ready(self, _: web.Request) -> web.Response:
        """Whether the first round of polls is over."""
        if self._service.is_ready:
            return web.Response(text="Ready.\n")
        return web.Response(status=503, text="Not ready: the first round of polls is not over.\n")

    async def reload(self, request: web.Request) -> web.Response:
        """Take over the configuration anew."""
        cure = "Reloading is not enabled: start with --web.enable-lifecycle, or send SIGHUP.\n"
        if self._reload is None or request.method != "POST":
            return self._refused(request, "reload", cure)
        try:
            # Whoever asked may go away: what was begun comes to its end.
            await asyncio.shield(self._reload())
        except ConfigError as error:
            text = "\n".join(("The old configuration is still in force:", *error.problems, ""))
            return web.Response(status=500, text=text)
        return web.Response(text="Reloaded.\n")

    async def forget_group(self, request: web.Request) -> web.Response:
        """Forget the counters of a group that has no jobs, also in the state file."""
        cure = "Forgetting is not enabled: start with --web.enable-lifecycle.\n"
        if self._reload is None or request.method != "POST":
            return self._refused(request, "forget a group", cure)
        account, group = (request.query.get(name, "") for name in ("account", "job_group"))
        store = self._service.store
        known = store.accounts.get(account)
        if known is None or group not in known.groups:
            text = f"No group {group!r} in account {account!r}: name both, as in the labels.\n"
            return web.Response(status=404, text=text)
        if group in known.living_groups:
            text = "The group has jobs: they would make it again.\n"
            return web.Response(status=409, text=text)
        store.forget_group(account, group)
        await asyncio.shield(store.all_saved())
        return web.Response(text="Forgotten.\n")

    def _refused(self, request: web.Request, what: str, cure: str) -> web.Response:
        if request.method != "POST":
            return web.Response(
                status=405, headers={"Allow": "POST"}, text=f"Use POST to {what}.\n"
            )
        return web.Response(status=403, text=cure)
