"""Sends an answer in pieces, so that a slow client holds little memory, and not for long.

A body that is written at once would be copied into the send buffer of each client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from aiohttp import HttpVersion11, web

from exporter.web.server.limits import Limits

PIECE = 256 * 1024


class InParts(web.StreamResponse):
    """An answer whose body is `parts` joined.

    A tuple has a known length. Parts of another iterable are made while they are sent, in chunks.
    `on_sent`: called once the whole body is sent, so not after HEAD or if the client goes away.
    """

    def __init__(
        self,
        parts: Iterable[bytes],
        headers: Mapping[str, str],
        status: int = 200,
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(status=status, headers=headers)
        self._parts = parts
        self._on_sent = on_sent
        if isinstance(parts, tuple):
            self.content_length = sum(map(len, parts))

    async def send(self, request: web.Request, limits: Limits) -> None:
        """Send the answer, and cut off a client that is too slow.

        A client has `write_timeout` for each piece. Over the whole answer, it has `write_timeout`
        and the time that `least_rate` gives.
        """
        if self.content_length is None:
            if request.version >= HttpVersion11:
                self.enable_chunked_encoding()
            else:
                self.force_close()  # HTTP/1.0 has no chunks: the closed connection ends the answer
        loop = asyncio.get_running_loop()
        latest = loop.time() + limits.write_timeout
        try:
            await self.prepare(request)
            if request.method != "HEAD":
                for piece in pieces(self._parts):
                    until = min(latest, loop.time() + limits.write_timeout)
                    async with asyncio.timeout_at(until):
                        await self.write(piece)
                    latest += len(piece) / limits.least_rate
                    await asyncio.sleep(0)  # write() waits for slow clients only
            async with asyncio.timeout(limits.write_timeout):
                await self.write_eof()
            transport = request.transport
            if request.method != "HEAD" and transport is not None and not transport.is_closing():
                self._on_sent()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the client is gone; aiohttp notices that itself
        finally:
            self._parts = ()  # the response object may outlive its sending


def pieces(parts: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """The body in pieces of similar size: small parts are joined, large ones split."""
    small: list[bytes] = []
    size = 0
    for part in parts:
        if size + len(part) > PIECE and small:
            yield b"".join(small)
            small, size = [], 0
        if len(part) > PIECE:
            view = memoryview(part)
            yield from (view[at : at + PIECE] for at in range(0, len(view), PIECE))
        else:
            small.append(part)
            size += len(part)
    if small:
        yield b"".join(small)
