"""One line on a terminal that says how far a round of polls is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TextIO

from exporter.service.service import Progress, Service

INTERVAL = 0.1
"""Seconds between two looks."""

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


def describe(progress: Progress) -> str:
    """Accounts, jobs, polls and pages in one line."""
    return (
        f"accounts {progress.accounts_done} of {progress.accounts}, jobs {progress.jobs:,},"
        f" polls {progress.polls_done:,} of {progress.polls:,}, pages {progress.pages:,}"
    )


@asynccontextmanager
async def shown(service: Service, line: Line | None) -> AsyncIterator[None]:
    """Show the progress while the context lasts; nothing is left of it."""
    if line is None:
        yield
        return

    async def watch() -> None:
        while True:
            line.show(describe(service.progress))
            await asyncio.sleep(INTERVAL)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        line.show(describe(service.progress))
        line.show("")
