"""A connection over which HTTP/1.1 requests are answered, one after the other.

What arrives was written by others: all of it is bounded, and parsed by llhttp (httptools).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import httptools

from exporter.batch.compression import NotGzip, TooLong, gunzip
from exporter.batch.proxy import Proxy

MAX_HEAD = 32 * 1024
"""Bytes of an answer's headers."""

MAX_BODY = 16 * 1024 * 1024
"""Bytes of an answer's body, decompressed. A page of 1,000 records is about 1.3 MB."""


class BrokenConnection(OSError):
    """The connection ended too early, or what came over it is no HTTP."""


class Unanswered(BrokenConnection):
    """The connection ended before an answer began."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers`: names in lower case; of several of one name the first. `body`: decompressed."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


_ARRIVED = memoryview(bytearray(256 * 1024))
"""Where what arrives is put. All connections share it, for it is parsed before anything else runs;
to allocate as much for each answer takes longer than to parse one."""


class Connection(asyncio.BufferedProtocol):
    """`is_reusable`: whether another request may follow. `idle_since`: time of the event loop. The
    methods that begin with `on_` are called by the parser.
    """

    def __init__(self) -> None:
        self.is_reusable = True
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._is_tunnelling = False
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[Answer] | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Send a request, and wait for the whole answer.

        BrokenConnection where none comes, ValueError where it is longer than may be.
        """
        if self._transport is None:
            raise Unanswered("the connection is closed")
        self._left = MAX_HEAD + MAX_BODY
        self._head_left = MAX_HEAD
        self._reason = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._has_begun = False
        self._ends_with_connection = False
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        answer = await self._waiting
        # Not sooner: answers that come together would all be there decompressed at once.
        return replace(answer, body=_decompressed(answer))

    async def tunnel(self, proxy: Proxy, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Have a proxy connect us to a host, and begin TLS with that."""
        self._is_tunnelling = True
        answer = await self.exchange(proxy.connect_request(host, port))
        if answer.status != 200 or self._transport is None:
            said = f"{answer.status} {answer.reason}"
            raise BrokenConnection(f"the proxy {proxy.host}:{proxy.port} refused: {said}")
        self._is_tunnelling = False
        self._parser = httptools.HttpResponseParser(self)
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, tls, server_hostname=host)

    def abort(self) -> None:
        """Close at once."""
        self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio: it is open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Of asyncio: where to put what comes."""
        return _ARRIVED

    def buffer_updated(self, nbytes: int) -> None:
        """Of asyncio: something came."""
        if not self._is_waiting:
            self.abort()  # nobody asked
            return
        self._has_begun = True
        self._left -= nbytes
        if self._left < 0:
            self._fail(_too_long())
            return
        try:
            self._parser.feed_data(_ARRIVED[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BrokenConnection(f"the answer is no HTTP: {error}"))

    def eof_received(self) -> None:
        """Of asyncio: nothing more will come. It closes the connection now."""

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio: it is closed."""
        self.is_reusable = False
        self._transport = None
        if not self._is_waiting:
            return
        if error is None and self._ends_with_connection:
            self.on_message_complete()
            return
        why = f": {error}" if error else ""
        if self._has_begun:
            self._fail(BrokenConnection(f"the connection ended within an answer{why}"))
        else:
            self._fail(Unanswered(f"the connection ended before an answer{why}"))

    def on_message_begin(self) -> None:
        """An answer begins."""
        if not self._is_waiting:
            self.is_reusable = False  # nobody asked for that one

    def on_status(self, reason: bytes) -> None:
        """What stands behind the status."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or what comes behind a body in pieces."""
        self._head_left -= len(name) + len(value)
        if self._head_left < 0:
            self._fail(BrokenConnection(f"the headers are longer than {MAX_HEAD} bytes"))
        else:
            self._headers.setdefault(_name(name), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """All headers came."""
        status = self._parser.get_status_code()
        if self._is_tunnelling and status == 200:
            self._succeed(b"")
        headers, has_body = self._headers, status >= 200 and status not in (204, 304)
        has_end = "content-length" in headers or "transfer-encoding" in headers
        self._ends_with_connection = has_body and not has_end

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """The whole answer came."""
        if not self._is_waiting:
            return
        if self._parser.get_status_code() < 200:  # there will be another
            self._reason, self._headers = b"", {}
            return
        if self._ends_with_connection or not self._parser.should_keep_alive():
            self.is_reusable = False
        self._succeed(b"".join(self._body))

    @property
    def _is_waiting(self) -> bool:
        return self._waiting is not None and not self._waiting.done()

    def _succeed(self, body: bytes) -> None:
        if self._waiting is not None and not self._waiting.done():
            reason = self._reason.decode("utf-8", "replace")
            status = self._parser.get_status_code()
            self._waiting.set_result(Answer(status, reason, self._headers, body))

    def _fail(self, error: Exception) -> None:
        self.is_reusable = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def _decompressed(answer: Answer) -> bytes:
    encoding, body = answer.headers.get("content-encoding", "identity").lower(), answer.body
    if encoding in ("gzip", "x-gzip"):
        try:
            return gunzip(body, MAX_BODY)
        except NotGzip as error:
            raise BrokenConnection(f"the answer is no gzip: {error}") from error
        except TooLong as error:
            raise _too_long() from error
    if encoding != "identity":
        raise BrokenConnection(f"Content-Encoding {encoding!r} was not asked for")
    if len(body) > MAX_BODY:
        raise _too_long()
    return body


@lru_cache(maxsize=256)  # all answers have the same
def _name(header: bytes) -> str:
    return header.decode("latin-1").lower()


def _too_long() -> ValueError:
    return ValueError(f"the answer is longer than {MAX_BODY} bytes")
