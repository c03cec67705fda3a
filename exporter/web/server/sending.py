"""Sending an answer in pieces, so that a client that is slow holds little memory, and not for long.

A body written at once would be copied for each client into the buffer of its connection.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate

from aiohttp import web

PIECE = 256 * 1024


class InParts(web.StreamResponse):
    """An answer whose body is `parts` joined, without copying them."""

    def __init__(self, parts: tuple[bytes, ...], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))
        self.content_length = self._ends[-1] if parts else 0

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
        # There may be twenty thousand parts, so where to cut is looked up, not counted one by one.
        start = size = 0
        while start < len(self._parts):
            stop = bisect_right(self._ends, size + PIECE, start)
            if stop > start:
                yield b"".join(self._parts[start:stop])
            else:
                view, stop = memoryview(self._parts[start]), start + 1
                yield from (view[at : at + PIECE] for at in range(0, len(view), PIECE))
            start, size = stop, self._ends[stop - 1]
