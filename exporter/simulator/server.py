"""The simulated account behind HTTP, as the service's REST API answers."""

import gzip
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from random import Random
from uuid import uuid4

from aiohttp import web

from exporter.simulator import ticks
from exporter.simulator.clock import Clock
from exporter.simulator.error_answers import BatchError, condition_not_met, unsupported_verb
from exporter.simulator.operations import WITH_HEAD, Answer, Call, Operations, find_operation
from exporter.simulator.paging import TokenMint
from exporter.simulator.query import parameters_of
from exporter.simulator.signatures import (
    Account,
    Authenticator,
    SignedRequest,
    TokenRegistry,
    make_account,
)
from exporter.simulator.wire import error_body
from exporter.simulator.world import World

Proceed = Callable[[], Awaitable[web.StreamResponse]]
"""Answers the call as the world has it, or raises BatchError."""

Interceptor = Callable[[web.Request, Call, Proceed], Awaitable[web.StreamResponse]]
"""Stands between a checked request and its answer, to play faults: it may wait, raise BatchError,
close the connection, answer by itself, or change what `proceed` gives."""

TIME: web.AppKey[Callable[[], datetime]] = web.AppKey("time")
"""Under this key the application has what the header Date is from."""

REQUESTS: web.AppKey[Counter[str]] = web.AppKey("requests", Counter)
"""Under this key the application counts its requests by operation."""

_CONTENT_TYPE = "application/json; odata=minimalmetadata"
_LEAST_TO_COMPRESS = 4096  # bytes: below, compressing costs more than it saves


@dataclass(frozen=True)
class Simulation:
    """A served account: where it is, how to sign for it, and what was asked of it."""

    endpoint: str
    account_name: str
    account_key: str
    world: World
    clock: Clock
    tokens: TokenRegistry
    requests: Counter[str]


def utc_now() -> datetime:
    """Real time, aware."""
    return datetime.now(UTC)


def service_time(request: web.Request) -> datetime:
    """What the service's clock says, aware."""
    return request.config_dict[TIME]()


def build_app(
    world: World,
    clock: Clock,
    account: Account,
    tokens: TokenRegistry | None = None,
    interceptors: Sequence[Interceptor] = (),
    routes: Sequence[web.RouteDef] = (),
    *,
    simulated_date: bool = False,
) -> web.Application:
    """The account's application.

    `tokens` are the bearer tokens it takes beside SharedKey; the first of the `interceptors`
    stands outermost. Requests of the `routes` never reach the account. `simulated_date`: the
    header Date is of the account's time, so that nothing lies in the future; else of real time.
    """
    time = clock.now if simulated_date else utc_now
    operations = Operations(world, TokenMint(account.key.encode()), Random(f"orders {world.seed}"))
    authenticator = Authenticator(
        account, tokens or TokenRegistry(utc_now), lambda: (utc_now(), time())
    )
    requests: Counter[str] = Counter()

    def date() -> str:
        return format_datetime(world.now if simulated_date else time(), usegmt=True)

    async def answer(request: web.Request, call: Call) -> web.StreamResponse:
        async def proceed() -> web.StreamResponse:
            response = _respond(request, operations.answer(call))
            # Now: while a fault holds it back, the account may go on.
            response.headers["Date"] = date()
            return response

        chain: Proceed = proceed
        for interceptor in reversed(interceptors):
            chain = partial(interceptor, request, call, chain)
        return await chain()

    async def handle(request: web.Request) -> web.StreamResponse:
        world.advance(clock.now())
        request_id = str(uuid4())
        base = f"{_scheme(request)}://{request.host}"
        try:
            response = await answer(request, _checked(request, base, authenticator, requests))
        except BatchError as error:
            body = error_body(error, base, request_id, world.tick)
            response = web.Response(body=body.encode(), status=error.status)
            response.headers.extend(error.headers)
            response.headers["Content-Type"] = _CONTENT_TYPE
        response.headers.setdefault("Date", date())
        if not response.prepared:  # an interceptor may have sent its own already
            _add_common_headers(request, response, request_id)
        return response

    app = web.Application()
    app[TIME] = time
    app[REQUESTS] = requests
    app.router.add_routes(routes)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def _scheme(request: web.Request) -> str:
    """How the client came; behind a proxy that ends TLS only that knows."""
    said = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
    return said if said in {"http", "https"} else request.scheme


