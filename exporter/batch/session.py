"""GET requests to one origin, by aiohttp.

Each part of an answer has a limit. Every error of aiohttp becomes an OSError or a ValueError here;
nothing above knows aiohttp.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from exporter.batch.gunzip import gunzip
from exporter.batch.resolver import NameResolver
from exporter.config import redaction

MAX_HEADER = 32 * 1024
"""Bytes of the status line, and of each header."""

MAX_BODY = 16 * 1024 * 1024
"""Bytes of a body, compressed and decompressed. A page of 1,000 records is about 1.3 MB."""

LARGE_GZIP = 4 * 1024
"""Bytes. A longer body is decompressed in a thread: it may be a thousand times as long."""

MAX_CHUNKS = 10_000
"""Chunks of a body. One of two bytes costs seven on the wire, and more time than 100 others."""

THREADS = ThreadPoolExecutor(2, "answers")
"""For large answers. Few, because each thread keeps the memory of the largest one."""

MAX_CONNECTIONS = 256
"""Connections of one account. `max_concurrency` cannot be larger."""

KEEP_ALIVE = 15.0
"""Seconds for which an idle connection is kept. Some load balancers drop idle ones."""

DNS_TTL = 60
"""Seconds for which the addresses of a name are cached."""

_ILLEGAL = re.compile(r"[^\x21-\x7e]")


class ProxyError(ConnectionError):
    """The proxy cannot be reached, or refuses. `status`: its answer's; 0: there is none."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers`: names in any case; the first one of a repeated name. `body`: decompressed."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes | bytearray


class Session:
    """Sends requests to one origin, over connections that are kept open.

    Create it in a running event loop. `origin`: scheme, host and port, as in a URL. `proxy`: used
    for an https origin only. `resolver`: looks up names. `keep_alive`: seconds for which an idle
    connection is kept. `max_body`: bytes of a body, compressed and decompressed.
    """

    def __init__(
        self,
        origin: str,
        proxy: URL | None = None,
        *,
        resolver: AbstractResolver | None = None,
        keep_alive: float = KEEP_ALIVE,
        max_body: int = MAX_BODY,
    ) -> None:
        is_tls = origin.startswith("https:")
        self._origin = origin
        self._proxy = proxy if is_tls else None
        self._max_body = max_body
        self._tls = ssl.create_default_context() if is_tls else None
        self._trusted = _trusted_files()
        connector = aiohttp.TCPConnector(
            ssl=self._tls or True,
            resolver=resolver or NameResolver(),
            ttl_dns_cache=DNS_TTL,
            keepalive_timeout=keep_alive,
            limit=MAX_CONNECTIONS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            proxy=self._proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # it has no limit of the decompressed size
            timeout=aiohttp.ClientTimeout(),  # none: the caller limits the whole attempt
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )
        # aiohttp repeats requests by default. The budget and the metrics would not count those.
        self._session._retry_connection = False  # noqa: SLF001 - there is no public name

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """The answer to a request for a URL of this origin, whatever its status.

        OSError where there is no answer. ValueError where it is longer than `max_body`, or where
        the URL has an illegal character.
        """
        target = request_target(self._origin, url)
        body, chunks = bytearray(), 0
        try:
            async with self._session.get(
                target,
                headers={**headers, "Accept-Encoding": "gzip"},
                allow_redirects=False,  # credentials go to this origin only
            ) as response:
                # Not iter_chunks: of an answer without a body it never comes to an end.
                while not response.content.at_eof():
                    piece, is_end_of_chunk = await response.content.readchunk()
                    body += piece
                    chunks += is_end_of_chunk
                    if len(body) > self._max_body:
                        raise ValueError(f"the answer is longer than {self._max_body} bytes")
                    if chunks > MAX_CHUNKS:
                        raise ValueError(f"the answer has more than {MAX_CHUNKS} chunks")
        except aiohttp.ClientError as error:
            raise self._translated(error) from None
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("gzip", "x-gzip", "identity"):
            raise ConnectionError(f"Content-Encoding {encoding!r} was not asked for")
        text: bytes | bytearray = body
        if encoding != "identity" and len(body) > LARGE_GZIP:
            loop = asyncio.get_running_loop()
            text = await loop.run_in_executor(THREADS, gunzip, body, self._max_body)
        elif encoding != "identity":
            text = gunzip(body, self._max_body)
        return Answer(response.status, _printable(response.reason or ""), response.headers, text)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _trust_anew(self) -> None:
        """Trust new certificate authorities of this machine, for the next connection.

        Those that were removed stay trusted: a context has no way to forget one.
        """
        current = _trusted_files()
        if self._tls is not None and current != self._trusted:
            self._trusted = current
            self._tls.load_default_certs()

    def _translated(self, error: aiohttp.ClientError) -> Exception:
        """The error as an OSError or a ValueError; those of DNS and TLS keep their own type."""
        proxy = f"the proxy {self._proxy.host}:{self._proxy.port}" if self._proxy else ""
        match error:
            case aiohttp.InvalidURL():
                return ValueError("odata.nextLink is no URL")
            case aiohttp.ClientConnectorCertificateError():
                self._trust_anew()
                return error.certificate_error
            case aiohttp.ClientConnectorDNSError() | aiohttp.ClientConnectorSSLError():
                return error.os_error
            case aiohttp.ClientProxyConnectionError():
                return ProxyError(f"{proxy}: {error.os_error}")
            case aiohttp.ClientConnectorError():
                return _cut_off(error.os_error, is_tls=self._tls is not None)
            case aiohttp.ClientHttpProxyError():
                said = _printable(error.message)
                return ProxyError(f"{proxy} refused: {error.status} {said}", error.status)
            case aiohttp.ClientResponseError():
                # The lines after the first show the bytes at fault.
                why = _printable(error.message).partition("\n")[0].rstrip(":")
                return ConnectionError(f"the answer is no HTTP: {why}")
            case aiohttp.ClientPayloadError():
                return ConnectionError("the connection ended within an answer")
            case aiohttp.ServerDisconnectedError():
                return ConnectionError("the connection ended before an answer")
        return ConnectionError(f"the connection ended before an answer: {error}")


