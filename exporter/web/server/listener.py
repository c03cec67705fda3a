"""The listening sockets.

Connections are accepted here, not by asyncio, so that each gets the current certificates and so
that their number is limited.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from exporter.web.server.client_connection import Connection, HttpHandler
from exporter.web.server.limits import Limits
from exporter.web.server.unix_socket import UnixSocket
from exporter.web.server.web_config_file import CurrentSettings, Settings

log = logging.getLogger(__name__)

Address = tuple[str | None, int] | Path | socket.socket
"""Host (None: all interfaces) and port, the path of a Unix socket, or a socket that listens."""

_BACKLOG = 1024
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""File descriptors for everything else, mostly connections of polls."""
_SHUTDOWN_TIMEOUT = 1.5
"""Seconds for running answers when the process stops. aiohttp waits this long twice."""


class Listening:
    """A server that listens. `urls`: where, one for each socket."""

    def __init__(
        self,
        runner: web.AppRunner,
        sockets: tuple[socket.socket, ...],
        settings: CurrentSettings,
        limits: Limits,
    ) -> None:
        self._runner = runner
        self._sockets = sockets
        self._settings = settings
        self._limits = limits
        self._open = 0
        self._is_full = False
        scheme = "http" if settings().context is None else "https"
        self.urls = tuple(_url(scheme, each) for each in sockets)
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        for each in sockets:
            each.setblocking(False)
            self._watch(each)

    @property
    def connections(self) -> int:
        """How many are open, including those in their TLS handshake."""
        return self._open

    async def close(self) -> None:
        """Let running answers finish, then stop."""
        self._is_closed = True
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        await asyncio.sleep(0)  # a task that never began would leave its socket open
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await self._runner.cleanup()

    def _watch(self, listening: socket.socket) -> None:
        if not self._is_closed:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept one connection. The event loop does other work before it accepts the next."""
        try:
            client, _ = listening.accept()
        except OSError as error:
            # The client may have gone. If files have run out, try again in a second.
            if error.errno in _OUT_OF_FILES:
                log.error("no connection can be accepted: %s", error.strerror)
                self._loop.remove_reader(listening)
                self._loop.call_later(1.0, self._watch, listening)
            return
        if self._open >= self._limits.connections:
            client.close()
            if not self._is_full:
                self._is_full = True
                log.warning("too many connections are open", extra={"connections": self._open})
            return
        client.setblocking(False)
        self._open += 1
        task = self._loop.create_task(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, client: socket.socket) -> None:
        """Hand a connection to aiohttp, after its TLS handshake."""
        server = self._runner.server
        assert server is not None
        settings = self._settings()
        handler = HttpHandler(server, self._settings, self._limits, _http_log)
        connection = Connection(
            handler, self._settings, settings.client_trust, self._limits, self._lost
        )
        timeout = self._limits.header_timeout if settings.context is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                client,
                ssl=settings.context,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=timeout,
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("TLS handshake failed: %s", error)
        finally:
            if not connection.was_made:
                self._lost()

    def _lost(self) -> None:
        self._open -= 1
        if self._open <= self._limits.connections // 2:
            self._is_full = False  # the next time is logged again


def _url(scheme: str, listening: socket.socket) -> str:
    """`http://host:port`, or `unix:/path`."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}".replace("\0", "@")  # the abstract namespace
    host, port, *_ = name
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _NoClientMistakes(logging.Filter):
    """Drops the stack trace that aiohttp logs for each request that is not HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged."""
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_http_log = logging.getLogger("exporter.web.http")
_http_log.addFilter(_NoClientMistakes())


async def listen(
    app: web.Application,
    addresses: Iterable[Address],
    settings: CurrentSettings = Settings,
    limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
) -> Listening:
    """Serve `app` on each address. OSError where one cannot be bound."""
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            if isinstance(address, socket.socket):
                sockets.append(address)
            elif isinstance(address, Path):
                sockets.append(_bind_unix(address))
            else:
                await _bind(*address, sockets)
    except OSError:
        for each in sockets:
            each.close()
        raise
    runner = web.AppRunner(app, shutdown_timeout=_SHUTDOWN_TIMEOUT, handle_signals=False)
    await runner.setup()
    return Listening(runner, tuple(sockets), settings, limits)


def _bind_unix(path: Path) -> socket.socket:
    try:
        return UnixSocket(path, _BACKLOG)
    except OSError as error:
        number, reason = error.errno, (error.strerror or str(error)).lower()
        if number == errno.EADDRINUSE:
            number, reason = errno.EEXIST, "something is there: remove it, or name another path"
        raise OSError(number, f"cannot listen on unix:{path}: {reason}") from error


async def _bind(host: str | None, port: int, sockets: list[socket.socket]) -> None:
    """Add listening sockets for all addresses of a host to `sockets`."""
    try:
        if host is None:
            sockets.append(_bind_all_interfaces(port))
            return
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, address in dict.fromkeys((family, address) for family, *_, address in found):
            sockets.append(socket.create_server(address, family=family, backlog=_BACKLOG))
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0].lower()
        where = f"{host or ''}:{port}"
        raise OSError(error.errno, f"cannot listen on {where}: {reason}") from error


def _bind_all_interfaces(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    # Without a host, all interfaces are intended.
    return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104
