"""Tools of the faults: the true answer taken apart, and answers of which each byte is chosen."""

import asyncio
import gzip
import socket
import struct
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import web

from exporter.simulator.operations import Call

JSON_TYPE = ("Content-Type", "application/json; odata=minimalmetadata")
CLOSE = ("Connection", "close")

_LINGER_NOT = struct.pack("ii", 1, 0)


def body_of(response: web.StreamResponse) -> bytes | None:
    """The JSON text of an answer, decompressed; None where it has none, as a 304."""
    if not isinstance(response, web.Response) or response.status != 200:
        return None
    body = response.body
    if not isinstance(body, bytes):
        return None
    return gzip.decompress(body) if "Content-Encoding" in response.headers else body


def with_body(response: web.StreamResponse, body: bytes) -> web.StreamResponse:
    """The same answer with another body, not compressed."""
    assert isinstance(response, web.Response)
    response.headers.popall("Content-Encoding", None)
    response.body = body
    return response


def url_of(request: web.Request, call: Call) -> str:
    """The URL that was asked for, with its query, as a next link or redirect to it would be."""
    return call.base + request.raw_path


def elsewhere(request: web.Request, call: Call) -> str:
    """The same URL at another origin: under another name of this host.

    Whoever follows it is answered, so that the count of requests gives them away.
    """
    parts = urlsplit(url_of(request, call))
    host = "127.0.0.1" if parts.hostname == "localhost" else "localhost"
    return parts._replace(netloc=f"{host}:{parts.port or 80}").geturl()


def head(headers: Iterable[tuple[str, str]], status: str = "200 OK") -> bytes:
    """Status line and headers, and nothing that is not said."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "\r\n"]).encode()


def chunk(data: bytes) -> bytes:
    """One piece of a body in chunked encoding; the last one is empty."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def send(request: web.Request, *parts: bytes) -> None:
    """Write bytes to the client as they are, no faster than it takes them."""
    for part in parts:
        await request.writer.write(part)
        await asyncio.sleep(0)  # a client that takes all at once leaves no turn to others


def close(request: web.Request) -> web.StreamResponse:
    """End the connection behind what was sent. What is given back is never written."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.Request) -> web.StreamResponse:
    """Break the connection with a TCP reset; what the client has not read yet may be lost."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        request.transport.abort()
    return web.Response()


async def hang() -> web.StreamResponse:
    """Wait until the client gives up or the server shuts down: both cancel this."""
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never
