"""What comes over a connection, in two pieces: the second begins where the first byte says."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from exporter.batch.connection import MAX_BODY, Answer, BrokenConnection, Connection


class _Transport(asyncio.Transport):
    """Nobody is there."""

    def write(self, data: Any) -> None: ...

    def abort(self) -> None: ...


def target(data: bytes) -> None:
    """There is an answer that may be, or one of the two errors; and no second answer."""
    asyncio.run(_exchange(data[:1], data[1:]))


async def _exchange(where: bytes, data: bytes) -> None:
    connection = Connection()
    connection.connection_made(_Transport())
    waiting = asyncio.ensure_future(connection.exchange(b"GET / HTTP/1.1\r\n\r\n"))
    await asyncio.sleep(0)
    cut = where[0] if where else 0
    for piece in (data[:cut], data[cut:]):
        if piece:
            connection.get_buffer(-1)[: len(piece)] = piece
            connection.buffer_updated(len(piece))
    connection.connection_lost(None)
    assert not connection.is_reusable
    try:
        answer = cast(Answer, await waiting)
    except (BrokenConnection, ValueError):
        return
    assert 200 <= answer.status <= 999
    assert len(answer.body) <= MAX_BODY
    assert all(name == name.lower() for name in answer.headers)