def _checked(
    request: web.Request, base: str, authenticator: Authenticator, requests: Counter[str]
) -> Call:
    """The call that the request makes; BatchError where it may not or cannot."""
    raw_path, _, raw_query = request.raw_path.partition("?")
    operation, refused = "unknown", None
    ids: tuple[str, ...] = ()
    try:
        operation, ids = find_operation(raw_path)
    except BatchError as error:
        refused = error
    requests[operation] += 1
    headers = {name.lower(): value for name, value in request.headers.items()}
    authenticator.check(SignedRequest(request.method, raw_path, raw_query, headers))
    may_be_head = operation in WITH_HEAD
    if request.method != "GET" and not (request.method == "HEAD" and may_be_head):
        raise unsupported_verb(request.method, allowed="GET, HEAD" if may_be_head else "GET")
    if refused is not None:
        raise refused
    return Call(operation, ids, base, base + raw_path, parameters_of(raw_query))


def _respond(request: web.Request, answer: Answer) -> web.Response:
    headers = {}
    if answer.modified is not None and answer.entity_url is not None:
        headers["ETag"] = ticks.etag(answer.modified)
        headers["Last-Modified"] = _http_date(answer.modified)
        headers["DataServiceId"] = answer.entity_url
        if not _changed(request, answer.modified):
            return web.Response(status=304, headers=headers)
    body = answer.body.encode()
    headers["Content-Type"] = _CONTENT_TYPE
    accepted = request.headers.get("Accept-Encoding", "")
    if len(body) >= _LEAST_TO_COMPRESS and "gzip" in accepted:
        body = gzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    response = web.Response(body=body, headers=headers)
    if request.method != "HEAD":
        response.enable_chunked_encoding()
    return response


def _changed(request: web.Request, modified: int) -> bool:
    """Whether to send the entity; 412 where the request's condition does not hold."""
    current = ticks.etag(modified)
    wanted = _tags(request, "If-Match")
    if wanted and not wanted & {current, "*"}:
        raise condition_not_met()
    until = _date(request, "If-Unmodified-Since")
    whole = modified // ticks.SECOND * ticks.SECOND  # the header has whole seconds
    if until is not None and whole > until:
        raise condition_not_met()
    if _tags(request, "If-None-Match") & {current, "*"}:
        return False
    since = _date(request, "If-Modified-Since")
    return since is None or whole > since


def _tags(request: web.Request, header: str) -> set[str]:
    parts = request.headers.get(header, "").split(",")
    return {tag for part in parts if (tag := part.strip().removeprefix("W/").strip('"'))}


def _date(request: web.Request, header: str) -> int | None:
    text = request.headers.get(header)
    if text is None:
        return None
    try:
        return ticks.from_datetime(parsedate_to_datetime(text).astimezone(UTC))
    except ValueError:
        values = (("HeaderName", header), ("HeaderValue", text))
        raise BatchError(
            400, "InvalidHeaderValue", "The value of a header is not in the correct format.", values
        ) from None


def _http_date(tick: int) -> str:
    return format_datetime(ticks.to_datetime(tick).replace(microsecond=0), usegmt=True)


def _add_common_headers(
    request: web.Request, response: web.StreamResponse, request_id: str
) -> None:
    headers = response.headers
    headers["request-id"] = request_id
    client_id = request.headers.get("client-request-id")
    if client_id and request.headers.get("return-client-request-id", "").lower() == "true":
        headers["client-request-id"] = client_id
    headers["DataServiceVersion"] = "3.0"
    headers["Server"] = "Microsoft-HTTPAPI/2.0"
    headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    headers["X-Content-Type-Options"] = "nosniff"


@asynccontextmanager
async def serve_app(
    app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve an application while the context lasts; gives its URL. Port 0 takes any free one."""
    # Whoever hangs up is not answered any more: a fault that never answers would wait for ever.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        bound = runner.addresses[0][1]
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve(
    world: World,
    clock: Clock,
    *,
    account: Account | None = None,
    tokens: TokenRegistry | None = None,
    interceptors: Sequence[Interceptor] = (),
    routes: Sequence[web.RouteDef] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    simulated_date: bool = False,
) -> AsyncIterator[Simulation]:
    """Serve the account while the context lasts; its key follows from the world's seed.

    `simulated_date`: as of `build_app`.
    """
    account = account or make_account(world.seed)
    tokens = tokens or TokenRegistry(utc_now)
    app = build_app(
        world, clock, account, tokens, interceptors, routes, simulated_date=simulated_date
    )
    async with serve_app(app, host, port, tls) as endpoint:
        yield Simulation(endpoint, account.name, account.key, world, clock, tokens, app[REQUESTS])
