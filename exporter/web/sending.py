"""Sending an answer in pieces, so that a client that is slow holds little memory, and not for long.

A body written at once would be copied for each client into the buffer of its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from aiohttp import web

PIECE = 64 * 1024


class InParts(web.StreamResponse):
    """An answer whose body is `parts` joined, without copying them."""

    def __init__(self, parts: tuple[bytes, ...], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self.content_length = sum(map(len, parts))
        self._parts = parts

    async def send(self, request: web.Request, write_timeout: float) -> None:
        """Send it; a client that does not take a piece of it within so many seconds is cut off."""
        try:
            await self.prepare(request)
            if request.method != "HEAD":
                for piece in self._pieces():
                    async with asyncio.timeout(write_timeout):
                        await self.write(piece)
            async with asyncio.timeout(write_timeout):
                await self.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the client is gone; aiohttp finds out by itself

    def _pieces(self) -> Iterator[bytes | memoryview]:
        """The body in pieces of about the same size: small parts together, large ones cut."""
        small: list[bytes] = []
        size = 0
        for part in self._parts:
            if small and size + len(part) > PIECE:
                yield b"".join(small)
                small, size = [], 0
            if len(part) <= PIECE:
                small.append(part)
                size += len(part)
            else:
                view = memoryview(part)
                yield from (view[start : start + PIECE] for start in range(0, len(part), PIECE))
        if small:
            yield b"".join(small)
