"""One connection: which clients may have it, and its timeouts.

It stands between asyncio and aiohttp, which limits neither how long a request takes to arrive nor
how long a client leaves its answer unread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from exporter.web.server.limits import Limits
from exporter.web.server.tls import alternative_names

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """Passes everything on to aiohttp's handler, until a deadline passes.

    There is a deadline while a request arrives and while the connection is idle. While a request
    is answered, the handler has its own. A connection that misses it is aborted with its unsent
    bytes, because a client that reads nothing would keep them in memory for ever.
    """

    def __init__(
        self,
        handler: web.RequestHandler,
        limits: Limits,
        on_lost: Callable[[], None],
        allowed_sans: frozenset[str] | None = None,
    ) -> None:
        """`on_lost`: called once, when an established connection is closed.

        `allowed_sans`: a client's certificate must have one of them; None: any certificate will do.
        """
        self._handler = handler
        self._limits = limits
        self._on_lost = on_lost
        self._allowed_sans = allowed_sans
        self.was_made = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._passes_on = False
        self._answering = 0
        self._arrived = 0  # bytes of the request that is arriving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, or refuse the client."""
        assert isinstance(transport, asyncio.Transport)
        self.was_made = True
        self._transport = transport
        if not self._is_allowed(transport):
            log.info(
                "client refused: its certificate has none of client_allowed_sans",
                extra={"client": transport.get_extra_info("peername")},
            )
            transport.abort()
            return
        self._set_deadline(self._limits.header_timeout)
        self._passes_on = True
        self._handler.connection_made(transport)

    def _is_allowed(self, transport: asyncio.Transport) -> bool:
        if self._allowed_sans is None:
            return True
        certificate = transport.get_extra_info("ssl_object").getpeercert()
        return not self._allowed_sans.isdisjoint(alternative_names(certificate))

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline and tell the handler."""
        self._set_deadline(None)
        self._transport = None
        self._on_lost()
        if self._passes_on:
            self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on a part of a request; abort if its headers are too long."""
        if not self._passes_on:
            return
        if not self._answering:
            if not self._arrived:
                self._set_deadline(self._limits.header_timeout)
            self._arrived += len(data)
            if self._arrived > self._limits.header_bytes:
                self._cut_off()
                return
        self._handler.data_received(data)

    def eof_received(self) -> None:
        """The client sends nothing more, so the connection is closed."""
        if self._passes_on:
            self._handler.eof_received()

    def pause_writing(self) -> None:
        """The send buffer is full."""
        if self._passes_on:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        """The send buffer has room again."""
        if self._passes_on:
            self._handler.resume_writing()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """A whole request has arrived and is being answered."""
        self._answering += 1
        self._arrived = 0
        self._set_deadline(None)
        try:
            yield
        finally:
            self._answering -= 1
            self._set_deadline(self._limits.idle_timeout)

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None and self._transport is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self._cut_off)

    def _cut_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def connection_of(request: web.Request) -> Connection | None:
    """The connection of a request; None where it is already closed."""
    transport = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    return protocol if isinstance(protocol, Connection) else None
