"""Faults of the connection: it breaks, is closed, or nothing comes any more."""

import asyncio

from aiohttp import web

from exporter.simulator.faults.answers import (
    JSON_TYPE,
    body_of,
    chunk,
    close,
    hang,
    head,
    reset,
    send,
)
from exporter.simulator.faults.fault import Fault, fault
from exporter.simulator.operations import Call
from exporter.simulator.server import Proceed

PACE = 1.0
"""Seconds from one byte of a slow body to the next."""

_FLUSH = 0.05
"""Seconds for what was sent to arrive, before a reset that would drop it."""


async def reset_at_once(request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
    """No answer but a TCP reset."""
    return reset(request)


async def _reset_midway(request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
    response = await proceed()
    body = body_of(response)
    if body is None:
        return response
    start = head((JSON_TYPE, ("Content-Length", str(len(body)))))
    await send(request, start, body[: len(body) // 2])
    await asyncio.sleep(_FLUSH)
    return reset(request)


async def _close(request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
    return close(request)


async def _hang(_request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
    return await hang()


async def _hang_in_headers(
    request: web.Request, _call: Call, _proceed: Proceed
) -> web.StreamResponse:
    await send(request, head((JSON_TYPE, ("x-unfinished", "y")))[:-4])
    return await hang()


async def _hang_in_body(request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
    response = await proceed()
    body = body_of(response)
    if body is None:
        return response
    start = head((JSON_TYPE, ("Content-Length", str(len(body)))))
    await send(request, start, body[: len(body) // 2])
    return await hang()


async def _slow(request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
    await send(request, head((JSON_TYPE, ("Transfer-Encoding", "chunked"))), chunk(b"{"))
    while True:
        await asyncio.sleep(PACE)
        await send(request, chunk(b" "))


async def _not_http(request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
    await send(request, b"SSH-2.0-OpenSSH_9.6\r\n")
    return close(request)


CONNECTIONS: tuple[Fault, ...] = (
    fault("connection-reset", "a TCP reset instead of an answer", reset_at_once),
    fault("reset-midway", "a TCP reset after half of the body", _reset_midway),
    fault("closed-without-answer", "closes the connection and says nothing", _close),
    fault("never-answering", "takes the request, and that is all", _hang),
    fault("hanging-headers", "stops in the middle of the headers", _hang_in_headers),
    fault("hanging-body", "stops in the middle of the body", _hang_in_body),
    fault("slow-body", "a byte a second, without end", _slow),
    fault("not-http", "another protocol answers", _not_http),
)
