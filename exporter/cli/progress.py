"""One line on a terminal that shows how far a round of polls is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

from exporter.service.service import Service

INTERVAL = 0.1
"""Seconds between two updates."""

_CLEAR = "\r\x1b[K"


class Line:
    """The last line of a terminal, and a stream for log lines that come above it."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._shown = ""

    def show(self, text: str) -> None:
        """Replace the line."""
        if text != self._shown:
            self._shown = text
            self._terminal.write(_CLEAR + text)
            self._terminal.flush()

    def write(self, text: str) -> int:
        """Write something above the line."""
        self._terminal.write(_CLEAR if self._shown else "")
        self._shown = ""
        return self._terminal.write(text)

    def flush(self) -> None:
        """Write it now."""
        self._terminal.flush()


@asynccontextmanager
async def shown(service: Service, line: Line) -> AsyncIterator[None]:
    """Show the progress while the context lasts, and clear the line at its end."""

    def show() -> None:
        done = service.progress
        line.show(
            f"accounts {done.accounts_done} of {done.accounts}, jobs {done.jobs:,},"
            f" polls {done.polls_done:,} of {done.polls:,}, pages {done.pages:,}"
        )

    async def watch() -> None:
        while True:
            show()
            await asyncio.sleep(INTERVAL)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        show()
        line.show("")
