"""What comes over a connection, in two pieces: the second begins where the first byte says."""

from __future__ import annotations

import asyncio

from exporter.batch.session import MAX_BODY, Session


def target(data: bytes) -> None:
    """There is an answer that may be, or one of the two errors."""
    asyncio.run(_exchange(data[:1], data[1:]))


async def _exchange(where: bytes, data: bytes) -> None:
    cut = where[0] if where else 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data[:cut])
        await asyncio.sleep(0)
        writer.write(data[cut:])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        session = Session(f"http://127.0.0.1:{port}")
        try:
            found = await session.get(f"http://127.0.0.1:{port}/", {})
        except (OSError, ValueError):
            return
        finally:
            await session.close()
    assert 101 <= found.status <= 999
    assert len(found.body) <= MAX_BODY
    found.reason.encode()  # a log can write it
