"""GET requests to one origin, over HTTP/1.1 connections that stay open.

A client that can do everything takes as much CPU for a request as all the rest of a poll together;
docs/performance.md has the figures.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from exporter.batch.connection import Answer, Connection, Unanswered
from exporter.batch.proxy import Proxy

MAX_IDLE = 15.0
"""Seconds for which a connection that nobody uses is kept. Some load balancers drop silent ones."""

HAPPY_EYEBALLS_DELAY = 0.25
"""Seconds until another of a host's addresses is tried beside the first (RFC 8305)."""

_ILLEGAL = re.compile(r"[^\x20-\x7e]")
_ILLEGAL_IN_TARGET = re.compile(r"[^\x21-\x7e]")


class Client:
    """Sends requests to one origin.

    `origin`: scheme, host and port, as in a URL. `proxy`: by which an https origin is reached.
    """

    def __init__(self, origin: str, proxy: Proxy | None = None) -> None:
        parts = urlsplit(origin)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._head = f"Host: {parts.netloc}\r\nAccept-Encoding: gzip\r\n"
        self._proxy = proxy if self._tls else None
        self._idle: list[Connection] = []

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """The answer to a request for an URL of this origin, whatever its status.

        OSError where there is none. ValueError where it is longer than may be, or where what would
        be sent is no request.
        """
        request = self._request(url, headers)
        connection = self._take_idle()
        if connection is not None:
            try:
                return await self._exchange(connection, request)
            except Unanswered:
                pass  # it was closed over there while it was idle
        return await self._exchange(await self._connect(), request)

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # it is then that they are gone

    def _request(self, url: str, headers: Mapping[str, str]) -> bytes:
        path = url.partition("://")[2].partition("#")[0].partition("/")[2]
        if _ILLEGAL_IN_TARGET.search(path) or _ILLEGAL.search("".join(headers.values())):
            raise ValueError("there is a character that may not stand in a request")
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return f"GET /{path} HTTP/1.1\r\n{self._head}{lines}\r\n".encode("ascii")

    async def _exchange(self, connection: Connection, request: bytes) -> Answer:
        try:
            answer = await connection.exchange(request)
        except BaseException:
            connection.abort()
            raise
        if connection.is_reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    def _take_idle(self) -> Connection | None:
        """The one that was used last; so those that are too many grow old."""
        idle = self._idle
        oldest = asyncio.get_running_loop().time() - MAX_IDLE
        while idle and idle[0].idle_since < oldest:
            idle.pop(0).abort()
        while idle:
            connection = idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connect(self) -> Connection:
        proxy, tls = self._proxy, self._tls
        host, port = self._host, self._port
        if proxy is not None:
            host, port, tls = proxy.host, proxy.port, tls if proxy.is_tls else None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            *(Connection, host, port),
            ssl=tls,
            happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY,
        )
        if proxy is not None and self._tls is not None:
            try:
                await connection.tunnel(proxy, self._host, self._port, self._tls)
            except BaseException:
                connection.abort()
                raise
        return connection
