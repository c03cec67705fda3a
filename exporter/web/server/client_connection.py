"""One connection: which clients may have it, its timeouts, and its answers to what is no request.

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
from exporter.web.server.web_config_file import ClientTrust, CurrentSettings

log = logging.getLogger(__name__)

LINGER = 2.0
"""Seconds for a client to read why its request is refused, while it may still be sending it."""


class HttpHandler(web.RequestHandler):
    """aiohttp's, with the configured headers also where a request cannot be parsed."""

    __slots__ = ("_settings",)

    def __init__(
        self, server: web.Server, settings: CurrentSettings, limits: Limits, logger: logging.Logger
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=logger,
            access_log=None,  # type: ignore[arg-type]
            # The connection limits the sum.
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
        )
        self._settings = settings

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request, or where a handler failed."""
        response = super().handle_error(request, status, exc, message)
        response.headers.update(self._settings().headers)
        return response


class Connection(asyncio.Protocol):
    """Passes everything on to aiohttp's handler, until a deadline passes.

    There is a deadline while a request arrives and while the connection is idle. While a request
    is answered, the handler has its own. A connection that misses it is aborted with its unsent
    bytes, because a client that reads nothing would keep them in memory for ever.
    """

    def __init__(
        self,
        handler: web.RequestHandler,
        settings: CurrentSettings,
        trusted: ClientTrust,
        limits: Limits,
        on_lost: Callable[[], None],
    ) -> None:
        """`trusted`: by which rules the client's certificate is verified.

        `on_lost`: called once, when an established connection is closed.
        """
        self._handler = handler
        self._settings = settings
        self._trusted = trusted
        self._limits = limits
        self._on_lost = on_lost
        self.was_made = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._passes_on = False
        self._is_refused = False
        self._answering = 0
        self._arrived = 0  # bytes since a request was last taken up: of the next ones

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
        allowed_sans = self._trusted.allowed_sans
        if allowed_sans is None:
            return True
        certificate = transport.get_extra_info("ssl_object").getpeercert()
        return not allowed_sans.isdisjoint(alternative_names(certificate))

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline and tell the handler."""
        self._set_deadline(None)
        self._transport = None
        self._on_lost()
        if self._passes_on:
            self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on a part of a request, or refuse it if its headers are too long."""
        if not self._passes_on or self._is_refused:
            return
        if not self._answering:
            if self._trusted != self._settings().client_trust:
                # The certificate was verified by rules that hold no more. A client that meets the
                # new ones connects again.
                self._cut_off()
                return
            if not self._arrived:
                self._set_deadline(self._limits.header_timeout)
        self._arrived += len(data)
        if self._arrived > self._limits.header_bytes:
            self._refuse()
            return
        self._handler.data_received(data)

    def _refuse(self) -> None:
        """Tell the client that its request is too large. What it still sends is thrown away.

        To close at once would lose the answer: the client would be reset while it sends.
        """
        assert self._transport is not None
        if self._answering:
            self._cut_off()
            return
        self._is_refused = True
        kib = self._limits.header_bytes // 1024
        text = f"The request line and its header fields have more than {kib} KiB.\n"
        fields = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(text)),
            "Connection": "close",
            **self._settings().headers,
        }
        lines = ["HTTP/1.1 431 Request Header Fields Too Large"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self._transport.write("\r\n".join((*lines, "", text)).encode())
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._set_deadline(LINGER)

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
            limits = self._limits
            self._set_deadline(limits.header_timeout if self._arrived else limits.idle_timeout)

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
