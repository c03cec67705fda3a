"""Faults of how much is sent, and of what the headers say about the body."""

import gzip
import zlib
from collections.abc import Callable

from aiohttp import web

from exporter.simulator.faults.answers import (
    CLOSE,
    JSON_TYPE,
    body_of,
    chunk,
    close,
    head,
    send,
    with_body,
)
from exporter.simulator.faults.fault import Fault, fault
from exporter.simulator.operations import Call
from exporter.simulator.server import Interceptor, Proceed

HUGE = 70 * 1024 * 1024
BOMB = 210 * 1024 * 1024
RECORDS = 5_500_000
MEMBERS = 1_000_000
TINY_CHUNKS = 500_000
HEADERS = 5_000
LONG_HEADER = 1024 * 1024

_CHUNKED = ("Transfer-Encoding", "chunked")
_GZIP = ("Content-Encoding", "gzip")
_BLANKS = b" " * 65536
"""JSON allows any number of them between its tokens."""


def _raw(parts: Callable[[bytes], tuple[bytes, ...]]) -> Interceptor:
    """Sends the bytes made of the true body, and ends the connection."""

    async def play(request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
        response = await proceed()
        body = body_of(response)
        if body is None:
            return response
        await send(request, *parts(body))
        return close(request)

    return play


def _encoded(encoding: str, encode: Callable[[bytes], bytes]) -> Interceptor:
    """Says that the body is encoded, which is as true as `encode` makes it."""

    async def play(_request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
        response = await proceed()
        body = body_of(response)
        if body is not None:
            response = with_body(response, encode(body))
            response.headers["Content-Encoding"] = encoding
        return response

    return play


async def _huge(request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
    response = await proceed()
    body = body_of(response)
    if body is None:
        return response
    length = HUGE // len(_BLANKS) * len(_BLANKS) + len(body)
    await send(request, head((JSON_TYPE, ("Content-Length", str(length)), CLOSE)))
    for _ in range(HUGE // len(_BLANKS)):
        await send(request, _BLANKS)
    await send(request, body)
    return close(request)


async def _endless(request: web.Request, _call: Call, _proceed: Proceed) -> web.StreamResponse:
    await send(request, head((JSON_TYPE, _CHUNKED)))
    while True:
        await send(request, chunk(_BLANKS))


async def _bomb(request: web.Request, _call: Call, proceed: Proceed) -> web.StreamResponse:
    response = await proceed()
    body = body_of(response)
    if body is None:
        return response
    packer = zlib.compressobj(6, wbits=31)
    await send(request, head((JSON_TYPE, _GZIP, CLOSE)))
    for _ in range(BOMB // len(_BLANKS)):
        await send(request, packer.compress(_BLANKS))
    await send(request, packer.compress(body), packer.flush())
    return close(request)


def _records(_: bytes) -> bytes:
    return gzip.compress(b'{"value":[' + b"{}," * (RECORDS - 1) + b"{}]}")


def _members(body: bytes) -> bytes:
    """The true answer with one more member, which has many values."""
    values = b",".join([b'{"a":1}'] * MEMBERS)
    return gzip.compress(body[: body.rindex(b"}")] + b',"addedLater":[%s]}' % values)


def _in_tiny_chunks(body: bytes) -> tuple[bytes, ...]:
    blank = chunk(b"  ") * 1000
    return (head((JSON_TYPE, _CHUNKED)), *[blank] * (TINY_CHUNKS // 1000), chunk(body), chunk(b""))


def _with_trailers(body: bytes) -> tuple[bytes, ...]:
    trailers = b"Retry-After: 900\r\nContent-Encoding: gzip\r\nDate: never\r\n"
    return (head((JSON_TYPE, _CHUNKED)), chunk(body), b"0\r\n" + trailers + b"\r\n")


def _continued(body: bytes) -> tuple[bytes, ...]:
    return (head((), "100 Continue"), head((), "103 Early Hints"), *_with_headers(body, ()))


def _corrupt(body: bytes) -> bytes:
    packed = bytearray(gzip.compress(body))
    packed[-8] ^= 0xFF  # the check sum
    packed[len(packed) // 2] ^= 0xFF
    return bytes(packed)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _length(number: int) -> bytes:
    return head((JSON_TYPE, ("Content-Length", str(number))))


def _with_headers(body: bytes, headers: tuple[tuple[str, str], ...]) -> tuple[bytes, ...]:
    return head((JSON_TYPE, *headers, ("Content-Length", str(len(body))), CLOSE)), body


SIZES: tuple[Fault, ...] = (
    fault("huge-body", "70 MB of valid JSON, nearly all of it blanks", _huge),
    fault("endless-body", "blanks without end, as fast as they are taken", _endless),
    fault("gzip-bomb", "200 kB that are 210 MB of valid JSON when unpacked", _bomb),
    fault(
        "record-flood",
        "16 kB that are 5.5 million empty records when unpacked",
        _encoded("gzip", _records),
    ),
    fault(
        "value-flood",
        "10 kB that are the true answer and a member of a million objects when unpacked",
        _encoded("gzip", _members),
    ),
    fault("tiny-chunks", "500,000 chunks of two bytes before the answer", _raw(_in_tiny_chunks)),
    fault("trailers", "headers behind the body, which mean nothing there", _raw(_with_trailers)),
    fault("continued", "100 and 103 before the answer, though nobody asked", _raw(_continued)),
    fault(
        "gzip-in-capitals",
        "gzip, which is called GZIP and a blank",
        _encoded("GZIP ", gzip.compress),
    ),
    fault("not-gzip", "says gzip, and is not", _encoded("gzip", lambda body: body)),
    fault("unknown-encoding", "an encoding that nobody knows", _encoded("zip9", gzip.compress)),
    fault("corrupt-gzip", "gzip with wrong bytes in it", _encoded("gzip", _corrupt)),
    fault(
        "truncated-gzip",
        "the first half of the gzip, as if it were all",
        _encoded("gzip", lambda body: _half(gzip.compress(body))),
    ),
    fault(
        "header-flood",
        "5,000 headers",
        _raw(lambda body: _with_headers(body, tuple((f"x-{n}", "y") for n in range(HEADERS)))),
    ),
    fault(
        "long-header",
        "a header of 1 MB",
        _raw(lambda body: _with_headers(body, (("x-long", "y" * LONG_HEADER),))),
    ),
    fault(
        "chunks-broken-off",
        "closes in the middle of a chunk",
        _raw(lambda body: (head((JSON_TYPE, _CHUNKED)), _half(chunk(body)))),
    ),
    fault(
        "chunk-size-nonsense",
        "a chunk whose size is no number",
        _raw(lambda body: (head((JSON_TYPE, _CHUNKED)), b"many\r\n", body)),
    ),
    fault(
        "length-too-long",
        "Content-Length is 1,000 bytes more than come",
        _raw(lambda body: (_length(len(body) + 1000), body)),
    ),
    fault(
        "length-too-short",
        "Content-Length is half of what comes",
        _raw(lambda body: (_length(len(body) // 2), body)),
    ),
)