def _cut_off(error: OSError, *, is_tls: bool) -> OSError:
    """The error of a connection that was not made. One without a number broke within TLS."""
    if is_tls and not error.errno:
        return ssl.SSLError(1, "the connection ended within the TLS handshake")
    return ConnectionError(str(error))


def _trusted_files() -> tuple[object, ...]:
    """What changes with the files of trusted certificate authorities (SSL_CERT_FILE and _DIR)."""
    paths = ssl.get_default_verify_paths()
    found: list[object] = []
    for path in (paths.cafile, paths.capath):
        with suppress(OSError):
            if path is not None:
                status = os.stat(path)
                found.append((path, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def request_target(origin: str, url: str) -> URL:
    """The URL to send, with path and query byte for byte as given, because they are signed.

    It always leads to `origin`, because two parsers may read another URL differently. ValueError
    where the URL has an illegal character.
    """
    path = url.partition("://")[2].partition("#")[0].partition("/")[2]
    if _ILLEGAL.search(path):
        raise ValueError("the URL has a character that may not stand in a request")
    return URL(f"{origin}/{path}", encoded=True)


def _printable(text: str) -> str:
    """The text without surrogates. aiohttp makes them of invalid UTF-8; no log can write them."""
    return text.encode("utf-8", "replace").decode()


def proxy_for(host: str) -> URL | None:
    """The proxy for an https host, from HTTPS_PROXY and NO_PROXY, with its credentials.

    ValueError where the address is invalid.
    """
    address = getproxies().get("https", "")
    if not address or proxy_bypass(host):
        return None
    try:
        proxy = URL(address if "://" in address else f"http://{address}")
    except ValueError:
        proxy = URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        # The address may hold a password, so the message does not show it.
        raise ValueError("HTTPS_PROXY is no proxy's address: write http://HOST:PORT")
    if proxy.password:
        # A proxy may answer with what it was given.
        redaction.hide(proxy.password)
        given = f"{proxy.user or ''}:{proxy.password}"
        redaction.hide(base64.b64encode(given.encode()).decode())
    return proxy
