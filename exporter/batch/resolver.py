"""Looks up host names in separate threads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Getaddrinfo = Callable[..., Sequence[tuple[Any, ...]]]


class NameResolver(AbstractResolver):
    """Runs each look-up in a new daemon thread.

    A look-up may hang for minutes. In the event loop's default executor it would delay other work,
    and asyncio.run() would wait for it at exit. There are few threads: the connector caches the
    addresses, and looks up a name once at a time. `getaddrinfo`: socket.getaddrinfo, or a function
    like it.
    """

    def __init__(self, getaddrinfo: Getaddrinfo = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host. OSError where it has none."""
        found: Future[Sequence[tuple[Any, ...]]] = Future()
        found.set_running_or_notify_cancel()  # a cancellation cannot stop the thread

        def look_up() -> None:
            try:
                found.set_result(
                    self._getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
                )
            except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
                found.set_exception(error)

        Thread(target=look_up, name="name look-up", daemon=True).start()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family, _, protocol, _, address in await asyncio.wrap_future(found)
        ]

    async def close(self) -> None:
        """Nothing is held."""
